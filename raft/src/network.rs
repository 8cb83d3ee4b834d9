//! How groups reach their peers: a [`Transport`] carries requests between nodes, and a small adapter
//! gives each group's openraft the network that it asks for.
//!
//! ```text
//!  group 0 ─┐                                                    ┌─▶ group 0
//!  group 1 ─┼─ Network (one a peer and group) ─ Transport ═══════┼─▶ group 1   Node::receive
//!  group 2 ─┘   hands over, keeps order         one a node       └─▶ group 2
//! ```
//! A transport is one a node and carries all groups: it can put the requests of many groups into
//! one message, and its connections are few and long-lived. What openraft needs of it:
//!
//! - [`Transport::call`] hands the request over *when it is called*; requests of one group to one
//!   peer arrive in the order of the calls, or not at all. Appends are pipelined on that promise,
//!   at most [`APPENDS_IN_FLIGHT_MAX`](crate::limits::APPENDS_IN_FLIGHT_MAX) deep: unbounded depth
//!   only fills buffers.
//! - Votes, hand-overs and clocks must not wait behind appends, so they may overtake them: see
//!   [`PeerRequest::may_overtake`]. An append without entries must not overtake one of its group:
//!   it may tell of a commit in the midst of a stream, and a conflict that is answered ahead of the
//!   entries it speaks of looks to openraft like a follower that lost its log. It may overtake
//!   those of other groups. Nothing is lost by it: to a follower, entries are a heartbeat too.
//! - Snapshots go another way, as files, and never delay the rest.
//!
//! A node alone has [`NoPeers`].

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, Stream, StreamExt};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{ErrorSubject, ErrorVerb, OptionalSend, ToStorageResult};
use parking_lot::Mutex;
use switchboard_engine::GroupId;

use crate::gathering::{Gathering, Held};
use crate::limits::APPENDS_IN_FLIGHT_MAX;
use crate::planted::{self, PlantedBug};
use crate::snapshot::{SnapshotData, SnapshotFile};
use crate::types::{NodeId, RaftSnapshot, RaftVote, SnapshotMeta, TypeConfig};

/// What one replica asks of another.
#[derive(Clone, Debug)]
pub enum PeerRequest {
    /// Entries, or a heartbeat.
    Append(AppendEntriesRequest<TypeConfig>),
    /// A vote.
    Vote(VoteRequest<TypeConfig>),
    /// Whether a vote would be granted.
    PreVote(VoteRequest<TypeConfig>),
    /// Lead from now on.
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// What the peer's clock shows. It is of the node, not of a group: it comes with the meta
    /// group, and should not wait behind appends, or the reading is as wrong as it waited.
    Clock,
    /// Whether it is certain that nobody counts on a node's replica any more.
    MayForget {
        /// Whose replica.
        node: NodeId,
    },
    /// Whether the replica is too new to vote.
    IsNew,
}

impl PeerRequest {
    /// Whether the request may arrive before appends of its group that were made before it.
    #[must_use]
    pub fn may_overtake(&self) -> bool {
        match self {
            Self::Append(append) => {
                planted::is(PlantedBug::OvertakingAppend) && append.entries.is_empty()
            }
            _ => true,
        }
    }
}

/// The answer to a [`PeerRequest`] of the same name (both votes have one answer).
#[derive(Clone, Debug)]
pub enum PeerResponse {
    /// To [`PeerRequest::Append`].
    Append(AppendEntriesResponse<TypeConfig>),
    /// To [`PeerRequest::Vote`] and [`PeerRequest::PreVote`].
    Vote(VoteResponse<TypeConfig>),
    /// To [`PeerRequest::TransferLeader`].
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    /// To [`PeerRequest::Clock`].
    Clock {
        /// Unix milliseconds.
        unix_ms: u64,
    },
    /// To [`PeerRequest::MayForget`].
    MayForget {
        /// False also if the replica that answers does not lead, and so cannot be certain.
        is_certain: bool,
    },
    /// To [`PeerRequest::IsNew`].
    IsNew {
        /// False once it has caught up and that is durable: it never becomes new again.
        is_new: bool,
    },
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection to the peer; openraft pauses before it tries again.
    #[error("node {0} cannot be reached")]
    Unreachable(NodeId),
    /// No answer in time. The request may have been handled.
    #[error("node {0} did not answer in time")]
    Timeout(NodeId),
    /// The connection broke, or the answer made no sense. The request may have been handled.
    #[error("the connection to node {0} broke")]
    Broken(NodeId),
}

/// Carries requests of all groups from this node to the others; see the module's promises.
pub trait Transport: Send + Sync + 'static {
    /// Hands a request over now and resolves with the answer.
    fn call(
        &self,
        to: NodeId,
        group: GroupId,
        request: PeerRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<PeerResponse, TransportError>>;

    /// Sends a snapshot and resolves when the peer has installed it, with the peer's vote.
    fn send_snapshot(
        &self,
        to: NodeId,
        group: GroupId,
        vote: RaftVote,
        snapshot: SnapshotFile,
    ) -> BoxFuture<'static, Result<RaftVote, TransportError>>;
}

/// The transport of a node that has no peers: nobody can be reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

impl Transport for NoPeers {
    fn call(
        &self,
        to: NodeId,
        _group: GroupId,
        _request: PeerRequest,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<PeerResponse, TransportError>> {
        Box::pin(async move { Err(TransportError::Unreachable(to)) })
    }

    fn send_snapshot(
        &self,
        to: NodeId,
        _group: GroupId,
        _vote: RaftVote,
        _snapshot: SnapshotFile,
    ) -> BoxFuture<'static, Result<RaftVote, TransportError>> {
        Box::pin(async move { Err(TransportError::Unreachable(to)) })
    }
}

