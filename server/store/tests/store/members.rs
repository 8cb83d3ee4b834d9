//! Three nodes over real sockets: a cluster is made, any node answers, one stops and comes back.

use std::time::Duration;

use switchboard_api::v1::{
    self, ItemStatus, NodeInfo, claim_request, compare_replicas_response::Outcome,
    mailbox_service_client::MailboxServiceClient, peer_service_client::PeerServiceClient,
    register_request::Kind,
};
use switchboard_engine::Formats;
use switchboard_store::StoreConfig;
use tempfile::TempDir;
use tonic::{Code, transport::Channel};

use crate::{
    harness::{
        Store, address, assert_error, assert_status, config, device, member, message, only,
        start_configured,
    },
    waiting::{DEADLINE, refused, retried, until},
};

pub(crate) struct Nodes {
    pub(crate) dirs: Vec<TempDir>,
    pub(crate) stores: Vec<Store>,
}

impl Nodes {
    /// Three nodes that wait for a cluster.
    async fn waiting() -> Self {
        Self::waiting_reading([Formats::OF_THIS_BUILD; 3]).await
    }

    /// The same, each of a release that reads these formats.
    async fn waiting_reading(formats: [Formats; 3]) -> Self {
        let mut nodes = Self { dirs: Vec::new(), stores: Vec::new() };
        for (node_id, formats) in (1..).zip(formats) {
            let dir = tempfile::tempdir().unwrap();
            let config = StoreConfig { formats, ..member(dir.path(), node_id) };
            nodes.stores.push(start_configured(config).await.expect("it starts"));
            nodes.dirs.push(dir);
        }
        nodes
    }

    fn init(&self) -> v1::InitClusterRequest {
        let peer = |(store, node_id): (&Store, u64)| NodeInfo {
            node_id,
            address: address(&store.running, "store-grpc").to_string(),
        };
        v1::InitClusterRequest { peers: self.stores.iter().zip(1..).map(peer).collect(), shards: 4 }
    }

    /// A cluster of three.
    pub(crate) async fn made() -> Self {
        Self::made_reading([Formats::OF_THIS_BUILD; 3]).await
    }

    /// A cluster of three that read these formats.
    pub(crate) async fn made_reading(formats: [Formats; 3]) -> Self {
        let mut nodes = Self::waiting_reading(formats).await;
        let init = nodes.init();
        let made = nodes.stores[0].cluster.init_cluster(init.clone()).await.unwrap().into_inner();
        assert_eq!((made.shards, made.cluster_id.len()), (4, 32));
        for store in &nodes.stores {
            store.running.ready().await;
        }
        // Again: there is nothing left to do.
        let again = nodes.stores[0].cluster.init_cluster(init).await.unwrap().into_inner();
        assert_eq!(again.cluster_id, made.cluster_id);
        nodes
    }

    /// Waits until all replicas of all shards have the same state at the same index.
    pub(crate) async fn assert_equal_replicas(&mut self) {
        let request = v1::CompareReplicasRequest { shards: Vec::new() };
        let mut cluster = self.stores[0].cluster.clone();
        until("all replicas are at one index", async || {
            let compared = cluster.compare_replicas(request.clone()).await.unwrap().into_inner();
            assert_eq!(compared.shards.len(), 4);
            compared.shards.iter().all(|shard| match shard.outcome() {
                Outcome::Equal => shard.replicas.len() == 3,
                Outcome::Unknown => false,
                different => panic!("{different:?}: {shard:?}"),
            })
        })
        .await;
    }

    pub(crate) async fn shutdown(self) {
        for store in self.stores {
            store.running.shutdown().await;
        }
    }
}

/// Enqueues until it is accepted, as a sender does.
pub(crate) async fn send(store: &mut Store, to: &str, n: u64) {
    send_through(&mut store.mailboxes, to, n).await;
}

