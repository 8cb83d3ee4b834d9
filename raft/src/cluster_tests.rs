//! Three nodes in one process, joined by a transport that can be cut: that the module
//! [`network`](crate::network) fits a real transport, and that the settings elect and hand over.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use openraft::async_runtime::WatchReceiver as _;
use parking_lot::Mutex;
use switchboard_engine::command::SetNode;
use switchboard_engine::fs::sim::SimFiles;
use switchboard_engine::log::SpaceLevel;
use switchboard_engine::{Clock, Command, GroupId, META_GROUP, SystemClock};
use tokio::sync::{mpsc, oneshot};

use crate::checkpointer::{Purged, checkpoint};
use crate::error::ProposeError;
use crate::founding::Member;
use crate::group::Group;
use crate::network::{PeerRequest, PeerResponse, Transport, TransportError};
use crate::node::Node;
use crate::options::NodeOptions;
use crate::peer::ReceiveError;
use crate::planted::{PlantedBug, plant};
use crate::snapshot::SnapshotFile;
use crate::types::{NodeId, RaftVote, to_engine};

type Answer = oneshot::Sender<Result<PeerResponse, TransportError>>;

/// All nodes, and an ordered queue for each group of each.
#[derive(Clone, Default)]
pub(crate) struct Mesh(Arc<Mutex<MeshState>>);

/// The system's clocks, so many milliseconds ahead.
#[derive(Debug, Default)]
struct Ahead(AtomicU64);

