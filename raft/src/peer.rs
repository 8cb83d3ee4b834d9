//! Requests of peers, as they come off a transport.

use openraft::async_runtime::WatchReceiver;
use openraft::raft::{VoteRequest, VoteResponse};
use openraft::storage::Snapshot;
use tokio::time::Instant;

use crate::group::Group;
use crate::network::{PeerRequest, PeerResponse};
use crate::newcomer::Told;
use crate::snapshot::{SnapshotData, SnapshotFile};
use crate::types::{RaftVote, TypeConfig};

/// Why a peer gets no answer. The peer may ask again.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The group is shut down, or stopped by a storage error.
    #[error("the group is shut down")]
    Stopped,
    /// The disk has no room for it; to openraft it would be a failure of the disk, which ends the group.
    #[error("the disk is full")]
    DiskFull,
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
            PeerRequest::Append(rpc) if !rpc.entries.is_empty() && self.is_full() => {
                return Err(ReceiveError::DiskFull);
            }
            PeerRequest::Append(rpc) => {
                let heard_at = Instant::now();
                let committed = rpc.leader_commit.as_ref().map(|at| at.index);
                let told = Told::by(&rpc);
                let appended = raft.append_entries(rpc).await.map_err(|_| ReceiveError::Stopped)?;
                if appended.is_success() {
                    self.hear(committed, heard_at);
                    self.catch_up_as_newcomer(told).await;
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
            PeerRequest::IsNew => PeerResponse::IsNew { is_new: self.newcomer.is_new() },
        })
    }

    /// Installs a snapshot that a leader sent, unless what is here is newer or the disk has no room.
    /// Returns this replica's vote, by which a leader learns that it was deposed.
    pub async fn receive_snapshot(
        &self,
        vote: RaftVote,
        file: SnapshotFile,
    ) -> Result<RaftVote, ReceiveError> {
        if self.is_leaving() {
            return Err(ReceiveError::Stopped);
        }
        // Its bodies are written once more, and the rest as a checkpoint.
        if !self.log().space().has_room_for(file.bytes().map_err(ReceiveError::Snapshot)?) {
            return Err(ReceiveError::DiskFull);
        }
        let meta = file.meta().map_err(ReceiveError::Snapshot)?;
        let snapshot = Snapshot { meta, snapshot: SnapshotData::File(file) };
        let installed = self.raft().install_full_snapshot(vote, snapshot).await;
        installed.map(|response| response.vote).map_err(|_| ReceiveError::Stopped)
    }

    /// Whether a vote may be granted already. A replica that restarted does not know to whose lease
    /// it gave its word; a transfer is made by the leader itself and needs no lease to end.
    fn may_vote(&self, request: &VoteRequest<TypeConfig>) -> bool {
        if self.newcomer.is_new() {
            return false;
        }
        request.leadership_transfer || self.silent_until.is_none_or(|until| Instant::now() >= until)
    }

    async fn catch_up_as_newcomer(&self, told: Told) {
        if !self.newcomer.has_caught_up(told) {
            return;
        }
        match self.end_newness().await {
            Ok(()) => tracing::info!(group = self.id(), "a new replica has caught up"),
            // The next append tries it again.
            Err(error) => {
                tracing::error!(group = self.id(), %error, "a replica stays marked as new")
            }
        }
    }

    fn no_vote(&self) -> VoteResponse<TypeConfig> {
        let vote = self.raft().metrics().borrow_watched().vote;
        VoteResponse::new(vote, None, false)
    }
}
