//! Requests of peers, as they come off a transport.

use openraft::async_runtime::WatchReceiver;
use openraft::raft::{VoteRequest, VoteResponse};
use openraft::storage::Snapshot;
use tokio::time::Instant;

use crate::group::Group;
use crate::network::{PeerRequest, PeerResponse};
use crate::snapshot::{SnapshotData, SnapshotFile};
use crate::types::{RaftVote, TypeConfig};

/// Why a peer gets no answer. The peer may ask again.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The group is shut down, or stopped by a storage error.
    #[error("the group is shut down")]
    Stopped,
    /// The snapshot is damaged or cannot be read.
    #[error("the snapshot cannot be read")]
    Snapshot(#[source] std::io::Error),
}

impl Group {
    /// Answers one request of a peer.
    ///
    /// Requests of one peer must be passed in the order in which it made them; each is handed to
    /// openraft when this future is polled first.
    pub async fn receive(&self, request: PeerRequest) -> Result<PeerResponse, ReceiveError> {
        if self.is_leaving() {
            return Err(ReceiveError::Stopped);
        }
        let raft = self.raft();
        let stopped = |_| ReceiveError::Stopped;
        Ok(match request {
            PeerRequest::Append(rpc) => {
                let committed = rpc.leader_commit.as_ref().map(|at| at.index);
                let appended = raft.append_entries(rpc).await.map_err(|_| ReceiveError::Stopped)?;
                if appended.is_success() {
                    self.hear(committed);
                }
                PeerResponse::Append(appended)
            }
            PeerRequest::Vote(rpc) if !self.may_vote(&rpc) => PeerResponse::Vote(self.no_vote()),
            PeerRequest::PreVote(rpc) if !self.may_vote(&rpc) => PeerResponse::Vote(self.no_vote()),
            PeerRequest::Vote(rpc) => {
                PeerResponse::Vote(raft.vote(rpc).await.map_err(|_| ReceiveError::Stopped)?)
            }
            PeerRequest::PreVote(rpc) => {
                PeerResponse::Vote(raft.pre_vote(rpc).await.map_err(|_| ReceiveError::Stopped)?)
            }
            PeerRequest::TransferLeader(rpc) => PeerResponse::TransferLeader(
                raft.handle_transfer_leader(rpc).await.map_err(stopped)?,
            ),
            PeerRequest::Clock => PeerResponse::Clock { unix_ms: self.clock_ms() },
            PeerRequest::MayForget { node } => {
                PeerResponse::MayForget { is_certain: self.may_forget(node).await }
            }
        })
    }

    /// Installs a snapshot that a leader sent, unless what is here is newer. Returns this replica's
    /// vote, by which a leader learns that it was deposed.
    pub async fn receive_snapshot(
        &self,
        vote: RaftVote,
        file: SnapshotFile,
    ) -> Result<RaftVote, ReceiveError> {
        if self.is_leaving() {
            return Err(ReceiveError::Stopped);
        }
        let meta = file.meta().map_err(ReceiveError::Snapshot)?;
        let snapshot = Snapshot { meta, snapshot: SnapshotData::File(file) };
        let installed = self.raft().install_full_snapshot(vote, snapshot).await;
        installed.map(|response| response.vote).map_err(|_| ReceiveError::Stopped)
    }

    /// Whether a vote may be granted already. A replica that restarted does not know to whose lease
    /// it gave its word; a transfer is made by the leader itself and needs no lease to end.
    fn may_vote(&self, request: &VoteRequest<TypeConfig>) -> bool {
        // An empty replica that returned to this node stands where another one has made promises: it has
        // no say before a leader has told it who the members are.
        let metrics = self.raft().metrics();
        let is_told = metrics.borrow_watched().membership_config.membership().voter_ids().next();
        if is_told.is_none() && self.has_returned() {
            return false;
        }
        request.leadership_transfer || self.silent_until.is_none_or(|until| Instant::now() >= until)
    }

    fn no_vote(&self) -> VoteResponse<TypeConfig> {
        let vote = self.raft().metrics().borrow_watched().vote;
        VoteResponse::new(vote, None, false)
    }
}