impl Clock for Ahead {
    fn unix_ms(&self) -> u64 {
        SystemClock.unix_ms() + self.0.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic() + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

#[derive(Default)]
struct MeshState {
    /// Of all nodes.
    clock: Arc<Ahead>,
    nodes: HashMap<NodeId, Node>,
    disks: HashMap<NodeId, SimFiles>,
    queues: HashMap<(NodeId, NodeId, GroupId), mpsc::UnboundedSender<(PeerRequest, Answer)>>,
    cut: BTreeSet<NodeId>,
    /// A node to which nothing comes but what may overtake.
    held: Option<NodeId>,
    /// Numbers of snapshots that were sent, and how many of the next are lost.
    snapshots: Vec<u64>,
    snapshots_lost: usize,
    /// The highest index that an append without entries, sent to it, speaks of.
    spoken_of: u64,
}

/// Whether a node has the disk that it joined with, as another one knows.
fn knows_disk(one: &Node, other: &Node) -> bool {
    let members = one.members();
    let known = members.iter().find(|member| member.node_id == other.node_id());
    known.is_none_or(|member| member.disk_id == other.disk_id())
}

impl Mesh {
    async fn open(&self, id: NodeId, disk: u64) -> Node {
        let mut options = NodeOptions::new("/data", id, format!("node-{id}"));
        let disk = SimFiles::new(disk);
        options.files = Arc::new(disk.clone());
        options.clock = self.0.lock().clock.clone();
        options.log.segment_bytes = crate::limits::SEGMENT_BYTES_MIN;
        options.transport = Arc::new(MeshTransport { mesh: self.clone(), from: id });
        let node = Node::open(options).await.expect("opens");
        let mut state = self.0.lock();
        state.nodes.insert(id, node.clone());
        state.disks.insert(id, disk);
        node
    }

    /// A group of a node that another one talks to, if neither is cut off or has, to the other's
    /// knowledge, lost its disk.
    fn group(&self, from: NodeId, to: NodeId, group: GroupId) -> Option<Arc<Group>> {
        let state = self.0.lock();
        let (from, to) = (state.nodes.get(&from)?, state.nodes.get(&to)?);
        let cut = [from, to].iter().any(|node| state.cut.contains(&node.node_id()));
        let is_heard = !cut && knows_disk(from, to) && knows_disk(to, from);
        if is_heard { to.group(group) } else { None }
    }

    /// Whether a request goes ahead of those that are held back.
    fn overtakes(&self, to: NodeId, request: &PeerRequest) -> bool {
        let mut state = self.0.lock();
        let held = state.held == Some(to);
        if let PeerRequest::Append(append) = request
            && held
            && append.entries.is_empty()
        {
            let prev = append.prev_log_id.as_ref().map_or(0, |at| to_engine(at).index);
            state.spoken_of = state.spoken_of.max(prev);
        }
        held && request.may_overtake()
    }

    /// Answers requests one by one, in the order in which they were made.
    async fn serve(
        self,
        from: NodeId,
        to: NodeId,
        group: GroupId,
        mut requests: mpsc::UnboundedReceiver<(PeerRequest, Answer)>,
    ) {
        while let Some((request, answer)) = requests.recv().await {
            while self.0.lock().held == Some(to) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let received = match self.group(from, to, group) {
                Some(group) => group.receive(request).await.ok(),
                None => None,
            };
            let _ = answer.send(received.ok_or(TransportError::Unreachable(to)));
        }
    }
}

struct MeshTransport {
    mesh: Mesh,
    from: NodeId,
}

impl Transport for MeshTransport {
    fn call(
        &self,
        to: NodeId,
        group: GroupId,
        request: PeerRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<PeerResponse, TransportError>> {
        let (answer, answered) = oneshot::channel();
        let (mesh, from) = (self.mesh.clone(), self.from);
        if mesh.overtakes(to, &request) {
            return Box::pin(async move {
                let received = match mesh.group(from, to, group) {
                    Some(group) => group.receive(request).await.ok(),
                    None => None,
                };
                received.ok_or(TransportError::Unreachable(to))
            });
        }
        let key = (from, to, group);
        let queue = mesh.0.lock().queues.get(&key).cloned().unwrap_or_else(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            tokio::spawn(mesh.clone().serve(from, to, group, receiver));
            sender
        });
        let handed_over = queue.send((request, answer)).is_ok();
        mesh.0.lock().queues.insert(key, queue);
        Box::pin(async move {
            if !handed_over {
                return Err(TransportError::Broken(to));
            }
            match tokio::time::timeout(timeout, answered).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(TransportError::Broken(to)),
                Err(_) => Err(TransportError::Timeout(to)),
            }
        })
    }

    fn send_snapshot(
        &self,
        to: NodeId,
        group: GroupId,
        vote: RaftVote,
        snapshot: SnapshotFile,
    ) -> BoxFuture<'static, Result<RaftVote, TransportError>> {
        let (mesh, from) = (self.mesh.clone(), self.from);
        {
            let mut state = mesh.0.lock();
            state.snapshots.push(snapshot.number());
            if state.snapshots_lost > 0 {
                state.snapshots_lost -= 1;
                return Box::pin(async move { Err(TransportError::Broken(to)) });
            }
        }
        Box::pin(async move {
            match mesh.group(from, to, group) {
                Some(group) => {
                    let installed = group.receive_snapshot(vote, snapshot).await;
                    installed.map_err(|_| TransportError::Broken(to))
                }
                None => Err(TransportError::Unreachable(to)),
            }
        })
    }
}

pub(crate) struct Cluster {
    mesh: Mesh,
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    async fn new() -> Self {
        let cluster = Self::unfounded(3).await;
        let members = BTreeSet::from([1, 2, 3]);
        for node in &cluster.nodes {
            // Who was told by another one meanwhile has begun by that.
            let _ = node.meta().begin(members.clone()).await;
        }
        cluster
    }

    pub(crate) async fn unfounded(count: u64) -> Self {
        let mesh = Mesh::default();
        let mut nodes = Vec::new();
        for id in 1..=count {
            nodes.push(mesh.open(id, id).await);
        }
        Self { mesh, nodes }
    }

