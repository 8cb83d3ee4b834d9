//! What can go wrong with a shard, one enum an operation.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::{
    BodyError, DecodeError, GroupId, LogId, SectionError,
    checkpoint::LoadError,
    log::{AppendError, ReadError},
    state::ApplyError,
};

/// Why a shard cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ShardOpenError {
    /// A directory cannot be prepared or listed.
    #[error("cannot prepare {dir}: {source}")]
    Directory {
        /// Which.
        dir: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The newest checkpoint is not whole. Nothing is repaired: restore the file or the replica.
    #[error("the checkpoint {path} cannot be loaded: {source}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Where and how.
        source: CheckpointLoadError,
    },
    /// The log says that there is a checkpoint, and its file is gone.
    #[error("the log names a checkpoint of group {group} at {at}, but {dir} holds none so new")]
    CheckpointMissing {
        /// The group.
        group: GroupId,
        /// Where it should stand.
        at: LogId,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// The log begins after the checkpoint ends.
    #[error("group {group} needs entry {needed} from the log, which begins at {first}")]
    Gap {
        /// The group.
        group: GroupId,
        /// The first entry that is missing.
        needed: u64,
        /// The first that there is.
        first: u64,
    },
    /// The log ends before what it says is committed.
    #[error("group {group} needs entry {needed}, but the log ends before {committed}, committed")]
    Missing {
        /// The group.
        group: GroupId,
        /// The first entry that is missing.
        needed: u64,
        /// The last that is committed.
        committed: LogId,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// A committed entry cannot be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Old files cannot be opened.
    #[error(transparent)]
    Bodies(#[from] BodyError),
}

/// Why the bytes of a checkpoint or an export cannot be taken for a state.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct CheckpointLoadError(#[from] LoadError);

/// Why a page was not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// A young message cannot be read from the log.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// An old message cannot be read from its file.
    #[error(transparent)]
    Bodies(#[from] BodyError),
    /// A message record with a right CRC cannot be taken apart.
    #[error("the record of message {seq} is not valid: {source}")]
    Record {
        /// Its seq.
        seq: u64,
        /// Where and how.
        source: DecodeError,
    },
    /// A message that had expired before it could be moved was asked for.
    #[error("message {seq} has expired and its body is gone")]
    Gone {
        /// Its seq.
        seq: u64,
    },
}

/// Why there is no new checkpoint. The one before is as good as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Nothing has been applied yet.
    #[error("nothing has been applied yet")]
    Empty,
    /// The replica is about to be dropped.
    #[error("the replica is about to be dropped")]
    Ended,
    /// A message cannot be read where it lies.
    #[error("a message cannot be moved: {0}")]
    Message(#[from] FetchError),
    /// Old files cannot be written.
    #[error(transparent)]
    Bodies(#[from] BodyError),
    /// The checkpoint's file cannot be written.
    #[error("the checkpoint cannot be written: {0}")]
    Write(#[from] io::Error),
    /// The log refused the mark.
    #[error(transparent)]
    Log(#[from] AppendError),
}

impl CheckpointError {
    /// Whether nothing but space was missing.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let is_full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
        match self {
            Self::Bodies(BodyError::Io { source, .. }) | Self::Write(source) => is_full(source),
            Self::Log(AppendError::DiskFull { .. }) => true,
            _ => false,
        }
    }
}

/// Why a shard was not exported whole.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A message cannot be read where it lies.
    #[error("a message cannot be exported: {0}")]
    Message(#[from] FetchError),
    /// The receiver refused the bytes.
    #[error("the export cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Why an export was not taken. The state is as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The bytes are no whole export of this group.
    #[error("the export cannot be loaded: {0}")]
    Load(#[from] CheckpointLoadError),
    /// A message record is not what the export says of it.
    #[error("the record of message {seq} in the export is not valid")]
    Record {
        /// Its seq.
        seq: u64,
    },
    /// It ends before the last entry that has been applied here.
    #[error("the export ends at {at:?}, and {applied} has been applied here")]
    Behind {
        /// The last entry in it.
        at: Option<LogId>,
        /// The last entry applied.
        applied: LogId,
    },
    /// A restored state must have a generation above the one before.
    #[error(
        "positions of generation {found} have been handed out; {asked} is not above it, or above the highest there can be"
    )]
    Generation {
        /// That of the export.
        found: u8,
        /// The one asked for.
        asked: u8,
    },
    /// It could not be made durable.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl From<LoadError> for ImportError {
    fn from(error: LoadError) -> Self {
        Self::Load(error.into())
    }
}

impl From<SectionError> for ImportError {
    fn from(error: SectionError) -> Self {
        Self::Load(LoadError::from(error).into())
    }
}
