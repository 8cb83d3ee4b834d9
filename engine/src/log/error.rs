//! What can go wrong, one type per operation.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::{GroupId, LogId};

/// The input or output that failed for good.
#[derive(Clone, Debug, Error)]
#[error("{action} {}: {error}", .path.display())]
pub struct Fault {
    /// What was tried, such as `write`.
    pub action: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// What came back.
    #[source]
    pub error: Arc<io::Error>,
}

impl Fault {
    pub(crate) fn new(action: &'static str, path: impl Into<PathBuf>, error: io::Error) -> Self {
        Self { action, path: path.into(), error: Arc::new(error) }
    }
}

/// Why a log does not open. Nothing on the disk was changed, but for the lock file.
#[derive(Debug, Error)]
pub enum LogOpenError {
    /// The options contradict themselves.
    #[error("{option}: {why}")]
    Options {
        /// Which one.
        option: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Another process (or another log of this one) has the directory open.
    #[error("{} is in use by another process", .dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// Bytes that were durable are not what was written.
    #[error(
        "{} is corrupt at offset {offset}: {what}; nothing was changed; \
         `switchboard log inspect {}` shows what is there", .file.display(), .dir.display()
    )]
    Corrupt {
        /// The directory of the log.
        dir: PathBuf,
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A file that must be there is not.
    #[error(
        "{} is missing: {what}; `switchboard log inspect {}` shows what is there",
        .file.display(), .dir.display()
    )]
    Missing {
        /// The directory of the log.
        dir: PathBuf,
        /// The file, or the pattern of it.
        file: PathBuf,
        /// Why it must be there.
        what: String,
    },
    /// The log was written by a newer version.
    #[error("{} has format version {found}, this build reads up to {known}", .file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u8,
        /// The newest one known.
        known: u8,
    },
    /// The disk id asked for is not the one in the directory.
    #[error("{} belongs to another disk id", .dir.display())]
    DiskId {
        /// The directory.
        dir: PathBuf,
    },
    /// The system refused.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Why records were not appended, or are not known to be durable.
#[derive(Clone, Debug, Error)]
pub enum AppendError {
    /// A write or sync failed; the log takes nothing any more until it is opened again. Whether
    /// the records are on the disk is unknown.
    #[error("the log is closed for good after a failure: {0}")]
    Poisoned(Fault),
    /// The log was shut down.
    #[error("the log is shut down")]
    Closed,
    /// The entry is not the one after the last. Nothing was appended.
    #[error("entry {id} of group {group} does not follow {last:?}")]
    OutOfOrder {
        /// The group.
        group: GroupId,
        /// The entry.
        id: LogId,
        /// The last entry before it.
        last: Option<LogId>,
    },
    /// A payload is too large. Nothing was appended.
    #[error("a record of group {group} has {bytes} bytes, more than {bytes_max}")]
    TooLarge {
        /// The group.
        group: GroupId,
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// There are too many groups. Nothing was appended.
    #[error("group {group} is one more than the {groups_max} that a log of this size can hold")]
    TooManyGroups {
        /// The group.
        group: GroupId,
        /// The bound.
        groups_max: usize,
    },
    /// Entries find no space on the disk; other records still do. Nothing was appended.
    #[error(
        "the disk is full: the next segment of the log needs {needed_bytes} bytes, the reserve \
         included, and {free_bytes} are free"
    )]
    DiskFull {
        /// Bytes that must be free for entries to be taken again: a segment, and the part of the
        /// reserve that segments must leave; for messages and claims of a store, the whole reserve.
        needed_bytes: u64,
        /// Bytes free when that was found.
        free_bytes: u64,
    },
    /// A stepped log found no segment to write to: the records stay queued until there is one.
    #[error("the records wait for space on the disk")]
    Stalled,
    /// Too much waits to be written. Nothing was appended.
    #[error("{bytes} bytes wait to be written, more than {bytes_max}")]
    QueueFull {
        /// How much waits.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
}

/// Why an entry can't be read.
#[derive(Clone, Debug, Error)]
pub enum ReadError {
    /// The group has no such entry (yet, or any more).
    #[error("group {group} has no entry {index}")]
    NoEntry {
        /// The group.
        group: GroupId,
        /// The index.
        index: u64,
    },
    /// The part asked for is not within the entry.
    #[error("bytes {offset}..+{len} are not within a payload of {bytes} bytes")]
    OutOfBounds {
        /// Where the part begins.
        offset: usize,
        /// Its length.
        len: usize,
        /// Bytes of the payload.
        bytes: usize,
    },
    /// The bytes are not what was written.
    #[error("{} is corrupt at offset {offset}: {what}", .file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The system refused.
    #[error(transparent)]
    Fault(#[from] Fault),
}