    /// The node that leads the meta group, among those that are not cut off.
    async fn leader(&self) -> Node {
        loop {
            let cut = self.mesh.0.lock().cut.clone();
            let reachable = |node: &&Node| !cut.contains(&node.node_id());
            let leads = |node: &&Node| node.meta().is_leader();
            if let Some(leader) = self.nodes.iter().filter(reachable).find(leads) {
                return leader.clone();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Proposes on whoever leads, again after each refusal that says that nothing happened.
    async fn write(&self, number: u64) -> Node {
        self.write_all(vec![set_node(number)]).await
    }

    async fn write_all(&self, commands: Vec<Command>) -> Node {
        loop {
            let leader = self.leader().await;
            match leader.meta().propose(commands.clone()).expect("room").await {
                Ok(_) => return leader,
                Err(ProposeError::NotLeader { .. } | ProposeError::OutcomeUnknown) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn wait_applied(&self, index: u64, nodes: &[Node]) {
        for node in nodes {
            let reached = node.meta().raft().wait(Some(Duration::from_secs(20)));
            let reached = reached.applied_index_at_least(Some(index), "replicated").await;
            reached.unwrap_or_else(|error| panic!("node {}: {error}", node.node_id()));
        }
    }

    /// Ends a node and starts it with an empty disk.
    pub(crate) async fn wipe(&mut self, id: NodeId) {
        let place = usize::try_from(id - 1).expect("few nodes");
        self.mesh.0.lock().nodes.remove(&id);
        self.nodes[place].shutdown().await;
        self.nodes[place] = self.mesh.open(id, 100 + id).await;
    }

    /// Lets time pass for the clocks, in which nothing happens.
    pub(crate) fn pass(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).expect("not that long");
        self.mesh.0.lock().clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    /// Cuts a node off.
    pub(crate) fn cut(&self, node: NodeId) {
        self.mesh.0.lock().cut.insert(node);
    }

    pub(crate) fn heal_one(&self, node: NodeId) {
        self.mesh.0.lock().cut.remove(&node);
    }

    /// Ends all cuts.
    pub(crate) fn heal(&self) {
        self.mesh.0.lock().cut.clear();
    }

    pub(crate) async fn shutdown(self) {
        self.mesh.0.lock().nodes.clear();
        for node in &self.nodes {
            node.shutdown().await;
        }
    }
}

pub(crate) fn member(node: &Node) -> Member {
    let (node_id, address) = (node.node_id(), node.options().address.clone());
    Member { node_id, address, disk_id: node.disk_id() }
}

fn set_node(number: u64) -> Command {
    let address = format!("node-{number}");
    Command::SetNode(SetNode { node_id: number, address, disk_id: [7; 16] })
}

fn applied(node: &Node) -> u64 {
    node.meta().shard().applied().expect("entries").index
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_agree_and_survive_their_leader() {
    let cluster = Cluster::new().await;
    for number in 10..20 {
        cluster.write(number).await;
    }
    let first = cluster.leader().await;
    cluster.wait_applied(applied(&first), &cluster.nodes).await;
    let hashes: Vec<_> =
        cluster.nodes.iter().map(|node| node.meta().shard().state_hash()).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");

    cluster.mesh.0.lock().cut.insert(first.node_id());
    let second = cluster.write(20).await;
    assert_ne!(second.node_id(), first.node_id());
    // The old leader cannot prove that it leads, so it serves no read that asks for it.
    let read = first.meta().barrier(crate::Consistency::Linearizable).await;
    assert!(read.is_err(), "{read:?}");

    cluster.mesh.0.lock().cut.clear();
    cluster.wait_applied(applied(&second), &cluster.nodes).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_behind_the_purged_log_gets_a_snapshot() {
    let cluster = Cluster::new().await;
    cluster.write(10).await;
    let leader = cluster.leader().await;
    let lagging = cluster.nodes.iter().find(|node| !node.meta().is_leader()).expect("a follower");
    cluster.mesh.0.lock().cut.insert(lagging.node_id());
    for number in 20..40 {
        cluster.write(number).await;
    }
    let leader = if leader.meta().is_leader() { leader } else { cluster.leader().await };
    let (meta, at) = (leader.meta(), applied(&leader));
    assert_eq!(checkpoint(meta, true).await, Some(Purged::ToCheckpoint));
    assert!(meta.status().purged.is_some_and(|purged| purged.index >= at));

    {
        let mut state = cluster.mesh.0.lock();
        state.cut.clear();
        state.snapshots_lost = 2;
    }
    cluster.write(40).await;
    let leader = cluster.leader().await;
    cluster.wait_applied(applied(&leader), &cluster.nodes).await;
    assert_eq!(lagging.meta().shard().state_hash(), leader.meta().shard().state_hash());
    assert!(lagging.meta().status().checkpoint.is_some_and(|held| held.index >= at));
    // One that did not get through is sent again, and not written again.
    let sent = cluster.mesh.0.lock().snapshots.clone();
    assert!(sent.len() >= 3 && sent.iter().all(|number| *number == sent[0]), "{sent:?}");
    cluster.shutdown().await;
}

/// To openraft an append that fails is a disk that failed, which ends the node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_disk_is_full_takes_no_entries_until_there_is_room() {
    let cluster = Cluster::new().await;
    cluster.write(10).await;
    let full = cluster.nodes.iter().find(|node| !node.meta().is_leader()).expect("a follower");
    let disk = cluster.mesh.0.lock().disks[&full.node_id()].clone();
    disk.set_capacity(Some(disk.used()));
    let much = vec![set_node(20); 2_000];
    let leader = loop {
        let leader = cluster.write_all(much.clone()).await;
        if full.log().space().level == SpaceLevel::Full {
            break leader;
        }
    };
    // More than the segment that is left to it takes.
    let upto = leader.log().stats().frame_bytes + 2 * crate::limits::SEGMENT_BYTES_MIN;
    while leader.log().stats().frame_bytes < upto {
        cluster.write_all(much.clone()).await;
    }
    let lags = applied(full) < applied(&leader);
    assert!(lags && full.failed().now_or_never().is_none());

    disk.set_capacity(None);
    let leader = cluster.leader().await;
    cluster.wait_applied(applied(&leader), &cluster.nodes).await;
    assert_eq!(full.meta().shard().state_hash(), leader.meta().shard().state_hash());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_finds_no_room_is_refused() {
    let cluster = Cluster::new().await;
    let leader = cluster.write(10).await;
    let full = cluster.nodes.iter().find(|node| !node.meta().is_leader()).expect("a follower");
    let mut partial = full.begin_snapshot().expect("room for the file");
    let mut export = Vec::new();
    leader.meta().shard().export(&mut export).expect("exported");
    partial.write(&export).expect("written");
    let disk = cluster.mesh.0.lock().disks[&full.node_id()].clone();
    disk.set_capacity(Some(disk.used() + export.len() as u64 / 2));
    let vote = leader.meta().raft().metrics().borrow_watched().vote;
    let refused = full.meta().receive_snapshot(vote, partial.finish()).await;
    assert!(matches!(refused, Err(ReceiveError::DiskFull)), "{refused:?}");
    disk.set_capacity(None);
    assert!(full.failed().now_or_never().is_none());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_on_a_follower_names_the_leader() {
    let cluster = Cluster::new().await;
    cluster.write(10).await;
    let leader = cluster.leader().await;
    let follower = cluster.nodes.iter().find(|node| !node.meta().is_leader()).expect("a follower");
    cluster.wait_applied(applied(&leader), std::slice::from_ref(follower)).await;
    let refused = follower.meta().propose(vec![set_node(11)]).expect("room").await;
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(leader.node_id()) }));
    assert_eq!(follower.group(META_GROUP).expect("here").leader(), Some(leader.node_id()));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_takes_the_others_in_and_hands_leadership_over() {
    let cluster = Cluster::unfounded(3).await;
    let members: Vec<Member> = cluster.nodes.iter().map(member).collect();
    let founder = &cluster.nodes[0];
    founder.found([9; 16], 4, &members).await.expect("founded");
    assert_eq!(founder.members(), members, "meta knows every disk before another may vote");
    founder.take_in_members().await.expect("all are there");
    // Again: nothing is left to do, and nothing changes.
    founder.found([9; 16], 4, &members).await.expect("founded");
    founder.take_in_members().await.expect("all are there");

    for node in &cluster.nodes {
        while node.shards().len() < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    founder.hand_over_leadership().await;
    for group in founder.groups() {
        assert_eq!(group.status().voters, [1, 2, 3]);
        assert_ne!(group.leader(), Some(1), "group {}", group.id());
    }
    cluster.shutdown().await;
}

/// How often it is tried to have an append without entries behind entries: a slow machine lets a request
/// expire, or leadership move, in the midst of it.
const TRIES: u64 = 200;

impl Cluster {
    /// Holds back the appends to a follower until one without entries was sent behind entries; when this
    /// returns, they are on their way. Returns the leader, and that follower; none if it came otherwise.
    async fn send_an_append_behind_entries(&self, number: u64) -> Option<(Node, Node)> {
        let leader = self.leader().await;
        let write = |number| async move {
            self.leader().await.meta().propose(vec![set_node(number)]).ok()?.await.ok()
        };
        write(number).await?;
        let follower = self.nodes.iter().find(|node| !node.meta().is_leader())?.clone();
        let reached = follower.meta().raft().wait(Some(Duration::from_secs(20)));
        reached.applied_index_at_least(Some(applied(&leader)), "replicated").await.ok()?;
        let before = {
            let mut mesh = self.mesh.0.lock();
            (mesh.held, mesh.spoken_of) = (Some(follower.node_id()), 0);
            applied(&leader)
        };
        // The other follower lets it commit, and the stream to this one tells of that without entries.
        let written = write(number).await;
        let sent = async {
            while self.mesh.0.lock().spoken_of <= before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let sent = tokio::time::timeout(Duration::from_secs(1), sent).await;
        self.mesh.0.lock().held = None;
        (written.is_some() && sent.is_ok()).then_some((leader, follower))
    }

    async fn is_any_stopped(&self) -> bool {
        for node in &self.nodes {
            if node.meta().voters().await.is_err() {
                return true;
            }
        }
        false
    }
}

#[tokio::test]
async fn an_append_without_entries_waits_behind_entries_of_its_group() {
    let cluster = Cluster::new().await;
    let mut sent = None;
    for number in 10..10 + TRIES {
        sent = cluster.send_an_append_behind_entries(number).await;
        if sent.is_some() {
            break;
        }
    }
    let (leader, follower) = sent.expect("an append without entries behind entries");
    cluster.wait_applied(applied(&leader), &[follower]).await;
    let leader = cluster.write(9).await;
    cluster.wait_applied(applied(&leader), &cluster.nodes).await;
    assert!(!cluster.is_any_stopped().await);
    cluster.shutdown().await;
}

/// Why it has to wait: openraft takes a follower that answers a conflict ahead of the entries it
/// speaks of for one that lost its log, and panics.
#[tokio::test]
async fn an_append_without_entries_that_overtook_its_group_would_stop_the_leader() {
    let _planted = plant(PlantedBug::OvertakingAppend);
    let cluster = Cluster::new().await;
    for number in 10..10 + TRIES {
        let sent = cluster.send_an_append_behind_entries(number).await;
        if let Some((leader, follower)) = sent {
            // Either the answers come to the leader in that order, or it goes on as if nothing was.
            let last = applied(&leader);
            while applied(&follower) < last && !cluster.is_any_stopped().await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if cluster.is_any_stopped().await {
            return;
        }
    }
    panic!("no leader has stopped in {TRIES} tries");
}
