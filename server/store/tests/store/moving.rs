//! Replicas move over real sockets: to a node that was added, away from one that is drained, and not where
//! something would be lost.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use switchboard_api::{
    shard_of,
    v1::{
        self, ItemStatus, NodeInfo, Read, ReplicaMove, WatchRequest, register_request::Kind,
        stat_request, watch_response::Change,
    },
};
use switchboard_engine::fs::{Files, RealFiles};
use switchboard_store::StoreConfig;
use tonic::{Code, Streaming};

use crate::{
    failing::GatedFiles,
    harness::{
        Store, address, assert_error, config, device, member, message, start_configured, start_on,
    },
    members::{Nodes, restart, send_through, waiting},
    waiting::{DEADLINE, found, refused, retried, until},
};

const USERS: [&str; 6] = ["ann", "bob", "carol", "dave", "erin", "frank"];

/// Starts a node that waits for its cluster.
async fn start_waiting(nodes: &mut Nodes, node_id: u64, files: Arc<dyn Files>) -> NodeInfo {
    let dir = tempfile::tempdir().unwrap();
    let store = start_on(files, member(dir.path(), node_id)).await.expect("it starts");
    let address = address(&store.running, "store-grpc").to_string();
    nodes.stores.push(store);
    nodes.dirs.push(dir);
    NodeInfo { node_id, address }
}

/// A cluster of three and a fourth node without replicas.
async fn made_of_four() -> Nodes {
    let mut nodes = Nodes::made().await;
    add(&mut nodes, 4).await;
    nodes
}

async fn add(nodes: &mut Nodes, node_id: u64) {
    add_on(nodes, node_id, Arc::new(RealFiles)).await;
}

async fn add_on(nodes: &mut Nodes, node_id: u64, files: Arc<dyn Files>) {
    let node = start_waiting(nodes, node_id, files).await;
    let mut cluster = nodes.stores[nodes.stores.len() - 2].cluster.clone();
    retried(async || {
        let request = v1::AddNodeRequest { node: Some(node.clone()), ..Default::default() };
        cluster.add_node(request).await
    })
    .await;
    nodes.stores[nodes.stores.len() - 1].running.ready().await;
}

fn moving(shard: u32, from_node_id: u64, to_node_id: u64) -> ReplicaMove {
    ReplicaMove { shard, from_node_id, to_node_id }
}

/// Reads progress until there is none any more.
async fn ended(mut progress: Streaming<v1::MoveProgress>) {
    let read = async {
        let mut last = None;
        while let Some(progress) = progress.message().await.expect("it goes on") {
            last = Some(progress);
        }
        let last = last.expect("something is told");
        assert_eq!((last.moves_ended, last.moves.len()), (last.moves_total, 0));
    };
    tokio::time::timeout(DEADLINE, read).await.expect("the moves end");
}

async fn move_shard(store: &mut Store, replica: ReplicaMove) {
    let mut cluster = store.cluster.clone();
    let request = v1::MoveShardRequest { replica: Some(replica) };
    ended(retried(async || cluster.move_shard(request).await).await.into_inner()).await;
}

async fn moves_of(store: &mut Store) -> Vec<v1::MoveInfo> {
    let mut cluster = store.cluster.clone();
    retried(async || cluster.list_moves(v1::ListMovesRequest {}).await).await.into_inner().moves
}

async fn replicas_of(store: &mut Store, shard: u32) -> Vec<u64> {
    let map = store.cluster.shard_map(v1::ShardMapRequest {}).await.unwrap().into_inner();
    map.placement[shard as usize].replica_node_ids.clone()
}

/// Waits for the map of a node, which follows on its own.
async fn until_replicas(store: &mut Store, shard: u32, wanted: impl Fn(&[u64]) -> bool) {
    until("the map shows the replicas", async || wanted(&replicas_of(store, shard).await)).await;
}

/// Moves that balance the cluster, with every node in them: one that is slow to answer gets none.
async fn planned(store: &mut Store, moves: usize) -> v1::PlanRebalanceResponse {
    let mut cluster = store.cluster.clone();
    let mut plan = v1::PlanRebalanceResponse::default();
    until("a plan for all", async || {
        let asked = retried(async || cluster.plan_rebalance(v1::PlanRebalanceRequest {}).await);
        plan = asked.await.into_inner();
        plan.moves.len() == moves
    })
    .await;
    plan
}