/// The networks of one group.
#[derive(Clone)]
pub(crate) struct NetworkFactory {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) node_id: NodeId,
    pub(crate) group: GroupId,
    pub(crate) unsent: Unsent,
}

/// Files that did not get through to a peer. A lock, because each peer has a task of its own; held to take or to
/// put one.
pub(crate) type Unsent = Arc<Mutex<BTreeMap<NodeId, SnapshotFile>>>;

/// One group's way to one peer.
pub(crate) struct Network {
    factory: NetworkFactory,
    target: NodeId,
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: NodeId, _node: &()) -> Network {
        Network { factory: self.clone(), target }
    }
}

impl Network {
    fn call(
        &self,
        request: PeerRequest,
        option: &RPCOption,
    ) -> BoxFuture<'static, Result<PeerResponse, TransportError>> {
        let NetworkFactory { transport, group, .. } = &self.factory;
        transport.call(self.target, *group, request, option.soft_ttl())
    }

    fn error(&self, error: TransportError, action: RPCTypes, timeout: Duration) -> RpcError {
        let (id, target) = (self.factory.node_id, self.target);
        match error {
            TransportError::Unreachable(_) => RPCError::Unreachable(Unreachable::new(&error)),
            TransportError::Timeout(_) => {
                RPCError::Timeout(Timeout { action, id, target, timeout })
            }
            TransportError::Broken(_) => RPCError::Network(NetworkError::new(&error)),
        }
    }

    /// The file that did not get through the last time, if it holds what is to be sent now: it goes on from where it
    /// was cut off, and need not be written again.
    fn unsent_since(&self, meta: &SnapshotMeta) -> Option<SnapshotFile> {
        let unsent = self.factory.unsent.lock().remove(&self.target)?;
        let held = unsent.meta().ok()?;
        (held.last_log_id >= meta.last_log_id).then_some(unsent)
    }

    async fn ask_for_vote(
        &self,
        request: PeerRequest,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        match self.call(request, option).await {
            Ok(PeerResponse::Vote(response)) => Ok(response),
            other => {
                Err(self.error(unexpected(other, self.target), RPCTypes::Vote, option.soft_ttl()))
            }
        }
    }
}

type RpcError = RPCError<TypeConfig>;

/// The error, or that the answer was to another question.
fn unexpected(answer: Result<PeerResponse, TransportError>, target: NodeId) -> TransportError {
    answer.err().unwrap_or(TransportError::Broken(target))
}

impl Held for AppendEntriesRequest<TypeConfig> {
    fn is_news_only(&self) -> bool {
        self.entries.is_empty()
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        match self.call(PeerRequest::Append(rpc), &option).await {
            Ok(PeerResponse::Append(response)) => Ok(response),
            other => {
                let error = unexpected(other, self.target);
                Err(self.error(error, RPCTypes::AppendEntries, option.soft_ttl()))
            }
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let this = &*self;
        let answers = Gathering::new(input, self.factory.group)
            .map(move |rpc| {
                let prev = rpc.prev_log_id;
                let last = rpc.entries.last().map(|entry| entry.log_id).or(prev);
                // Called here, not in the future below: the order of calls is the order of
                // arrival, whatever order the futures are polled in.
                let answer = this.call(PeerRequest::Append(rpc), &option);
                let timeout = option.soft_ttl();
                async move {
                    match answer.await {
                        Ok(PeerResponse::Append(response)) => {
                            Ok(response.into_stream_result(prev, last))
                        }
                        other => {
                            let error = unexpected(other, this.target);
                            Err(this.error(error, RPCTypes::AppendEntries, timeout))
                        }
                    }
                }
            })
            .buffered(APPENDS_IN_FLIGHT_MAX);
        Box::pin(async move { Ok(answers.boxed()) })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_for_vote(PeerRequest::Vote(rpc), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_for_vote(PeerRequest::PreVote(rpc), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let signature = snapshot.meta.signature();
        let sent = async {
            let file = match self.unsent_since(&snapshot.meta) {
                Some(unsent) => Ok(unsent),
                None => snapshot.snapshot.into_file().await,
            };
            let file =
                file.sto_res(|| (ErrorSubject::Snapshot(Some(signature)), ErrorVerb::Read))?;
            let NetworkFactory { transport, group, unsent, .. } = &self.factory;
            let sent = transport.send_snapshot(self.target, *group, vote, file.clone());
            // openraft passes the bound on and leaves it to the network. A receiver that hangs in its install would
            // get nothing any more.
            let answer = tokio::time::timeout(option.hard_ttl(), sent).await;
            let answer = answer.unwrap_or(Err(TransportError::Timeout(self.target)));
            if answer.is_err() {
                unsent.lock().insert(self.target, file);
            }
            answer.map(SnapshotResponse::new).map_err(|error| {
                self.error(error, RPCTypes::InstallSnapshot, option.hard_ttl()).into()
            })
        };
        tokio::select! {
            biased;
            sent = sent => sent,
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        match self.call(PeerRequest::TransferLeader(req), &option).await {
            Ok(PeerResponse::TransferLeader(response)) => Ok(response),
            other => {
                let error = unexpected(other, self.target);
                Err(self.error(error, RPCTypes::TransferLeader, option.soft_ttl()))
            }
        }
    }
}
