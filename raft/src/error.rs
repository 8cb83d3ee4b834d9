//! What can go wrong, one enum an operation.

use std::io;
use std::time::Duration;

use switchboard_engine::log::LogOpenError;
use switchboard_engine::{Formats, GroupId, ShardOpenError, Status};

use crate::types::NodeId;

/// Nothing of this proposal was taken: too much waits already, or the disk is almost full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; try again in {retry_after:?}")]
pub struct Overloaded {
    /// When room is expected.
    pub retry_after: Duration,
    /// What is scarce.
    pub reason: OverloadReason,
}

/// What is scarce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OverloadReason {
    /// The proposer has as much waiting as it may hold.
    #[error("{items} commands ({bytes} bytes) wait for this shard already")]
    Waiting {
        /// Commands waiting.
        items: usize,
        /// Bytes waiting.
        bytes: usize,
    },
    /// The disk has only its reserve left, which is for commands that free space and for those
    /// that end something.
    #[error("the disk of this node is almost full")]
    DiskReserve,
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
    /// A command is beyond a limit and would never be applied. Nothing of the proposal was taken.
    #[error("command {index} of the proposal is beyond its limits: {status:?}")]
    Refused {
        /// Which command of the proposal.
        index: usize,
        /// What to answer for it.
        status: Status,
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

/// Why a group could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum GroupOpenError {
    /// The vote in the log cannot be read.
    #[error("the vote of group {group} cannot be read")]
    Vote {
        /// Which group.
        group: GroupId,
        /// Why.
        source: io::Error,
    },
    /// openraft refuses the settings, which are constants of this crate.
    #[error("Raft's settings are not valid: {reason}")]
    Settings {
        /// What it says.
        reason: String,
    },
    /// openraft found log and state at odds.
    #[error("group {group} cannot start: {reason}")]
    Raft {
        /// Which group.
        group: GroupId,
        /// What it says.
        reason: String,
    },
}

/// Why a node could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum NodeOpenError {
    /// An option that cannot be kept.
    #[error("{option}: {why}")]
    Options {
        /// Which one.
        option: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The log could not be opened; it says whether another process has it, or what is damaged.
    #[error(transparent)]
    Log(#[from] LogOpenError),
    /// The state of a group could not be loaded.
    #[error("the state of group {group} cannot be loaded")]
    Shard {
        /// Which group.
        group: GroupId,
        /// Why.
        source: ShardOpenError,
    },
    /// The directory of snapshot files could not be made or emptied.
    #[error("the snapshot directory cannot be prepared")]
    Snapshots(#[source] io::Error),
    /// What a replica left behind that was here before could not be removed, or the one that takes its
    /// place not be marked as new.
    #[error("what group {group} left when it was here before cannot be removed")]
    Leftovers {
        /// Which group.
        group: GroupId,
        /// Why.
        source: io::Error,
    },
    /// A group could not be started.
    #[error(transparent)]
    Group(#[from] GroupOpenError),
    /// The cluster has been raised to a format that this node cannot read.
    #[error(
        "the cluster is written in format {active}; this node reads {formats}: run a release that reads \
         format {active}"
    )]
    Format {
        /// The cluster's.
        active: u32,
        /// The node's.
        formats: Formats,
    },
}

impl NodeOpenError {
    /// Whether files are damaged or missing, so that the same directory will never open again.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Log(LogOpenError::Corrupt { .. } | LogOpenError::Missing { .. })
                | Self::Shard { .. }
                | Self::Group(GroupOpenError::Vote { .. } | GroupOpenError::Raft { .. })
        )
    }
}