async fn node_ids(store: &mut Store) -> BTreeSet<u64> {
    let listed = store.cluster.list_nodes(v1::ListNodesRequest {}).await.unwrap().into_inner();
    listed.nodes.into_iter().filter_map(|node| Some(node.node?.node_id)).collect()
}

/// Where the ids of a sender begin: they must not be those of another one to the same shard.
fn first_id(sender: u64) -> u64 {
    sender * 1_000_000
}

/// Senders through some of the nodes, until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    senders: Vec<tokio::task::JoinHandle<u64>>,
}

impl Load {
    /// One sender a user, each through a node of its own. No answer but OK, or one that says to come back, is
    /// taken.
    fn start<'a>(stores: impl IntoIterator<Item = &'a Store>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = stores.into_iter().map(|store| store.mailboxes.clone()).collect();
        let sender = |(at, user): (usize, &&'static str)| {
            let (mut client, user, stop) =
                (clients[at % clients.len()].clone(), *user, stop.clone());
            tokio::spawn(async move {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    send_through(&mut client, user, first_id(at as u64) + sent).await;
                    sent += 1;
                    // Leaves the processors some time for the moves.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                sent
            })
        };
        Self { senders: USERS.iter().enumerate().map(sender).collect(), stop }
    }

    /// Stops, and checks that every message that was accepted waits, in its order, whichever node is asked.
    async fn assert_kept(self, stores: &mut [Store]) {
        self.stop.store(true, Ordering::Relaxed);
        let senders = self.senders.into_iter().zip(0..);
        for ((sender, at), user) in senders.zip(USERS) {
            let first = first_id(at);
            let sent = sender.await.expect("nothing but retried errors");
            assert!(sent > 0);
            for store in &mut *stores {
                let found = waiting(store, user).await;
                assert_eq!(found, (first..first + sent).collect::<Vec<_>>(), "{user}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_move_to_a_node_and_back_under_load_and_nothing_is_lost() {
    let mut nodes = made_of_four().await;
    let load = Load::start(&nodes.stores);
    for shard in 0..2 {
        // From whoever it is, its leader now and then.
        let from = u64::from(shard) % 3 + 1;
        move_shard(&mut nodes.stores[2], moving(shard, from, 4)).await;
        let moved = |replicas: &[u64]| replicas.contains(&4) && !replicas.contains(&from);
        until_replicas(&mut nodes.stores[3], shard, moved).await;
    }
    for shard in 0..2 {
        let to = u64::from(shard) % 3 + 1;
        move_shard(&mut nodes.stores[3], moving(shard, 4, to)).await;
        until_replicas(&mut nodes.stores[0], shard, |replicas| replicas == [1, 2, 3]).await;
    }
    load.assert_kept(&mut nodes.stores).await;
    nodes.assert_equal_replicas().await;
    nodes.shutdown().await;
}

/// Who leads a shard, and since which term, as itself says.
async fn led(nodes: &mut Nodes, shard: u32) -> (u64, u64) {
    found("a leader", async || {
        for store in &mut nodes.stores {
            let status = store.cluster.status(v1::StatusRequest {}).await.unwrap().into_inner();
            let found = status.shards.iter().find(|one| one.shard == shard);
            let found = found.filter(|one| one.leader_node_id == status.node_id);
            if let Some(found) = found {
                return Some((found.leader_node_id, found.term));
            }
        }
        None
    })
    .await
}

/// A replica that has just been opened has not heard who leads, but its node has.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_gets_a_replica_goes_on_sending_to_who_leads() {
    let mut nodes = made_of_four().await;
    let user = (0..).map(|n| format!("user-{n}")).find(|user| shard_of(user.as_bytes(), 4) == 0);
    let user = user.expect("some user is in shard 0");
    loop {
        let before = led(&mut nodes, 0).await;
        let from = (1..=3).find(|node| *node != before.0).expect("two follow");
        let mut client = nodes.stores[3].mailboxes.clone();
        let (stop, user, term) = (Arc::new(AtomicBool::new(false)), user.clone(), before.1);
        let stopped = stop.clone();
        let asking = tokio::spawn(async move {
            let mut refused = Vec::new();
            for n in first_id(term).. {
                let items = vec![message("alice", &user, n, b"hello")];
                let answer = client.enqueue(v1::EnqueueRequest { items }).await;
                let answer = answer.map(|answer| answer.into_inner().results[0].status());
                if matches!(answer, Ok(ItemStatus::Unavailable) | Err(_)) {
                    refused.push(answer);
                }
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
            }
            refused
        });
        move_shard(&mut nodes.stores[2], moving(0, from, 4)).await;
        stop.store(true, Ordering::Relaxed);
        let refused = asking.await.expect("it asks");
        let is_same = led(&mut nodes, 0).await == before;
        move_shard(&mut nodes.stores[2], moving(0, 4, from)).await;
        // While leadership goes elsewhere, nobody leads.
        if is_same {
            assert!(refused.is_empty(), "{} refused, as {:?}", refused.len(), refused[0]);
            break;
        }
    }
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_under_load_and_removed() {
    let mut nodes = Nodes::made().await;
    let mut cluster = nodes.stores[1].cluster.clone();
    let drain = v1::DrainNodeRequest { node_id: 1, undo: false };
    let refusal = refused(async || cluster.drain_node(drain).await).await;
    assert_error(&refusal, Code::FailedPrecondition, "NOWHERE_TO_GO", false);
    let refusal =
        refused(async || cluster.remove_node(v1::RemoveNodeRequest { node_id: 1 }).await).await;
    assert_error(&refusal, Code::FailedPrecondition, "HAS_REPLICAS", false);
    assert!(refusal.message().contains("[0, 1, 2, 3]"), "{}", refusal.message());
    let refusal =
        refused(async || cluster.remove_node(v1::RemoveNodeRequest { node_id: 9 }).await).await;
    assert_error(&refusal, Code::NotFound, "UNKNOWN_NODE", false);

    add(&mut nodes, 4).await;
    let load = Load::start(&nodes.stores[1..]);
    retried(async || cluster.drain_node(drain).await).await;
    let others = &mut nodes.stores[1..];
    until("it is empty", async || {
        let mut left = false;
        for shard in 0..4 {
            left |= replicas_of(&mut others[0], shard).await.contains(&1);
        }
        !left && moves_of(&mut others[0]).await.is_empty()
    })
    .await;
    retried(async || cluster.remove_node(v1::RemoveNodeRequest { node_id: 1 }).await).await;
    load.assert_kept(others).await;
    until("nobody knows it", async || node_ids(&mut others[0]).await == BTreeSet::from([2, 3, 4]))
        .await;
    // Its id is never given out again.
    let address = address(&nodes.stores[0].running, "store-grpc").to_string();
    let node = Some(NodeInfo { node_id: 1, address });
    let request = v1::AddNodeRequest { node, ..Default::default() };
    let refusal = refused(async || cluster.add_node(request.clone()).await).await;
    assert_error(&refusal, Code::FailedPrecondition, "NODE_REMOVED", false);
    let removed = nodes.stores.remove(0);
    removed.running.shutdown().await;
    nodes.assert_equal_replicas().await;
    nodes.shutdown().await;
}

/// A node that is removed is not talked to any more, so its vote must be gone before.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_nodes_is_removed_and_the_other_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let alone = StoreConfig { node_id: 1, ..config(dir.path()) };
    let store = start_configured(alone).await.expect("it starts");
    store.running.ready().await;
    let mut nodes = Nodes { dirs: vec![dir], stores: vec![store] };
    for node_id in [2, 3] {
        add(&mut nodes, node_id).await;
        let first = &mut nodes.stores[0];
        until("both vote", async || {
            let listed = first.cluster.list_nodes(v1::ListNodesRequest {}).await.unwrap();
            listed.into_inner().nodes.iter().filter(|node| node.meta_voter).count() == 2
        })
        .await;
        let mut cluster = nodes.stores[0].cluster.clone();
        retried(async || cluster.remove_node(v1::RemoveNodeRequest { node_id }).await).await;
        nodes.stores.remove(1).running.shutdown().await;
        nodes.dirs.remove(1);
        // The meta group takes what is new.
        retried(async || {
            let drain = v1::DrainNodeRequest { node_id: 1, undo: true };
            cluster.drain_node(drain).await
        })
        .await;
    }
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_go_on_when_the_node_that_carries_them_out_stops() {
    let mut nodes = made_of_four().await;
    let leader = meta_leader(&mut nodes.stores[3]).await;
    let others = nodes.stores.iter().enumerate().filter(|(at, _)| *at != leader);
    let load = Load::start(others.map(|(_, store)| store));
    let plan = planned(&mut nodes.stores[3], 3).await;
    let v1::PlanRebalanceResponse { placement_version, moves } = plan;
    assert_eq!(moves.iter().map(|one| one.to_node_id).collect::<Vec<_>>(), [4; 3]);
    let request = v1::ApplyPlanRequest { placement_version, moves };
    let mut cluster = nodes.stores[3].cluster.clone();
    let progress = retried(async || cluster.apply_plan(request.clone()).await).await;
    // Node 4 votes in no group yet: it is not the one that stops.
    restart(&mut nodes, leader, |_| {}).await;
    ended(progress.into_inner()).await;
    until("three shards are on it", async || {
        let mut on_it = 0;
        for shard in 0..4 {
            on_it += usize::from(replicas_of(&mut nodes.stores[1], shard).await.contains(&4));
        }
        on_it == 3
    })
    .await;
    // The plan was for the placement before.
    let refusal = refused(async || cluster.apply_plan(request.clone()).await).await;
    assert_error(&refusal, Code::FailedPrecondition, "PLACEMENT_MOVED_ON", false);
    load.assert_kept(&mut nodes.stores).await;
    nodes.assert_equal_replicas().await;
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_to_a_node_that_is_down_says_so_and_can_be_aborted() {
    let mut nodes = made_of_four().await;
    let stopped = nodes.stores.remove(3);
    stopped.running.shutdown().await;
    let store = &mut nodes.stores[0];
    let mut cluster = store.cluster.clone();
    let request = v1::MoveShardRequest { replica: Some(moving(2, 1, 4)) };
    let progress = retried(async || cluster.move_shard(request).await).await.into_inner();
    let again = refused(async || cluster.move_shard(request).await).await;
    assert_error(&again, Code::FailedPrecondition, "MOVE_UNDER_WAY", false);
    until("it says why it is stalled", async || {
        let moves = moves_of(store).await;
        moves.len() == 1 && moves[0].stalled == "node 4 does not answer"
    })
    .await;
    retried(async || cluster.abort_move(v1::AbortMoveRequest { shard: 2 }).await).await;
    ended(progress).await;
    until_replicas(store, 2, |replicas| replicas == [1, 2, 3]).await;
    let refusal =
        refused(async || cluster.abort_move(v1::AbortMoveRequest { shard: 2 }).await).await;
    assert_error(&refusal, Code::FailedPrecondition, "NO_MOVE", false);
    // Nothing of it is left in the way.
    nodes.assert_equal_replicas().await;
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_is_almost_full_gets_nothing_until_there_is_room() {
    let mut nodes = Nodes::made().await;
    let disk = GatedFiles::default();
    add_on(&mut nodes, 4, Arc::new(disk.clone())).await;
    disk.set_free(Some(switchboard_engine::log::limits::RESERVE_BYTES / 2 + 1));
    let store = &mut nodes.stores[0];
    until("it says that it is full", async || {
        let listed = store.cluster.list_nodes(v1::ListNodesRequest {}).await.unwrap().into_inner();
        let full = listed
            .nodes
            .into_iter()
            .filter(|node| node.status.as_ref().is_some_and(|status| status.disk_almost_full));
        full.filter_map(|node| Some(node.node?.node_id)).collect::<Vec<_>>() == [4]
    })
    .await;
    let mut cluster = store.cluster.clone();
    let plan = retried(async || cluster.plan_rebalance(v1::PlanRebalanceRequest {}).await).await;
    assert_eq!(plan.into_inner().moves, []);

    let request = v1::MoveShardRequest { replica: Some(moving(1, 2, 4)) };
    let progress = retried(async || cluster.move_shard(request).await).await.into_inner();
    until("it says why it is stalled", async || {
        let moves = moves_of(store).await;
        moves.len() == 1 && moves[0].stalled == "the disk of node 4 is almost full"
    })
    .await;
    disk.set_free(None);
    ended(progress).await;
    until_replicas(store, 1, |replicas| replicas == [1, 3, 4]).await;
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_replicas_answers_as_well_as_the_others() {
    let mut nodes = made_of_four().await;
    let gateway = nodes.stores[0].register("gateway-1", Kind::Gateway).await;
    let through = &mut nodes.stores[3];
    let users = USERS.map(|user| user.as_bytes().to_vec().into()).to_vec();
    let request = WatchRequest { users, ..Default::default() };
    let mut events = through.sessions.watch(request).await.unwrap().into_inner();
    // It follows the shards where they are: each of those begins with a gap.
    for change in [Change::Started, Change::Compacted] {
        let event = tokio::time::timeout(DEADLINE, events.message()).await.expect("an event");
        assert_eq!(event.unwrap().expect("it goes on").change(), change);
    }
    for (user, n) in USERS.iter().zip(0..) {
        let claimed = through.claim(gateway, device(user, 1), n).await;
        assert_eq!(claimed.status(), ItemStatus::Ok);
        send_through(&mut through.mailboxes, user, n).await;
        assert_eq!(waiting(through, user).await, [n]);
        let item = stat_request::Item { device: Some(device(user, 1)), ..Default::default() };
        let stat = v1::StatRequest { items: vec![item] };
        let known = found("known", async || {
            let stat = retried(async || through.mailboxes.stat(stat.clone()).await).await;
            let status = stat.into_inner().results[0].status();
            (status != ItemStatus::Unavailable).then_some(status)
        })
        .await;
        assert_eq!(known, ItemStatus::Ok);
        for read in [Read::Local, Read::Lease, Read::Linearizable] {
            let users = vec![user.as_bytes().to_vec().into()];
            let request = v1::LocateRequest { users, read: read.into() };
            until("it is located", async || {
                let located = through.located(request.clone()).await;
                assert_eq!(located.status(), ItemStatus::Ok);
                // A local read may be of a moment before the claim.
                let is_found = located.sessions.len() == 1;
                assert!(is_found || read == Read::Local, "{read:?}: {located:?}");
                is_found
            })
            .await;
        }
        // The claim may have been seen by the look after a gap already, if its shard was the last to be found.
        let seen = async {
            loop {
                let event = events.message().await.unwrap().expect("it goes on");
                let session = event.session.clone().unwrap_or_default();
                match event.change() {
                    Change::Compacted => return,
                    Change::Claimed if session.device == Some(device(user, 1)) => return,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(DEADLINE, seen).await.expect("the claim is told");
    }
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_that_would_lose_something_are_refused() {
    let mut nodes = made_of_four().await;
    let mut cluster = nodes.stores[1].cluster.clone();
    for (replica, code, reason) in [
        (moving(9, 1, 4), Code::NotFound, "UNKNOWN_SHARD"),
        (moving(0, 1, 9), Code::NotFound, "UNKNOWN_NODE"),
        (moving(0, 4, 0), Code::FailedPrecondition, "NO_REPLICA"),
        (moving(0, 1, 2), Code::FailedPrecondition, "HAS_REPLICA"),
    ] {
        let request = v1::MoveShardRequest { replica: Some(replica) };
        let refusal = refused(async || cluster.move_shard(request).await).await;
        assert_error(&refusal, code, reason, false);
    }
    // With node 2 gone, a shard on 1 and 2 alone would have no majority.
    let stopped = nodes.stores.remove(1);
    stopped.running.shutdown().await;
    let store = &mut nodes.stores[0];
    let mut cluster = store.cluster.clone();
    let request = v1::MoveShardRequest { replica: Some(moving(0, 3, 0)) };
    let refusal = refused(async || cluster.move_shard(request).await).await;
    assert_error(&refusal, Code::FailedPrecondition, "NO_MAJORITY", false);
    assert!(refusal.message().contains("[2]"), "{}", refusal.message());
    nodes.shutdown().await;
}

/// The place of the node that leads the meta group.
async fn meta_leader(store: &mut Store) -> usize {
    found("somebody leads", async || {
        let status = store.cluster.status(v1::StatusRequest {}).await.unwrap().into_inner();
        status.meta_leader_node_id.checked_sub(1).map(|at| at as usize)
    })
    .await
}

/// Node 4 has no replica: that it is drained, or no more, is all that changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_knows_of_every_change_that_was_answered_whichever_node_is_asked() {
    let mut nodes = made_of_four().await;
    let mut before = 0;
    for round in 0..20 {
        let mut cluster = nodes.stores[0].cluster.clone();
        let drain = v1::DrainNodeRequest { node_id: 4, undo: round % 2 == 1 };
        let drained = retried(async || cluster.drain_node(drain).await).await.into_inner();
        assert!(drained.placement_version > before);
        before = drained.placement_version;
        for store in &mut nodes.stores {
            let mut cluster = store.cluster.clone();
            let request = v1::PlanRebalanceRequest {};
            let plan = retried(async || cluster.plan_rebalance(request).await).await.into_inner();
            assert_eq!(plan.placement_version, before);
        }
    }
    nodes.shutdown().await;
}
