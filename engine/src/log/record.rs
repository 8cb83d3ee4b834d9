//! Records: what callers append, and how one looks on disk.
//!
//! ```text
//! offset size
//!      0    4  length of the payload
//!      4    4  CRC-32 (IEEE) of the payload, then of bytes 0..4, then of bytes 8..36
//!      8    4  group
//!     12    4  life of the group
//!     16    8  term     of the log id that the record speaks of, else 0
//!     24    8  index    likewise
//!     32    1  kind
//!     33    1  detail   entry: 0 blank, 1 commands, 2 membership; truncate: 1 if there is a log id
//!     34    2  zero
//!     36       payload  entry: its bytes; vote: its bytes; else empty (but for the two below)
//!
//! kinds  1 entry  2 vote  3 committed  4 truncate  5 purge  6 checkpoint  7 drop
//!        16 origin and 17 group state, only in the frame that opens a segment (see `header`)
//! ```
//!
//! Integers are little-endian. Records are packed; frames are what is aligned. The CRC covers the
//! payload first, so that it is computed by the caller's thread before any lock is taken.

use bytes::Bytes;

use super::error::AppendError;
use super::limits::VOTE_BYTES_MAX;
use crate::{EntryPayload, GroupId, LogId};

/// Bytes of a record before its payload.
pub(super) const HEAD_BYTES: usize = 36;

/// Something to append to the log. `group` is the group it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub enum Record {
    /// An entry of a group's log, at the index after the last (any index in an empty log).
    Entry { group: GroupId, log_id: LogId, payload: EntryPayload },
    /// The group's vote, opaque, at most 256 bytes.
    Vote { group: GroupId, bytes: Bytes },
    /// How far the group is known to be committed. Lazy: alone it completes at once, and is written
    /// with whatever is written next.
    Committed { group: GroupId, log_id: LogId },
    /// Removes the entries after a log id, or all. Beyond the last entry it changes nothing.
    Truncate { group: GroupId, after: Option<LogId> },
    /// Removes the entries up to a log id. Beyond the last entry, the log is then empty and goes on
    /// after that log id. At or below what is purged already it changes nothing.
    Purge { group: GroupId, upto: LogId },
    /// The state of the group up to a log id is durable outside the log.
    Checkpoint { group: GroupId, at: LogId },
    /// Forgets the group. If it returns, it has a new life and nothing of the old one.
    Drop { group: GroupId },
}

/// The kind of a record on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Entry = 1,
    Vote = 2,
    Committed = 3,
    Truncate = 4,
    Purge = 5,
    Checkpoint = 6,
    Drop = 7,
    Origin = 16,
    GroupState = 17,
}

impl Kind {
    pub(super) fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Entry,
            2 => Self::Vote,
            3 => Self::Committed,
            4 => Self::Truncate,
            5 => Self::Purge,
            6 => Self::Checkpoint,
            7 => Self::Drop,
            16 => Self::Origin,
            17 => Self::GroupState,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Vote => "vote",
            Self::Committed => "committed",
            Self::Truncate => "truncate",
            Self::Purge => "purge",
            Self::Checkpoint => "checkpoint",
            Self::Drop => "drop",
            Self::Origin => "origin",
            Self::GroupState => "group-state",
        }
    }
}

/// What a payload of an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum PayloadKind {
    Blank = 0,
    Commands = 1,
    Membership = 2,
}

impl PayloadKind {
    pub(super) fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Blank),
            1 => Some(Self::Commands),
            2 => Some(Self::Membership),
            _ => None,
        }
    }

    pub(super) fn with(self, bytes: Bytes) -> EntryPayload {
        match self {
            Self::Blank => EntryPayload::Blank,
            Self::Commands => EntryPayload::Commands(bytes),
            Self::Membership => EntryPayload::Membership(bytes),
        }
    }
}

/// The kind and the bytes of an entry's payload.
pub(super) fn payload_parts(payload: &EntryPayload) -> (PayloadKind, Bytes) {
    match payload {
        EntryPayload::Blank => (PayloadKind::Blank, Bytes::new()),
        EntryPayload::Commands(bytes) => (PayloadKind::Commands, bytes.clone()),
        EntryPayload::Membership(bytes) => (PayloadKind::Membership, bytes.clone()),
    }
}

/// What a record does to its group; payloads of entries are kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Entry { id: LogId, kind: PayloadKind, len: u32 },
    Vote(Bytes),
    Committed(LogId),
    Truncate(Option<LogId>),
    Purge(LogId),
    Checkpoint(LogId),
    Drop,
}

/// The fields before a record's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) len: u32,
    pub(super) crc: u32,
    pub(super) group: GroupId,
    pub(super) life: u32,
    pub(super) id: LogId,
    pub(super) kind: u8,
    pub(super) detail: u8,
}

impl Head {
    /// The bytes of the head; fills in the CRC. `payload` is a hasher that has seen the payload.
    pub(super) fn encode(&self, mut payload: crc32fast::Hasher) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.len.to_le_bytes());
        put(8, &self.group.to_le_bytes());
        put(12, &self.life.to_le_bytes());
        put(16, &self.id.term.to_le_bytes());
        put(24, &self.id.index.to_le_bytes());
        put(32, &[self.kind, self.detail]);
        payload.update(&out[0..4]);
        payload.update(&out[8..HEAD_BYTES]);
        out[4..8].copy_from_slice(&payload.finalize().to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; HEAD_BYTES]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes(field(bytes, at));
        let u64_at = |at: usize| u64::from_le_bytes(field(bytes, at));
        Self {
            len: u32_at(0),
            crc: u32_at(4),
            group: u32_at(8),
            life: u32_at(12),
            id: LogId::new(u64_at(16), u64_at(24)),
            kind: field::<1>(bytes, 32)[0],
            detail: field::<1>(bytes, 33)[0],
        }
    }
}