/// The same with a client of one's own.
pub(crate) async fn send_through(mailboxes: &mut MailboxServiceClient<Channel>, to: &str, n: u64) {
    let sent = async {
        loop {
            let item = message("alice", to, n, b"hello");
            let request = v1::EnqueueRequest { items: vec![item] };
            let answer = mailboxes.enqueue(request).await;
            let status = answer.map(|answer| only(answer.into_inner().results).status());
            match status {
                Ok(ItemStatus::Ok | ItemStatus::Duplicate) => return,
                Ok(ItemStatus::Unavailable | ItemStatus::Overloaded) => {}
                Ok(other) => panic!("{other:?}"),
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, sent).await.expect("accepted");
}

/// The ids that wait for a user, as this node answers.
pub(crate) async fn waiting(store: &mut Store, user: &str) -> Vec<u64> {
    let mut messages: Vec<v1::Message> = Vec::new();
    let mut more = true;
    while more {
        let device = Some(device(user, 1));
        let after_seq = messages.last().map_or(0, |message| message.seq);
        let request = v1::FetchRequest { device, after_seq, ..Default::default() };
        let fetch = async || store.mailboxes.fetch(request.clone()).await;
        let page = retried(fetch).await.into_inner();
        messages.extend(page.messages);
        more = page.more;
    }
    let id = |bytes: &[u8]| u64::from_be_bytes(bytes[8..].try_into().unwrap());
    messages.iter().map(|message| id(&message.message_id)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_answers_for_every_user() {
    let mut nodes = Nodes::made().await;
    let users: Vec<String> = (0..12).map(|n| format!("user-{n}")).collect();
    // A gateway registers with one node, and claims through another at once.
    let gateway = nodes.stores[1].register("gateway-1", Kind::Gateway).await;
    for (n, user) in (0..).zip(&users) {
        let through = &mut nodes.stores[n % 3];
        assert_status(
            through.claim(gateway, device(user, 1), n as u64).await.status,
            ItemStatus::Ok,
        );
        send(&mut nodes.stores[(n + 1) % 3], user, n as u64).await;
    }
    for (n, user) in (0..).zip(&users) {
        for store in &mut nodes.stores {
            assert_eq!(store.locate(user.as_bytes()).await.sessions.len(), 1);
            assert_eq!(waiting(store, user).await, [n]);
        }
        let page = nodes.stores[0].fetch(device(user, 1)).await;
        let through = &mut nodes.stores[2];
        let acked = through.ack(device(user, 1), 0, page.tail).await;
        assert_status(acked.status, ItemStatus::Ok);
        assert_eq!(waiting(&mut nodes.stores[1], user).await, [0; 0]);
    }
    nodes.assert_equal_replicas().await;
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_a_node_stops_and_comes_back() {
    let mut nodes = Nodes::made().await;
    for n in 0..50 {
        send(&mut nodes.stores[(n % 3) as usize], "bob", n).await;
    }
    let stopped = nodes.stores.remove(0);
    let listen = address(&stopped.running, "store-grpc");
    stopped.running.shutdown().await;
    for n in 50..100 {
        send(&mut nodes.stores[(n % 2) as usize], "bob", n).await;
    }
    let dir = nodes.dirs[0].path();
    let again = StoreConfig { listen, ..member(dir, 1) };
    nodes.stores.insert(0, start_configured(again).await.expect("it starts"));
    nodes.stores[0].running.ready().await;
    for n in 100..150 {
        send(&mut nodes.stores[(n % 3) as usize], "bob", n).await;
    }
    for store in &mut nodes.stores {
        let found = waiting(store, "bob").await;
        assert_eq!(found, (0..150).collect::<Vec<_>>());
    }
    nodes.assert_equal_replicas().await;
    nodes.shutdown().await;
}

/// Raft remembers who led last, and nobody else can be elected.
#[tokio::test(flavor = "multi_thread")]
async fn shards_without_a_majority_are_shown_without_a_leader() {
    let mut nodes = Nodes::made().await;
    for _ in 0..2 {
        nodes.stores.pop().expect("there").running.shutdown().await;
    }
    let mut cluster = nodes.stores[0].cluster.clone();
    until("no leader is shown", async || {
        let listed = cluster.list_shards(v1::ListShardsRequest {}).await.unwrap().into_inner();
        listed.shards.len() == 4 && listed.shards.iter().all(|shard| shard.leader_node_id == 0)
    })
    .await;
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_answers_all_that_it_has_taken() {
    let mut nodes = Nodes::made().await;
    let stopping = nodes.stores.remove(0);
    // Calls for every shard, those that it leads and those that it passes on, one after the other.
    let callers: Vec<_> = (0..24)
        .map(|caller| {
            let mut mailboxes = stopping.mailboxes.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let item = message("alice", &format!("user-{caller}"), caller << 32 | n, b"x");
                    let request = v1::EnqueueRequest { items: vec![item] };
                    match mailboxes.enqueue(request).await {
                        Ok(_) => {}
                        // Refused before anything happened, or not taken at all.
                        Err(status) => return status,
                    }
                }
                unreachable!("it stops")
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(stopping.running.shutdown().await, "no call was cut off");
    for caller in callers {
        let status = caller.await.expect("a caller ends");
        // Cancelled: it had not left the caller when the connection was closed.
        let refused = matches!(status.code(), Code::Unavailable | Code::Cancelled);
        assert!(refused, "{status:?}");
    }
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_where_it_is_sent() {
    let mut nodes = Nodes::made().await;
    for to_node_id in [2, 3, 1] {
        let request = v1::TransferLeaderRequest { shard: 2, to_node_id };
        // Asked of a node that need not lead it; a leader that was just elected may decline.
        retried(async || nodes.stores[0].cluster.transfer_leader(request).await).await;
    }
    for (shard, to_node_id, code, reason) in
        [(2, 9, Code::FailedPrecondition, "NOT_MEMBER"), (4, 1, Code::NotFound, "UNKNOWN_SHARD")]
    {
        let request = v1::TransferLeaderRequest { shard, to_node_id };
        let refusal = refused(async || nodes.stores[0].cluster.transfer_leader(request).await);
        assert_error(&refusal.await, code, reason, false);
    }
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_made_of_waiting_nodes_only() {
    let mut nodes = Nodes::waiting().await;
    let refused = nodes.stores[0].cluster.shard_map(v1::ShardMapRequest {}).await.unwrap();
    assert_eq!(refused.into_inner().shards, 0);
    let mut mixed = nodes.init();
    mixed.peers[1].node_id = 3;
    mixed.peers[2].node_id = 2;
    let refused = nodes.stores[0].cluster.init_cluster(mixed).await.unwrap_err();
    assert_error(&refused, Code::FailedPrecondition, "OTHER_NODE", false);
    let mut without = nodes.init();
    without.peers.remove(0);
    let refused = nodes.stores[0].cluster.init_cluster(without).await.unwrap_err();
    assert_error(&refused, Code::InvalidArgument, "PEERS", false);

    let alone = tempfile::tempdir().unwrap();
    let single = StoreConfig { node_id: 3, ..config(alone.path()) };
    let single = start_configured(single).await.expect("it starts");
    let mut taken = nodes.init();
    taken.peers[2].address = address(&single.running, "store-grpc").to_string();
    let refused = nodes.stores[0].cluster.init_cluster(taken).await.unwrap_err();
    assert_error(&refused, Code::FailedPrecondition, "ALREADY_IN_CLUSTER", false);
    single.running.shutdown().await;

    // None of that made anything: the right command still works.
    let init = nodes.init();
    nodes.stores[0].cluster.init_cluster(init).await.expect("made");
    nodes.shutdown().await;
}

/// The command was cut short on the first node and repeated on another, which would make a second cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_begun_on_one_node_is_not_made_on_another() {
    let mut nodes = Nodes::waiting().await;
    let mut peers = Vec::new();
    for node in nodes.init().peers {
        let client = PeerServiceClient::connect(format!("http://{}", node.address)).await;
        peers.push((client.expect("it listens"), node));
    }
    let mut members = Vec::new();
    for (peer, NodeInfo { node_id, address }) in &mut peers {
        let found = peer.identify(v1::IdentifyRequest {}).await.unwrap().into_inner();
        let (node_id, address, disk_id) = (*node_id, address.clone(), found.disk_id);
        members.push(v1::Member { node_id, address, disk_id });
    }
    for (peer, _) in &mut peers[..2] {
        let (cluster_id, members) = (vec![7; 16].into(), members.clone());
        peer.join(v1::JoinRequest { protocol: 1, cluster_id, members, as_of: 0 })
            .await
            .expect("told");
    }
    let init = nodes.init();
    let refused = nodes.stores[1].cluster.init_cluster(init).await.unwrap_err();
    assert_error(&refused, Code::FailedPrecondition, "BEGUN_ELSEWHERE", false);
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_cut_off_goes_on_where_it_was() {
    let nodes = Nodes::made().await;
    let mut identities = Vec::new();
    for store in &nodes.stores[..2] {
        let mut peer = PeerServiceClient::new(store.channel.clone());
        identities.push(peer.identify(v1::IdentifyRequest {}).await.unwrap().into_inner());
    }
    let [to, from] = &identities[..] else { unreachable!("two were asked") };
    let hello = v1::PeerHello {
        protocol: to.protocol,
        cluster_id: to.cluster_id.clone(),
        from_node_id: from.node_id,
        from_disk_id: from.disk_id.clone(),
        to_node_id: to.node_id,
        to_disk_id: to.disk_id.clone(),
        format_oldest: from.format_oldest,
        format_newest: from.format_newest,
    };
    let mut peer = PeerServiceClient::new(nodes.stores[0].channel.clone());
    let asking = (peer.clone(), hello.clone());
    let offset = async |number: u64| {
        let (mut peer, hello) = asking.clone();
        let hello = Some(hello);
        let asked = v1::SnapshotOffsetRequest { hello, group: 1, sender_life: 7, number };
        peer.snapshot_offset(asked).await.unwrap().into_inner().offset
    };
    let messages = |offset: u64, last: bool| {
        let header = v1::InstallSnapshotRequest {
            hello: Some(hello.clone()),
            group: 1,
            vote: switchboard_raft::encode_vote(&switchboard_raft::RaftVote::new(1, 2)),
            sender_life: 7,
            number: 1,
            offset,
            ..Default::default()
        };
        let chunk =
            v1::InstallSnapshotRequest { chunk: vec![9; 1_000].into(), ..Default::default() };
        let end = last.then(|| v1::InstallSnapshotRequest { last, ..Default::default() });
        tokio_stream::iter([header, chunk].into_iter().chain(end))
    };
    assert_eq!(offset(1).await, 0);
    for kept in [1_000, 2_000] {
        // It ends without a last message, as when the sender dies.
        peer.install_snapshot(messages(kept - 1_000, false)).await.unwrap_err();
        assert_eq!((offset(1).await, offset(2).await), (kept, 0));
    }
    // Whoever goes on elsewhere than where it was cut off begins anew, and so does who sent no snapshot.
    peer.install_snapshot(messages(500, false)).await.unwrap_err();
    assert_eq!(offset(1).await, 0);
    peer.install_snapshot(messages(0, true)).await.unwrap_err();
    assert_eq!(offset(1).await, 0);
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_is_not_talked_to() {
    let mut nodes = Nodes::made().await;
    send(&mut nodes.stores[1], "bob", 1).await;
    let stopped = nodes.stores.remove(2);
    let listen = address(&stopped.running, "store-grpc");
    stopped.running.shutdown().await;
    let wiped_dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { listen, ..member(wiped_dir.path(), 3) };
    let wiped = start_configured(config).await.expect("it starts");
    // The other two are a majority, and stay one without it.
    for n in 2..20 {
        send(&mut nodes.stores[(n % 2) as usize], "bob", n).await;
    }
    until("it alone is silent", async || {
        let listed = nodes.stores[0].cluster.list_nodes(v1::ListNodesRequest {}).await.unwrap();
        let silent = listed.into_inner().nodes.into_iter().filter(|node| node.status.is_none());
        silent.filter_map(|node| Some(node.node?.node_id)).collect::<Vec<_>>() == [3]
    })
    .await;

    // It comes back when an operator says that the old disk is lost, and not before.
    let address = listen.to_string();
    let mut add = v1::AddNodeRequest {
        node: Some(v1::NodeInfo { node_id: 3, address }),
        ..Default::default()
    };
    let mut cluster = nodes.stores[0].cluster.clone();
    let refusal = refused(async || cluster.add_node(add.clone()).await).await;
    assert!(refusal.message().contains("--lost-disk"), "{refusal:?}");
    add.lost_disk = true;
    retried(async || cluster.add_node(add.clone()).await).await;
    nodes.stores.insert(2, wiped);
    nodes.dirs[2] = wiped_dir;
    let is_whole = async || {
        let mut cluster = nodes.stores[0].cluster.clone();
        let listed = cluster.list_nodes(v1::ListNodesRequest {}).await.unwrap().into_inner();
        let moves = cluster.list_moves(v1::ListMovesRequest {}).await;
        let map = cluster.shard_map(v1::ShardMapRequest {}).await.unwrap().into_inner();
        listed.nodes.iter().all(|node| !node.returning && node.status.is_some())
            && moves.is_ok_and(|moves| moves.into_inner().moves.is_empty())
            && map.placement.iter().all(|shard| shard.replica_node_ids.len() == 3)
    };
    until("all its replicas are back", is_whole).await;
    send(&mut nodes.stores[2], "bob", 20).await;
    nodes.assert_equal_replicas().await;
    nodes.shutdown().await;
}

/// It was away while the disks of both others were replaced, so neither would be heard by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_refuses_the_others_asks_them_for_a_later_book() {
    let mut nodes = Nodes::made().await;
    let configs: Vec<StoreConfig> = (1..)
        .zip(nodes.stores.iter().zip(&nodes.dirs))
        .map(|(node_id, (store, dir))| {
            let listen = address(&store.running, "store-grpc");
            StoreConfig { listen, ..member(dir.path(), node_id) }
        })
        .collect();
    for store in nodes.stores.drain(..) {
        store.running.shutdown().await;
    }
    let edit = |config: &StoreConfig, change: &dyn Fn(&mut serde_json::Value)| {
        let path = config.data.join("peers.json");
        let mut book = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut book);
        std::fs::write(&path, book.to_string()).unwrap();
    };
    for config in &configs[..2] {
        edit(config, &|book| book["as_of"] = 1.into());
    }
    edit(&configs[2], &|book| {
        for other in [0, 1] {
            book["members"][other]["disk_id"] = "00112233445566778899aabbccddeeff".into();
        }
    });
    for config in configs {
        nodes.stores.push(start_configured(config).await.expect("it starts"));
    }
    let ready = nodes.stores[2].running.ready();
    tokio::time::timeout(DEADLINE, ready).await.expect("it is heard again");
    send(&mut nodes.stores[2], "bob", 1).await;
    nodes.assert_equal_replicas().await;
    nodes.shutdown().await;
}

/// Restarts a node in its place, with another configuration.
pub(crate) async fn restart(nodes: &mut Nodes, at: usize, change: impl FnOnce(&mut StoreConfig)) {
    let stopped = nodes.stores.remove(at);
    let listen = address(&stopped.running, "store-grpc");
    stopped.running.shutdown().await;
    let (dir, node_id) = (nodes.dirs[at].path(), at as u64 + 1);
    let mut again = StoreConfig { listen, ..member(dir, node_id) };
    change(&mut again);
    nodes.stores.insert(at, start_configured(again).await.expect("it starts"));
    nodes.stores[at].running.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_were_changed_on_all_nodes_hold_in_all_shards() {
    let mut nodes = Nodes::made().await;
    for at in 0..3 {
        restart(&mut nodes, at, |config| config.limits.mailbox_messages_max = 10).await;
    }
    for user in (0..8).map(|n| format!("user-{n}")) {
        // Until the limit holds, a message more is taken; then none.
        let full = async {
            for n in 0.. {
                let request = v1::EnqueueRequest { items: vec![message("alice", &user, n, b"")] };
                let answer = nodes.stores[0].mailboxes.enqueue(request).await;
                let status = answer.map(|answer| only(answer.into_inner().results).status());
                if let Ok(ItemStatus::MailboxFull) = status {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, full).await.expect("the limit holds");
    }
    nodes.assert_equal_replicas().await;
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_loses_its_leader_is_ended_by_the_next() {
    let mut nodes = Nodes::made().await;
    let gateway = nodes.stores[0].register("gateway-1", Kind::Gateway).await;
    for batch in 0..8_u64 {
        let items = (0..1_000).map(|n| claim_request::Item {
            device: Some(device(&format!("user-{batch}-{n}"), 1)),
            connection_id: batch * 1_000 + n,
            push_token: String::new(),
        });
        let items = items.collect();
        let request = v1::ClaimRequest { items, gateway_id: gateway.0, incarnation: gateway.1 };
        until("all are claimed", async || {
            let claim = async || nodes.stores[0].sessions.claim(request.clone()).await;
            let claimed = retried(claim).await.into_inner();
            claimed.results.iter().all(|result| match result.status() {
                ItemStatus::Ok => true,
                ItemStatus::Unavailable | ItemStatus::Overloaded => false,
                other => panic!("{other:?}"),
            })
        })
        .await;
    }
    // Ends the incarnation with its sessions; each shard is swept by several commands.
    nodes.stores[0].register("gateway-1", Kind::Gateway).await;
    for shard in 0..4 {
        for to_node_id in 1..=3 {
            let request = v1::TransferLeaderRequest { shard, to_node_id };
            // Whether it is taken or declined, who leads is open from here on.
            let _ = nodes.stores[0].cluster.transfer_leader(request).await;
        }
    }
    until("swept", async || {
        let listed = nodes.stores[0].cluster.list_nodes(v1::ListNodesRequest {}).await;
        let nodes = listed.unwrap().into_inner().nodes;
        let told: Vec<_> = nodes.iter().filter_map(|node| node.status.as_ref()).collect();
        let left = told.iter().flat_map(|status| &status.shards).map(|shard| shard.sessions);
        told.len() == 3 && left.sum::<u64>() == 0
    })
    .await;
    nodes.shutdown().await;
}
