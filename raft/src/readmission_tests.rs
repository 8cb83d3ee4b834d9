//! Nodes that lose their disks, in one process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::raft::VoteRequest;
use switchboard_engine::command::{
    BeginMoves, EndMove, MoveEnd, ReadmitNode, ReplicaMove, SetNode,
};
use switchboard_engine::{Command, GroupId, Placement, Reply, Status, group_of_shard};

use crate::checkpointer::checkpoint;
use crate::cluster_tests::{Cluster, member};
use crate::group::Group;
use crate::membership_tests::{leader, meta, tick, until};
use crate::network::{PeerRequest, PeerResponse};
use crate::node::Node;
use crate::types::{NodeId, RaftVote};

const GROUPS: [GroupId; 3] = [0, group_of_shard(0), group_of_shard(1)];

async fn founded() -> Cluster {
    let cluster = Cluster::unfounded(3).await;
    let members: Vec<_> = cluster.nodes.iter().map(member).collect();
    cluster.nodes[0].found([9; 16], 2, &members).await.expect("founded");
    cluster.nodes[0].take_in_members().await.expect("all are there");
    cluster
}

fn group(node: &Node, id: GroupId) -> Arc<Group> {
    node.group(id).expect("a replica")
}

/// What an operator asks for.
async fn readmit(cluster: &Cluster, node_id: NodeId) {
    let disk_id = cluster.nodes[node_id as usize - 1].disk_id();
    let again = ReadmitNode { node_id, disk_id, is_forgotten: false };
    meta(cluster, Command::ReadmitNode(again)).await;
    let again = member(&cluster.nodes[node_id as usize - 1]);
    until("its disk is recorded", || cluster.nodes[0].members().contains(&again)).await;
}

/// Gives a node a vote in a group again, as whoever carries moves out does.
async fn give_vote(cluster: &Cluster, id: GroupId, node: NodeId) {
    let replica = || cluster.nodes[node as usize - 1].group(id);
    until("it has an empty replica", || replica().is_some()).await;
    let voters = BTreeSet::from([1, 2, 3]);
    let voted = async {
        while leader(cluster, id).await.add_learner(node).await.is_err() {}
        while leader(cluster, id).await.catch_up(node).is_none_or(|progress| progress.behind() > 0)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        while leader(cluster, id).await.change_voters(&voters).await.is_err() {}
    };
    tokio::time::timeout(Duration::from_secs(60), voted).await.expect("a voter");
}

/// Carries out the moves that give a node its replicas back.
async fn give_back(cluster: &Cluster, node: NodeId) {
    give_vote(cluster, GROUPS[0], node).await;
    for shard in 0..2 {
        give_vote(cluster, group_of_shard(shard), node).await;
        let id = cluster.nodes[0].meta().shard().meta(|meta| {
            assert_eq!(meta.placement().replicas(shard).map(<[_]>::len), Some(2));
            meta.placement().move_of(shard).map(|moving| moving.id)
        });
        let done = EndMove { shard, id: id.expect("a move"), end: MoveEnd::Done };
        meta(cluster, Command::EndMove(done)).await;
    }
}

async fn is_whole_again(cluster: &Cluster, node: NodeId) {
    for id in GROUPS {
        until("it votes", || {
            let of_leader = cluster.nodes.iter().filter_map(|node| node.group(id));
            of_leader.filter(|group| group.is_leader()).any(|group| {
                let members = group.status();
                members.voters == [1, 2, 3] && members.learners.is_empty()
            })
        })
        .await;
        let replica = group(&cluster.nodes[node as usize - 1], id);
        until("it is no newcomer", || !replica.newcomer.is_new()).await;
        let last = leader(cluster, id).await.shard().applied();
        until("it has applied all", || replica.shard().applied() >= last).await;
        until("the replicas are equal", || {
            let hashes: BTreeSet<_> =
                cluster.nodes.iter().map(|node| group(node, id).shard().state_hash()).collect();
            hashes.len() == 1
        })
        .await;
    }
}

/// Its groups have no log left that begins at the beginning, so it gets them as snapshots.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_comes_back_whole() {
    let mut cluster = founded().await;
    tick(&cluster).await;
    cluster.wipe(3).await;
    tick(&cluster).await;
    for id in GROUPS {
        let leader = leader(&cluster, id).await;
        until("it can be purged", || leader.shard().applied().is_some()).await;
        while checkpoint(&leader, true).await.is_none() {}
    }
    assert_eq!(cluster.nodes[2].meta().shard().applied(), None, "nobody talks to it");
    readmit(&cluster, 3).await;
    give_back(&cluster, 3).await;
    is_whole_again(&cluster, 3).await;
    tick(&cluster).await;
    cluster.shutdown().await;
}