/// `N` bytes at a fixed place of a buffer whose size is known; zeros past its end.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let end = at.saturating_add(N);
    bytes.get(at..end).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
}

/// A record found in bytes from a disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub(super) head: Head,
    pub(super) payload: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRecord {
    #[error("a record is cut off")]
    CutOff,
    #[error("the CRC of a record is wrong")]
    Crc,
    #[error("a record of an unknown kind")]
    Kind,
    #[error("a record that makes no sense")]
    Malformed,
}

impl<'a> Found<'a> {
    /// The record at the start of `bytes`, and what follows it.
    pub(super) fn first(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BadRecord> {
        let (found, rest) = Self::first_checked(bytes)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(found.payload);
        hasher.update(bytes.get(0..4).unwrap_or_default());
        hasher.update(bytes.get(8..HEAD_BYTES).unwrap_or_default());
        if hasher.finalize() != found.head.crc {
            return Err(BadRecord::Crc);
        }
        Ok((found, rest))
    }

    /// The same for bytes whose CRC has been checked.
    pub(super) fn first_checked(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BadRecord> {
        let (head, rest) = bytes.split_first_chunk().ok_or(BadRecord::CutOff)?;
        let head = Head::decode(head);
        let len = usize::try_from(head.len).map_err(|_| BadRecord::CutOff)?;
        let (payload, rest) = rest.split_at_checked(len).ok_or(BadRecord::CutOff)?;
        Ok((Self { head, payload }, rest))
    }

    /// What the record does to its group.
    pub(super) fn change(&self) -> Result<Change, BadRecord> {
        let Head { id, detail, len, .. } = self.head;
        let kind = Kind::of(self.head.kind).ok_or(BadRecord::Kind)?;
        if !self.payload.is_empty() && !matches!(kind, Kind::Entry | Kind::Vote) {
            return Err(BadRecord::Malformed);
        }
        Ok(match (kind, detail) {
            (Kind::Entry, _) => {
                let kind = PayloadKind::of(detail).ok_or(BadRecord::Malformed)?;
                Change::Entry { id, kind, len }
            }
            (Kind::Vote, 0) if self.payload.len() <= VOTE_BYTES_MAX => {
                Change::Vote(Bytes::copy_from_slice(self.payload))
            }
            (Kind::Committed, 0) => Change::Committed(id),
            (Kind::Truncate, 0) => Change::Truncate(None),
            (Kind::Truncate, 1) => Change::Truncate(Some(id)),
            (Kind::Purge, 0) => Change::Purge(id),
            (Kind::Checkpoint, 0) => Change::Checkpoint(id),
            (Kind::Drop, 0) => Change::Drop,
            _ => return Err(BadRecord::Malformed),
        })
    }
}

/// A record made ready outside of any lock: only its group's life is missing.
pub(super) struct Prepared {
    pub(super) group: GroupId,
    pub(super) change: Change,
    pub(super) payload: Bytes,
    hasher: crc32fast::Hasher,
}

impl Prepared {
    /// Checks sizes and computes the CRC of the payload.
    pub(super) fn new(record: Record, payload_bytes_max: usize) -> Result<Self, AppendError> {
        let (group, change, payload) = match record {
            Record::Entry { group, log_id: id, payload } => {
                let (kind, bytes) = payload_parts(&payload);
                let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                (group, Change::Entry { id, kind, len }, bytes)
            }
            Record::Vote { group, bytes } => (group, Change::Vote(bytes.clone()), bytes),
            Record::Committed { group, log_id } => (group, Change::Committed(log_id), Bytes::new()),
            Record::Truncate { group, after } => (group, Change::Truncate(after), Bytes::new()),
            Record::Purge { group, upto } => (group, Change::Purge(upto), Bytes::new()),
            Record::Checkpoint { group, at } => (group, Change::Checkpoint(at), Bytes::new()),
            Record::Drop { group } => (group, Change::Drop, Bytes::new()),
        };
        let max =
            if matches!(change, Change::Vote(_)) { VOTE_BYTES_MAX } else { payload_bytes_max };
        if payload.len() > max {
            return Err(AppendError::TooLarge { group, bytes: payload.len(), bytes_max: max });
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&payload);
        Ok(Self { group, change, payload, hasher })
    }

    pub(super) fn is_lazy(&self) -> bool {
        matches!(self.change, Change::Committed(_))
    }

    /// Bytes on disk, head included.
    pub(super) fn bytes(&self) -> u64 {
        (HEAD_BYTES + self.payload.len()) as u64
    }

    /// The head for a group in its `life`.
    pub(super) fn head(&self, life: u32) -> [u8; HEAD_BYTES] {
        let (kind, detail, id) = match &self.change {
            Change::Entry { id, kind, .. } => (Kind::Entry, *kind as u8, *id),
            Change::Vote(_) => (Kind::Vote, 0, LogId::default()),
            Change::Committed(id) => (Kind::Committed, 0, *id),
            Change::Truncate(after) => {
                (Kind::Truncate, u8::from(after.is_some()), after.unwrap_or_default())
            }
            Change::Purge(id) => (Kind::Purge, 0, *id),
            Change::Checkpoint(id) => (Kind::Checkpoint, 0, *id),
            Change::Drop => (Kind::Drop, 0, LogId::default()),
        };
        let len = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let (group, kind) = (self.group, kind as u8);
        Head { len, crc: 0, group, life, id, kind, detail }.encode(self.hasher.clone())
    }
}