/// Why a node could not be made a cluster of its own.
#[derive(Debug, thiserror::Error)]
pub enum InitializeError {
    /// Not a power of two, or too many.
    #[error("{shards} is no number of shards: a power of two up to {}", crate::limits::SHARDS_MAX)]
    Shards {
        /// What was asked for.
        shards: u32,
    },
    /// The cluster has been made with another number, which is fixed for good.
    #[error("the cluster has {found} shards, not {asked}; the number is fixed when it is made")]
    OtherShards {
        /// What was asked for.
        asked: u32,
        /// What it has.
        found: u32,
    },
    /// The data belongs to another node, or to a cluster of several.
    #[error("the data belongs to the nodes {voters:?}; this is node {node_id}")]
    OtherNode {
        /// This node.
        node_id: NodeId,
        /// The voters found.
        voters: Vec<NodeId>,
    },
    /// A group could not be opened.
    #[error(transparent)]
    Open(#[from] NodeOpenError),
    /// A group did not elect its only voter, or did not apply what makes it usable.
    #[error("group {group} did not get ready: {reason}")]
    NotReady {
        /// Which group.
        group: GroupId,
        /// What it waited for.
        reason: String,
    },
    /// Randomness could not be had from the operating system.
    #[error("no randomness for a new group")]
    Random(#[source] io::Error),
}

/// Why a cluster was not made, or not wholly. The same call goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// The groups of this node alone.
    #[error(transparent)]
    Alone(#[from] InitializeError),
    /// The meta group of this node knows no cluster.
    #[error("this node has founded no cluster")]
    NotFounded,
    /// A change of members was refused.
    #[error("the members of group {group} cannot be changed: {error}")]
    Membership {
        /// Which group.
        group: GroupId,
        /// Why.
        error: MembershipError,
    },
    /// A member did not answer, or did not catch up.
    #[error("group {group} has not got all its members in time; are all nodes running?")]
    Unanswered {
        /// Which group.
        group: GroupId,
    },
}

/// Why the members of a group were not changed. Nothing is half done for good: the same change again
/// goes on where this one stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Only the leader can.
    #[error("not the leader of this group (it may be node {leader:?})")]
    NotLeader {
        /// Who may lead it.
        leader: Option<NodeId>,
    },
    /// The change before this one is not committed yet.
    #[error("another change of the members is under way")]
    InProgress,
    /// It was proposed and is not committed: it may still be.
    #[error("no majority of the voters has confirmed the change yet")]
    NoQuorum,
    /// A replica that is to vote is too new, or does not say that it is not: its group could depend on it
    /// before it votes. It hears what it lacks within moments.
    #[error("the replica of node {node} has not caught up yet; try again")]
    TooNew {
        /// Whose replica.
        node: NodeId,
    },
    /// Those who would vote could not decide anything.
    #[error("nodes {silent:?} do not answer: without them nodes {voters:?} would have no majority")]
    Silent {
        /// Who does not answer.
        silent: Vec<NodeId>,
        /// Who would have voted.
        voters: Vec<NodeId>,
    },
    /// It cannot be made.
    #[error("the change is not possible: {reason}")]
    Refused {
        /// What openraft says.
        reason: String,
    },
    /// The group is shut down.
    #[error("the group is shut down")]
    Stopped,
}

/// Why leadership was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Only the leader can.
    #[error("not the leader of this group (it may be node {leader:?})")]
    NotLeader {
        /// Who may lead it.
        leader: Option<NodeId>,
    },
    /// It has no vote in this group.
    #[error("node {node} is no voter of this group ({voters:?} are)")]
    NotVoter {
        /// Who should have led.
        node: NodeId,
        /// Who votes.
        voters: Vec<NodeId>,
    },
    /// It did not take over in time: it is behind, or cannot be reached.
    #[error("node {node} did not take over in time: it is behind, or cannot be reached")]
    Refused {
        /// Who should have led.
        node: NodeId,
    },
    /// The group is shut down.
    #[error("the group is shut down")]
    Stopped,
}

/// Why a node cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeFailure {
    /// A group stopped for good.
    #[error("group {group} stopped: {reason}")]
    Group {
        /// Which group.
        group: GroupId,
        /// What openraft says.
        reason: String,
    },
    /// A write or sync of the log failed.
    #[error("the log is closed after a failure")]
    Log,
    /// The cluster was raised to a format that this node cannot read.
    #[error(
        "the cluster was raised to format {active}; this node reads {formats}: run a release that reads \
         format {active}"
    )]
    Format {
        /// The cluster's.
        active: u32,
        /// The node's.
        formats: Formats,
    },
}

impl From<GroupOpenError> for InitializeError {
    fn from(error: GroupOpenError) -> Self {
        Self::Open(error.into())
    }
}