/// One of three has what was committed, one lacks it, and the third has forgotten it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_makes_no_majority_with_one_that_lacks_an_entry() {
    let mut cluster = founded().await;
    let id = GROUPS[1];
    cluster.cut(2);
    until("one of the others leads", || {
        [0, 2].iter().any(|at| group(&cluster.nodes[*at], id).is_leader())
    })
    .await;
    let index = loop {
        let leader = cluster.nodes.iter().map(|node| group(node, id));
        let leader = leader.filter(|group| group.node_id() != 2).find(|group| group.is_leader());
        let Some(leader) = leader else { continue };
        if leader.propose(vec![Command::Tick]).expect("room").await.is_ok() {
            break leader.shard().applied().expect("entries").index;
        }
    };
    cluster.wipe(3).await;
    cluster.cut(1);
    cluster.heal_one(2);
    let lacking = group(&cluster.nodes[1], id);
    for _ in 0..5 {
        let term = lacking.status().term;
        // Without asking first whether it could be elected.
        lacking.raft().trigger().elect(false).await.expect("it runs");
        until("it stands", || lacking.status().term > term).await;
        assert!(!lacking.is_leader());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!lacking.is_leader());
    assert!(lacking.shard().applied().is_none_or(|at| at.index < index));

    cluster.heal();
    until("whoever has it leads", || group(&cluster.nodes[0], id).is_leader()).await;
    assert!(group(&cluster.nodes[0], id).shard().applied().is_some_and(|at| at.index >= index));
    readmit(&cluster, 3).await;
    give_back(&cluster, 3).await;
    is_whole_again(&cluster, 3).await;
    cluster.shutdown().await;
}

/// Whoever left long ago may ask for the vote of the replica that was here then.
#[tokio::test]
async fn a_new_replica_grants_no_vote_before_it_has_caught_up() {
    let cluster = Cluster::unfounded(1).await;
    let group = cluster.nodes[0].meta();
    let ask = || PeerRequest::Vote(VoteRequest::new(RaftVote::new(7, 9), None));
    let granted = async || match group.receive(ask()).await {
        Ok(PeerResponse::Vote(response)) => response.vote_granted,
        other => panic!("{other:?}"),
    };
    assert!(!granted().await);
    group.end_newness().await.expect("unmarked");
    assert!(granted().await);
    cluster.shutdown().await;
}

#[tokio::test]
async fn another_disk_is_recorded_only_for_a_node_that_was_readmitted_and_forgotten() {
    let cluster = Cluster::unfounded(1).await;
    cluster.nodes[0].initialize_single(1).await.expect("alone");
    let set = |disk| {
        let address = "node-2".to_owned();
        Command::SetNode(SetNode { node_id: 2, address, disk_id: [disk; 16] })
    };
    let readmit = |disk, is_forgotten| {
        Command::ReadmitNode(ReadmitNode { node_id: 2, disk_id: [disk; 16], is_forgotten })
    };
    let steps = [
        (readmit(2, false), Status::Invalid),
        (set(1), Status::Ok),
        (set(2), Status::Fenced),
        (readmit(2, true), Status::Fenced),
        (readmit(2, false), Status::Ok),
        (set(2), Status::Fenced),
        (readmit(3, true), Status::Fenced),
        // It was not lost after all.
        (readmit(1, false), Status::Ok),
        (readmit(2, true), Status::Fenced),
        (readmit(2, false), Status::Ok),
        (readmit(2, true), Status::Ok),
        (set(2), Status::Ok),
        (set(1), Status::Fenced),
    ];
    let (commands, expected): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
    let replies = cluster.nodes[0].meta().propose(commands).expect("room").await.expect("applied");
    assert_eq!(replies, expected.into_iter().map(Reply::Done).collect::<Vec<_>>());
    cluster.shutdown().await;
}

/// It may have been taken out of some groups before, and nothing says which.
#[tokio::test]
async fn a_disk_that_is_found_again_gets_back_what_its_node_had() {
    let cluster = Cluster::unfounded(1).await;
    cluster.nodes[0].initialize_single(1).await.expect("alone");
    let group = cluster.nodes[0].meta();
    let done = async |command: Command| {
        let replies = group.propose(vec![command]).expect("room").await.expect("applied");
        assert_eq!(replies, [Reply::Done(Status::Ok)]);
    };
    let readmit = |disk| {
        let (disk_id, is_forgotten) = ([disk; 16], false);
        Command::ReadmitNode(ReadmitNode { node_id: 2, disk_id, is_forgotten })
    };
    let placement = || group.shard().meta(|meta| meta.placement().clone());
    let (address, disk_id) = ("node-2".to_owned(), [1; 16]);
    done(Command::SetNode(SetNode { node_id: 2, address, disk_id })).await;
    let more = ReplicaMove { shard: 0, from: 0, to: 2 };
    let begin = || Command::BeginMoves(BeginMoves { placement_version: 0, moves: vec![more] });
    done(begin()).await;
    let id = placement().move_of(0).expect("it has begun").id;
    done(Command::EndMove(EndMove { shard: 0, id, end: MoveEnd::Done })).await;
    assert_eq!(placement().replicas(0), Some(&[1, 2][..]));

    done(readmit(9)).await;
    assert!(placement().is_returning(2));
    done(readmit(1)).await;
    let given_back = |placement: Placement| {
        assert_eq!(placement.replicas(0), Some(&[1][..]));
        let moving = placement.move_of(0).expect("it is on its way back");
        assert_eq!((moving.replica, moving.aborting), (more, false));
    };
    assert!(!placement().is_returning(2));
    given_back(placement());
    // Lost again before it was there: nothing else knows any more that it had one.
    done(readmit(9)).await;
    given_back(placement());
    cluster.shutdown().await;
}
