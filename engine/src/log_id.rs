//! The names of a place in a replicated log: which group, and which entry of it.

use std::fmt;

use bytes::Bytes;

/// A replication group. 0 is the meta group; shard `s` (0-based) is group `s + 1`.
pub type GroupId = u32;

/// The identity of a log entry: the term of the leader that proposed it, and its index.
///
/// Ordered by term first, as Raft compares logs. Indexes within one log are consecutive; the first
/// may be any number.
///
/// ```
/// use switchboard_engine::LogId;
///
/// assert!(LogId::new(2, 5) > LogId::new(1, 9));
/// assert_eq!(LogId::new(2, 5).to_string(), "2-5");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The term of the leader that proposed the entry.
    pub term: u64,
    /// The place of the entry in the log of its group.
    pub index: u64,
}

impl LogId {
    /// The log id of `index` in `term`.
    #[must_use]
    pub const fn new(term: u64, index: u64) -> Self {
        Self { term, index }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.term, self.index)
    }
}

/// The meta group: nodes, placement, gateways.
pub const META_GROUP: GroupId = 0;

/// The group that keeps shard `shard`.
pub const fn group_of_shard(shard: u32) -> GroupId {
    shard.saturating_add(1)
}

/// What an entry of a group's log carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryPayload {
    /// Nothing: a new leader's first entry.
    Blank,
    /// Commands, as [`EntryBuilder`](crate::EntryBuilder) makes them. Opaque to the log.
    Commands(Bytes),
    /// A membership of the group, encoded by the replication layer. Opaque to the engine.
    Membership(Bytes),
}
