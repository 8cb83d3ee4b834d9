//! Replicas that come, go and return, on nodes in one process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use switchboard_engine::command::{
    BeginMoves, EndMove, MoveEnd, NoteMove, ReplicaMove, SetNode, SetPlacement,
};
use switchboard_engine::{Command, GroupId, META_GROUP, MoveStep, Reply, Status, group_of_shard};

use crate::cluster_tests::{Cluster, member};
use crate::error::MembershipError;
use crate::group::Group;
use crate::node::Node;
use crate::types::NodeId;

const SHARD: u32 = 1;
const GROUP: GroupId = group_of_shard(SHARD);

/// Four nodes, of which the first three are a cluster of two shards and the fourth is known to meta.
async fn three_and_one() -> Cluster {
    let cluster = Cluster::unfounded(4).await;
    let members: Vec<_> = cluster.nodes.iter().take(3).map(member).collect();
    cluster.nodes[0].found([9; 16], 2, &members).await.expect("founded");
    cluster.nodes[0].take_in_members().await.expect("all are there");
    let fourth = member(&cluster.nodes[3]);
    let (node_id, address, disk_id) = (fourth.node_id, fourth.address, fourth.disk_id);
    meta(&cluster, Command::SetNode(SetNode { node_id, address, disk_id })).await;
    let taken = leader(&cluster, 0).await.add_learner(4).await;
    taken.expect("a learner of meta");
    cluster
}

/// A replica that leads, among those that are members still.
pub(crate) fn leading(cluster: &Cluster, group: GroupId) -> Option<Arc<Group>> {
    let mut groups = cluster.nodes.iter().filter_map(|node| node.group(group));
    groups.find(|group| group.is_leader() && group.status().voters.contains(&group.node_id()))
}

pub(crate) async fn leader(cluster: &Cluster, group: GroupId) -> Arc<Group> {
    let led = async {
        loop {
            if let Some(found) = leading(cluster, group) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), led).await.expect("a leader")
}

