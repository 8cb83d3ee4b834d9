//! What can go wrong, one enum an operation.

use std::time::Duration;

use crate::types::NodeId;

/// The proposer has as much waiting as it may hold; nothing of this proposal was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{items} commands ({bytes} bytes) wait for this shard already; try again in {retry_after:?}"
)]
pub struct Overloaded {
    /// When room is expected.
    pub retry_after: Duration,
    /// Commands waiting.
    pub items: usize,
    /// Bytes waiting.
    pub bytes: usize,
}

/// Why a proposal that was taken has no replies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead the group (any more). Nothing was applied and nothing will be.
    #[error("not the leader of this group (it may be node {leader:?})")]
    NotLeader {
        /// Who may lead it.
        leader: Option<NodeId>,
    },
    /// Leadership changed, or the group stopped, while the entry was under way: it may have been
    /// applied, may still be, or may never be. Repeats must be recognised by their ids.
    #[error(
        "the outcome is unknown: leadership or the node was lost while the entry was under way"
    )]
    OutcomeUnknown,
    /// The group was shut down before the commands were handed over. Nothing was applied.
    #[error("the group is shut down")]
    Stopped,
    /// A command that fits no entry. Nothing of the proposal was applied, if it was its first.
    #[error("a command of about {bytes} bytes fits no log entry")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Why a read cannot be served with the consistency asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BarrierError {
    /// Only the leader can serve this read.
    #[error("not the leader of this group (it may be node {leader:?})")]
    NotLeader {
        /// Who may lead it.
        leader: Option<NodeId>,
    },
    /// No majority answered in time.
    #[error("no majority of the group's voters confirmed the leader")]
    NoQuorum,
    /// The group is shut down, or stopped by a storage error.
    #[error("the group is shut down")]
    Stopped,
}

/// Why an entry was not seen applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The time ran out.
    #[error("index {index} was not applied in time")]
    Timeout {
        /// The index waited for.
        index: u64,
    },
    /// The group is shut down.
    #[error("the group is shut down")]
    Stopped,
}
