//! The types that openraft is instantiated with, and their conversion from and to the engine's.
//!
//! Leader ids follow plain Raft (one leader a term), so that a log id is exactly (term, index) and
//! the engine's [`LogId`](switchboard_engine::LogId) loses nothing. Nodes carry no address: a
//! membership names ids only, and the transport knows where they live, because an address may
//! change while the membership that needs it cannot be reached.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;
use switchboard_engine::{EntryPayload as EnginePayload, LogId, Reply};

use crate::codec::{self, CodecError};

#[cfg(not(feature = "simulation"))]
use openraft::TokioRuntime as Runtime;

#[cfg(feature = "simulation")]
use crate::simulation::Runtime;

/// The id of a node, chosen by the operator, never used twice.
pub type NodeId = u64;

openraft::declare_raft_types!(
    /// openraft's types, as this crate uses them.
    pub TypeConfig:
        D = EntryData,
        R = Replies,
        NodeId = u64,
        Node = (),
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Runtime,
);

pub(crate) type CommittedLeaderId = openraft::alias::CommittedLeaderIdOf<TypeConfig>;
pub(crate) type RaftLogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type RaftEntry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type RaftPayload = openraft::alias::PayloadOf<TypeConfig>;
/// A vote: a term, a node, and whether a majority granted it.
pub type RaftVote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type RaftMembership = openraft::Membership<NodeId, ()>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type RaftSnapshot =
    openraft::alias::SnapshotOf<TypeConfig, crate::snapshot::SnapshotData>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Responder<T> = openraft::impls::ProgressResponder<TypeConfig, T>;

/// The encoded commands of one entry, as the engine's `EntryBuilder` made them.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryData(pub Bytes);

impl fmt::Debug for EntryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the content: it holds users, tokens and message bodies.
        write!(f, "EntryData({} bytes)", self.0.len())
    }
}

impl fmt::Display for EntryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The replies of one applied entry, one a command, shared with the watchers of applied entries.
#[derive(Clone, Debug, Default)]
pub struct Replies(Arc<Vec<Reply>>);

impl Replies {
    pub(crate) fn new(replies: Vec<Reply>) -> Self {
        Self(Arc::new(replies))
    }

    /// The replies, copied only if a watcher holds them too.
    pub(crate) fn into_vec(self) -> Vec<Reply> {
        Arc::try_unwrap(self.0).unwrap_or_else(|shared| shared.as_ref().clone())
    }

    /// The replies in the order of their commands.
    #[must_use]
    pub fn as_slice(&self) -> &[Reply] {
        &self.0
    }
}

/// The engine's log id of one of openraft.
pub(crate) fn to_engine(log_id: &RaftLogId) -> LogId {
    LogId { term: log_id.leader_id.term, index: log_id.index }
}

/// openraft's log id of one of the engine.
pub(crate) fn to_raft(log_id: LogId) -> RaftLogId {
    RaftLogId::new(CommittedLeaderId::new(log_id.term), log_id.index)
}

/// The engine's payload of an entry.
pub(crate) fn payload_to_engine(payload: RaftPayload) -> EnginePayload {
    match payload {
        RaftPayload::Blank => EnginePayload::Blank,
        RaftPayload::Normal(data) => EnginePayload::Commands(data.0),
        RaftPayload::Membership(membership) => {
            EnginePayload::Membership(codec::encode_membership(&membership))
        }
    }
}

/// An entry as openraft wants it, of what the engine's log holds.
pub(crate) fn entry_to_raft(
    log_id: LogId,
    payload: EnginePayload,
) -> Result<RaftEntry, CodecError> {
    let payload = match payload {
        EnginePayload::Blank => RaftPayload::Blank,
        EnginePayload::Commands(bytes) => RaftPayload::Normal(EntryData(bytes)),
        EnginePayload::Membership(bytes) => {
            RaftPayload::Membership(codec::decode_membership(&bytes)?)
        }
    };
    Ok(RaftEntry { log_id: to_raft(log_id), payload })
}

/// The membership that a shard keeps, as openraft wants it.
pub(crate) fn stored_membership(
    membership: Option<(LogId, Bytes)>,
) -> Result<StoredMembership, CodecError> {
    match membership {
        None => Ok(StoredMembership::default()),
        Some((log_id, bytes)) => {
            Ok(StoredMembership::new(Some(to_raft(log_id)), codec::decode_membership(&bytes)?))
        }
    }
}

/// The term and node of a vote.
pub(crate) fn vote_parts(vote: &RaftVote) -> (u64, u64) {
    (vote.leader_id.term(), *vote.leader_id.node_id())
}
