//! What applying a command answers.
//!
//! Each kind of command has its kind of reply, also when it was refused: `Unavailable` before the
//! group's first command, `Invalid` for a command that the group does not take.

use smallvec::SmallVec;

use crate::device::Session;

/// The outcome of one item. Maps one to one on `ItemStatus` of the wire contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Done.
    Ok,
    /// The message id was seen from this sender within the dedup horizon; nothing was stored again.
    Duplicate,
    /// The epoch carried is not the current one; nothing changed.
    Fenced,
    /// The mailbox holds as much as it may.
    MailboxFull,
    /// The body is too large.
    TooLarge,
    /// The command names something that cannot be.
    Invalid,
    /// The gateway id or incarnation is unknown or has ended.
    UnknownGateway,
    /// Refused before anything happened.
    Overloaded,
    /// The group has not begun, or nothing could be said.
    Unavailable,
}

/// The answer to one command, in the order of the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `Init`, `SetRules`, `InitCluster`, `SetNode` and `Tick`.
    Done(Status),
    /// To `Claim`.
    Claimed(Claimed),
    /// To `Release`.
    Released(Released),
    /// To `Unregister`.
    Unregistered(Unregistered),
    /// To `Sweep`.
    Swept(Swept),
    /// To `Enqueue`.
    Enqueued(Enqueued),
    /// To `Ack`.
    Acked(Acked),
    /// To `Purge`.
    Purged(Purged),
    /// To `RegisterGateway`.
    Registered(Registered),
    /// To `EndIncarnation`.
    Ended(Status),
}

/// The answer to `Claim`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// `Ok`, or `Invalid` when the user has no place for another device.
    pub status: Status,
    /// The fencing token of the new session.
    pub epoch: u64,
    /// When it was claimed: log time.
    pub connected_at_ms: u64,
    /// The session that ended by this one.
    pub replaced: Option<Session>,
    /// The highest seq waiting; 0 when the mailbox is empty.
    pub tail: u64,
    /// How many messages wait.
    pub backlog: u64,
    /// The idle device that gave its place to this one; 0: none.
    pub evicted_device: u16,
}

impl Claimed {
    pub(crate) fn refused(status: Status) -> Self {
        Self {
            status,
            epoch: 0,
            connected_at_ms: 0,
            replaced: None,
            tail: 0,
            backlog: 0,
            evicted_device: 0,
        }
    }
}

/// The answer to `Release`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// `Ok`, or `Fenced` when no session has that epoch.
    pub status: Status,
    /// The session that ended.
    pub session: Option<Session>,
}

/// The answer to `Unregister`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unregistered {
    /// `Ok`, also when the device was not there.
    pub status: Status,
    /// The session that ended.
    pub session: Option<Session>,
    /// How many messages went with it.
    pub messages: u64,
}

/// The answer to `Sweep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// `Ok`, unless the group does not take sweeps.
    pub status: Status,
    /// Sessions removed.
    pub sessions: u32,
    /// Where the next sweep goes on; `None`: all buckets were seen.
    pub next_cursor: Option<u32>,
}

/// The answer to `Enqueue`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// `Ok` if any device stored it.
    pub status: Status,
    /// What happened device by device; after `Duplicate`, where the original still waits.
    pub stored: SmallVec<[Stored; 1]>,
    /// The sessions of the recipient at this very moment, of the devices addressed.
    pub sessions: SmallVec<[Session; 1]>,
    /// Log time of the enqueue; of the original after `Duplicate` while it waits, else 0.
    pub enqueued_at_ms: u64,
    /// When it expires; 0 like the field before.
    pub expires_at_ms: u64,
    /// Messages that gave their place to it, over all devices, where the rules say so.
    pub dropped: u32,
}

impl Enqueued {
    pub(crate) fn refused(status: Status) -> Self {
        Self {
            status,
            stored: SmallVec::new(),
            sessions: SmallVec::new(),
            enqueued_at_ms: 0,
            expires_at_ms: 0,
            dropped: 0,
        }
    }
}

/// The part of an enqueue that concerns one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The recipient's device.
    pub device: u16,
    /// Position of the message; 0 when it was refused.
    pub seq: u64,
    /// The message before it in this mailbox; 0: it was empty, or (duplicate) not known.
    pub prev_seq: u64,
    /// `Ok`, `Duplicate` or `MailboxFull`.
    pub status: Status,
}

/// The answer to `Ack`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// `Ok`, or `Fenced`.
    pub status: Status,
    /// Nothing at or below this seq waits any more.
    pub ack_floor: u64,
    /// Messages removed.
    pub removed: u32,
}

impl Acked {
    pub(crate) fn refused(status: Status) -> Self {
        Self { status, ack_floor: 0, removed: 0 }
    }
}

/// The answer to `Purge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// `Ok`, or `Invalid`.
    pub status: Status,
    /// Messages removed.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// The answer to `RegisterGateway`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// `Ok`, or `Invalid`.
    pub status: Status,
    /// The id of the name, from 1.
    pub gateway_id: u32,
    /// Higher than any before.
    pub incarnation: u64,
}