/// Proposes to meta, as often as nothing came of it.
pub(crate) async fn meta(cluster: &Cluster, command: Command) {
    loop {
        let proposed = leader(cluster, 0).await.propose(vec![command.clone()]).expect("room");
        match proposed.await.as_deref() {
            Ok([Reply::Done(Status::Ok)]) => return,
            Ok(other) => panic!("{other:?} to {command:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

pub(crate) async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let waited = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

/// Changes members on whoever leads, again while the change before is not through.
async fn change(cluster: &Cluster, voters: Option<&BTreeSet<NodeId>>, learner: NodeId) {
    loop {
        let group = leader(cluster, GROUP).await;
        let changed = match voters {
            None => group.add_learner(learner).await,
            Some(voters) => group.change_voters(voters).await,
        };
        match changed {
            Ok(()) => return,
            Err(
                MembershipError::InProgress
                | MembershipError::NotLeader { .. }
                | MembershipError::TooNew { .. }
                | MembershipError::Silent { .. },
            ) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The steps that a mover takes.
async fn move_replica(cluster: &Cluster, from: NodeId, to: NodeId) {
    let replica = ReplicaMove { shard: SHARD, from, to };
    meta(cluster, Command::BeginMoves(BeginMoves { placement_version: 0, moves: vec![replica] }))
        .await;
    let target = &cluster.nodes[to as usize - 1];
    until("the target has an empty replica", || target.group(GROUP).is_some()).await;
    change(cluster, None, to).await;
    until("the target has caught up", || {
        let progress = leading(cluster, GROUP).and_then(|group| group.catch_up(to));
        progress.is_some_and(|progress| progress.behind() == 0)
    })
    .await;
    let id = group_move(cluster);
    let note = NoteMove { shard: SHARD, id, step: MoveStep::Changing, stalled: String::new() };
    meta(cluster, Command::NoteMove(note)).await;
    let leader = leader(cluster, GROUP).await;
    let mut voters: BTreeSet<NodeId> = leader.status().voters.into_iter().collect();
    voters.remove(&from);
    voters.insert(to);
    change(cluster, Some(&voters), to).await;
    until("all voters know of the change", || {
        leading(cluster, GROUP).is_some_and(|group| group.voters_unaware().is_empty())
    })
    .await;
    meta(cluster, Command::EndMove(EndMove { shard: SHARD, id, end: MoveEnd::Done })).await;
    let source = &cluster.nodes[from as usize - 1];
    until("the source has dropped its replica", || source.group(GROUP).is_none()).await;
}

fn group_move(cluster: &Cluster) -> u64 {
    let state = |node: &Node| {
        node.meta().shard().meta(|meta| meta.placement().move_of(SHARD).map(|moving| moving.id))
    };
    cluster.nodes.iter().find_map(state).expect("a move")
}

pub(crate) async fn tick(cluster: &Cluster) {
    loop {
        let group = leader(cluster, GROUP).await;
        if group.propose(vec![Command::Tick]).expect("room").await.is_ok() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_leaves_a_node_and_returns_in_a_new_life() {
    let cluster = three_and_one().await;
    let first_life = cluster.nodes[0].log().group_state(GROUP).life;
    tick(&cluster).await;
    move_replica(&cluster, 1, 4).await;
    let log = cluster.nodes[0].log();
    until("the log has forgotten it", || log.group_state(GROUP).life == first_life + 1).await;
    let gone = log.group_state(GROUP);
    assert_eq!((gone.last, gone.vote), (None, None));
    tick(&cluster).await;
    move_replica(&cluster, 4, 1).await;
    tick(&cluster).await;
    let last = leader(&cluster, GROUP).await.shard().applied();
    for node in &cluster.nodes[..3] {
        let group = node.group(GROUP).expect("a replica");
        until("applied", || group.shard().applied() >= last).await;
        assert_eq!(group.shard().state_hash(), leader(&cluster, GROUP).await.shard().state_hash());
    }
    cluster.shutdown().await;
}

/// A placement may be old (read again after a restart, or by a node that was away) or wrong: whatever it
/// says, a replica that its group counts on stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_its_group_counts_on_is_not_dropped() {
    let cluster = three_and_one().await;
    tick(&cluster).await;
    for node in &cluster.nodes[..3] {
        assert!(!node.drop_if_forgotten(GROUP).await, "a voter on node {}", node.node_id());
        assert!(node.group(GROUP).is_some());
    }
    move_replica(&cluster, 1, 4).await;
    move_replica(&cluster, 4, 1).await;
    assert!(!cluster.nodes[0].drop_if_forgotten(GROUP).await, "a voter that has returned");
    // A learner counts too: it is about to vote.
    let replica = ReplicaMove { shard: SHARD, from: 0, to: 4 };
    meta(&cluster, Command::BeginMoves(BeginMoves { placement_version: 0, moves: vec![replica] }))
        .await;
    until("a replica", || cluster.nodes[3].group(GROUP).is_some()).await;
    change(&cluster, None, 4).await;
    assert!(!cluster.nodes[3].drop_if_forgotten(GROUP).await);
    tick(&cluster).await;
    cluster.shutdown().await;
}

/// Nobody but a leader that a majority follows can say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_nobody_can_be_asked_about_is_not_dropped() {
    let cluster = three_and_one().await;
    change(&cluster, Some(&[2, 3].into()), 1).await;
    until("who leads was not moved away", || {
        cluster.nodes[1..3].iter().filter_map(|node| node.group(GROUP)).any(|g| g.is_leader())
    })
    .await;
    cluster.cut(2);
    cluster.cut(3);
    assert!(!cluster.nodes[0].drop_if_forgotten(GROUP).await);
    assert!(cluster.nodes[0].group(GROUP).is_some());
    cluster.heal();
    let node = &cluster.nodes[0];
    let dropped = async { while !node.drop_if_forgotten(GROUP).await {} };
    tokio::time::timeout(Duration::from_secs(60), dropped).await.expect("they answer again");
    assert!(node.group(GROUP).is_none());
    cluster.shutdown().await;
}

/// What a new state of the meta group, or one of a cluster older than placement, says of it.
#[tokio::test]
async fn without_a_record_every_replica_stays() {
    let cluster = Cluster::unfounded(1).await;
    cluster.nodes[0].initialize_single(2).await.expect("alone");
    let placement = switchboard_engine::MetaState::default().placement().clone();
    assert!((0..2).all(|shard| placement.names(shard, 1)));
    let recorded = cluster.nodes[0].meta().shard().meta(|meta| meta.placement().clone());
    assert_eq!(recorded.replicas(SHARD), Some(&[1][..]));
    // Whoever records it again, knowing less or more, changes nothing.
    let other = SetPlacement { shard: SHARD, replicas: vec![2] };
    let node = SetNode { node_id: 2, address: "node-2".into(), disk_id: [2; 16] };
    let commands = vec![Command::SetNode(node), Command::SetPlacement(other)];
    let replies = cluster.nodes[0].meta().propose(commands).expect("room").await.expect("applied");
    assert_eq!(replies[1], Reply::Done(Status::Fenced));
    assert!(!cluster.nodes[0].drop_if_forgotten(GROUP).await, "nobody else has it");
    cluster.shutdown().await;
}

/// What it gets was stamped before the night, and nobody has stamped anything since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_comes_to_an_idle_shard_does_not_live_in_the_past() {
    const NIGHT: Duration = Duration::from_secs(8 * 3_600);
    let cluster = three_and_one().await;
    tick(&cluster).await;
    let evening_ms = leader(&cluster, GROUP).await.shard().log_time_ms();
    cluster.pass(NIGHT);
    move_replica(&cluster, 1, 4).await;
    let fourth = cluster.nodes[3].group(GROUP).expect("it was moved here");
    let stamped = async {
        while u128::from(fourth.shard().log_time_ms() - evening_ms) < NIGHT.as_millis() {
            if fourth.is_leader() {
                let _ = fourth.propose(vec![Command::Tick]).expect("room").await;
            } else {
                // Who leads may not lead any more, or another change may be under way.
                let _ = leader(&cluster, GROUP).await.transfer_leader(4).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), stamped).await;
    assert!(
        in_time.is_ok(),
        "{} ms of the night have passed",
        fourth.shard().log_time_ms() - evening_ms
    );
    assert_eq!(fourth.status().clock_alarms, 0);
    cluster.shutdown().await;
}

/// Simulated seed 40876: the group made a voter of a replica that did not vote yet, and then lost a disk of
/// another. Neither could be elected without the other's vote for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_too_new_to_vote_is_made_no_voter() {
    let cluster = three_and_one().await;
    // Node 4 has no replica of this group yet, so it cannot say that it would vote.
    change(&cluster, None, 4).await;
    let group = leader(&cluster, GROUP).await;
    let refused = group.change_voters(&[1, 2, 3, 4].into()).await;
    assert!(
        matches!(
            refused,
            Err(MembershipError::TooNew { node: 4 } | MembershipError::NotLeader { .. })
        ),
        "{refused:?}"
    );
    assert_eq!(leader(&cluster, GROUP).await.status().voters, [1, 2, 3]);
    cluster.shutdown().await;
}

/// Taking a replica out that answers could leave those without a majority that do not.
#[tokio::test(flavor = "multi_thread")]
async fn voters_of_which_no_majority_answers_are_not_made() {
    let cluster = three_and_one().await;
    let (group, cut) = loop {
        let group = leader(&cluster, GROUP).await;
        let cut = [1, 2, 3].into_iter().find(|node| *node != group.node_id()).unwrap();
        cluster.cut(cut);
        let refused = group.change_voters(&[group.node_id(), cut].into()).await;
        match refused {
            Err(MembershipError::Silent { silent, .. }) => {
                assert_eq!(silent, [cut]);
                break (group, cut);
            }
            Err(MembershipError::NotLeader { .. }) => cluster.heal(),
            other => panic!("{other:?}"),
        }
    };
    // Nothing of it is in the log: the other change is made.
    let mut others = BTreeSet::from([1, 2, 3]);
    others.remove(&cut);
    assert_eq!(group.status().voters, [1, 2, 3]);
    change(&cluster, Some(&others), 4).await;
    let voters = leader(&cluster, GROUP).await.status().voters;
    assert_eq!(voters, others.into_iter().collect::<Vec<_>>());
    cluster.heal();
    cluster.shutdown().await;
}

/// Changes that follow each other faster than they commit were a panic in openraft: they are refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_come_too_fast_are_refused_and_harm_nothing() {
    let cluster = three_and_one().await;
    let asked = (0..40).map(|number| {
        let cluster = &cluster;
        async move {
            let group = leader(cluster, GROUP).await;
            let voters: BTreeSet<NodeId> =
                if number % 4 == 0 { [1, 2, 3].into() } else { [1, 2].into() };
            match number % 3 {
                0 => group.add_learner(4).await,
                1 => group.remove_learner(4).await,
                _ => group.change_voters(&voters).await,
            }
        }
    });
    for outcome in futures::future::join_all(asked).await {
        assert!(
            matches!(
                outcome,
                Ok(())
                    | Err(MembershipError::InProgress
                        | MembershipError::NotLeader { .. }
                        | MembershipError::NoQuorum
                        | MembershipError::TooNew { .. }
                        | MembershipError::Silent { .. }
                        | MembershipError::Refused { .. })
            ),
            "{outcome:?}"
        );
    }
    tick(&cluster).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_voters_that_was_left_half_done_is_ended_by_the_leader() {
    let cluster = three_and_one().await;
    let leader = leader(&cluster, META_GROUP).await;
    until("the newcomer has caught up", || {
        leader.catch_up(4).is_some_and(|progress| progress.behind() == 0)
    })
    .await;
    let leaves = [1, 2, 3].into_iter().find(|node| *node != leader.node_id());
    let mut voters = BTreeSet::from([1, 2, 3, 4]);
    voters.remove(&leaves.unwrap());
    let is_half_done = async {
        while !leader.is_changing_members().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = is_half_done => {}
        // Quicker than anybody looks: then nothing is left to be ended.
        done = leader.raft().change_membership(voters.clone(), false) => drop(done),
    }
    let voters: Vec<NodeId> = voters.into_iter().collect();
    until("the new voters decide alone", || leader.status().voters == voters).await;
    cluster.shutdown().await;
}
