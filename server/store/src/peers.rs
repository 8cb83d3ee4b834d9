//! The other nodes: who they are, the connections to them, and what comes from them.
//!
//! ```text
//!  Raft groups ─▶ Peers (Transport) ─┬─ Link: Raft       ═══▶ node 2   service.rs ─▶ Group::receive
//!  services ────▶ Peers::forward ────┼─ Link: forwarded  ═══▶ node 2   service.rs ─▶ forward.rs
//!                                    └─ snapshot.rs, when needed ─▶ node 2
//! ```
//! Each node dials every other one and keeps two connections to it, each with one stream: Raft's, on
//! which heartbeats and votes overtake entries, and one for requests that belong to the other node.
//! So neither a large request nor a snapshot delays a heartbeat. Nothing is ever sent to a node that
//! is not in the [book](book::Book), or that has another disk than the one it joined with.

mod book;
mod check;
mod link;
mod queue;
mod service;
mod snapshot;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use switchboard_api::v1::{
    self, forwarded_answer, forwarded_call, peer_answer, peer_call,
    peer_service_client::PeerServiceClient,
};
use switchboard_engine::{Formats, GroupId};
use switchboard_raft::{
    Member, NodeId, PeerRequest, PeerResponse, RaftVote, SnapshotFile, Transport, TransportError,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

pub use self::book::BookError;
use self::link::Link;
pub(crate) use self::{
    book::{Book, hex},
    check::{PROTOCOL, Refusal},
    service::PeerServer,
};
use crate::{errors, limits};

/// The other nodes of this node's cluster; none until it has one.
pub(crate) struct Peers {
    node_id: NodeId,
    formats: Formats,
    data: PathBuf,
    /// Ends what goes between the nodes, after the server's shutdown has finished its calls.
    stop: CancellationToken,
    /// A lock, because the services read it while a founding changes it; held to copy or to swap.
    state: RwLock<State>,
    /// Told when the members change.
    changes: watch::Sender<()>,
    /// Tells snapshots of this life of the node from those of others.
    life: u64,
    /// What came of snapshots that were cut off.
    partials: snapshot::Partials,
    /// Bytes of snapshots on their way, by node and group. A lock, for operators ask; held to count.
    sending: Sending,
    /// Told when a node and this one refused to talk to each other.
    doubted: Notify,
    /// Held while a book is written down and taken: two at once would share a file.
    joining: tokio::sync::Mutex<()>,
}

type Sending = Arc<Mutex<BTreeMap<(NodeId, GroupId), u64>>>;

/// Forgets a snapshot on its way, however that ends.
struct Sent(Sending, (NodeId, GroupId));

impl Drop for Sent {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

#[derive(Default)]
struct State {
    book: Option<Arc<Book>>,
    links: BTreeMap<NodeId, Arc<Links>>,
}

struct Links {
    /// Whom they lead to; another address or disk needs new ones.
    member: Member,
    stop: CancellationToken,
    raft: Link,
    forwarded: Link,
}

impl Peers {
    /// With the book that the data directory holds, if any. Connections are made when the node's
    /// disk is known: see [`Self::connect`].
    pub(crate) fn open(
        node_id: NodeId,
        formats: Formats,
        data: PathBuf,
    ) -> Result<Arc<Self>, BookError> {
        let book = Book::load(&data)?.map(Arc::new);
        let state = RwLock::new(State { book, ..State::default() });
        let stop = CancellationToken::new();
        let (changes, sending) = (watch::Sender::new(()), Arc::default());
        let (joining, doubted) = (tokio::sync::Mutex::default(), Notify::new());
        Ok(Arc::new(Self {
            node_id,
            formats,
            data,
            stop,
            state,
            changes,
            sending,
            life: rand::random(),
            partials: snapshot::Partials::default(),
            doubted,
            joining,
        }))
    }

    /// The cluster that this node is a member of.
    pub(crate) fn book(&self) -> Option<Arc<Book>> {
        self.state.read().book.clone()
    }

    /// Whether no other node can be asked anything.
    pub(crate) fn is_alone(&self) -> bool {
        self.state.read().links.is_empty()
    }

    /// Whether a node can be asked something right now.
    pub(crate) fn is_connected(&self, node: NodeId) -> bool {
        self.links(node).is_some_and(|links| links.forwarded.is_open())
    }

    /// Writes the book down, then connects to everybody in it; one that is older than what is known changes
    /// nothing.
    pub(crate) async fn join(&self, book: Book, disk_id: [u8; 16]) -> Result<(), BookError> {
        let _one_at_a_time = self.joining.lock().await;
        if self.book().is_some_and(|known| known.as_of > book.as_of) {
            return Ok(());
        }
        let (data, saved) = (self.data.clone(), book.clone());
        tokio::task::spawn_blocking(move || saved.save(&data)).await.map_err(BookError::Task)??;
        self.state.write().book = Some(Arc::new(book));
        self.connect(disk_id);
        self.changes.send_replace(());
        Ok(())
    }

    /// Ends all connections, in both directions: nobody is asked or answered any more.
    pub(crate) fn disconnect(&self) {
        self.stop.cancel();
    }

    /// A node and this one do not take each other for who they are: one of their books may be old.
    pub(crate) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Waits for the next doubt.
    pub(crate) async fn doubted(&self) {
        self.doubted.notified().await;
    }

    /// Tells when the members change.
    pub(crate) fn watch_members(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Cancelled by [`Self::disconnect`].
    fn disconnected(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Dials every other member of the book, again and again, until [`Self::disconnect`].
    pub(crate) fn connect(&self, disk_id: [u8; 16]) {
        let mut state = self.state.write();
        let Some(book) = state.book.clone() else { return };
        state.links.retain(|node, links| {
            let stays = book.member(*node) == Some(&links.member);
            if !stays {
                links.stop.cancel();
            }
            stays
        });
        for member in book.members.iter().filter(|member| member.node_id != self.node_id) {
            state.links.entry(member.node_id).or_insert_with(|| {
                let hello = check::hello(&book, self.node_id, disk_id, self.formats, member);
                let stop = self.stop.child_token();
                let dial = || Link::start(&member.address, hello.clone(), stop.clone());
                let (raft, forwarded) = (dial(), dial());
                Arc::new(Links { member: member.clone(), stop, raft, forwarded })
            });
        }
    }

    /// Bytes that were sent of the snapshot of a group that is on its way to a node; 0 if none is.
    pub(crate) fn snapshot_bytes(&self, to: NodeId, group: GroupId) -> u64 {
        self.sending.lock().get(&(to, group)).copied().unwrap_or(0)
    }

    /// Changes of sessions in a shard that another node has a replica of, over a connection of its own.
    pub(crate) async fn watch_shard(
        &self,
        node: NodeId,
        shard: u32,
    ) -> Result<Streaming<v1::WatchResponse>, Status> {
        let links = self.links(node).ok_or_else(|| errors::peer_unreachable(node))?;
        let target = links.forwarded.target().clone();
        let lost = |_| errors::peer_unreachable(node);
        let channel = target.endpoint().map_err(lost)?.connect().await.map_err(lost)?;
        let request = v1::WatchShardRequest { hello: Some(target.hello), shard };
        Ok(PeerServiceClient::new(channel).watch_shard(request).await?.into_inner())
    }

    fn links(&self, to: NodeId) -> Option<Arc<Links>> {
        self.state.read().links.get(&to).cloned()
    }

    /// Hands a request over to the node that it belongs to, now; requests to one node arrive in the
    /// order of the calls. The future resolves with the answer.
    pub(crate) fn forward(
        &self,
        to: NodeId,
        call: forwarded_call::Call,
    ) -> impl Future<Output = Result<forwarded_answer::Answer, Status>> + use<> {
        let call = peer_call::Call::Forwarded(v1::ForwardedCall { call: Some(call) });
        let pending = self.links(to).and_then(|links| links.forwarded.call(call, false));
        async move {
            let Some(pending) = pending else { return Err(errors::peer_unreachable(to)) };
            let answer = tokio::time::timeout(limits::FORWARD_WAIT_MAX, pending).await;
            match answer {
                Ok(Some(peer_answer::Answer::Forwarded(v1::ForwardedAnswer {
                    answer: Some(answer),
                }))) => match answer {
                    forwarded_answer::Answer::Error(error) => Err(status_of(error)),
                    answer => Ok(answer),
                },
                Ok(Some(_)) => Err(errors::peer_unreachable(to)),
                // It was sent, and may have been done.
                Ok(None) | Err(_) => Err(errors::peer_lost(to)),
            }
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Transport for Peers {
    fn call(
        &self,
        to: NodeId,
        group: GroupId,
        request: PeerRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<PeerResponse, TransportError>> {
        let urgent = request.is_urgent();
        let pending = self.links(to).and_then(|links| {
            let call = v1::RaftCall { group, request: request.encode() };
            links.raft.call(peer_call::Call::Raft(call), urgent)
        });
        Box::pin(async move {
            let Some(pending) = pending else { return Err(TransportError::Unreachable(to)) };
            match tokio::time::timeout(timeout, pending).await {
                Ok(Some(peer_answer::Answer::Raft(bytes))) => {
                    PeerResponse::decode(bytes).map_err(|_| TransportError::Broken(to))
                }
                // The group is not there yet: a pause is right.
                Ok(Some(_)) => Err(TransportError::Unreachable(to)),
                Ok(None) => Err(TransportError::Broken(to)),
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
        let target = self.links(to).map(|links| links.raft.target().clone());
        let (sending, life) = (self.sending.clone(), self.life);
        Box::pin(async move {
            let target = target.ok_or(TransportError::Unreachable(to))?;
            let count = {
                let sending = sending.clone();
                move |bytes| {
                    sending.lock().insert((to, group), bytes);
                }
            };
            let _sent = Sent(sending, (to, group));
            let sent = snapshot::send(target, group, vote, life, snapshot, count).await;
            sent.map_err(|error| {
                tracing::warn!(to, group, %error, "a snapshot was not installed");
                TransportError::Broken(to)
            })
        })
    }
}

fn status_of(error: v1::ForwardedError) -> Status {
    Status::with_details(tonic::Code::from_i32(error.code), error.message, error.details)
}
