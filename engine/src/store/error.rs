//! What can go wrong with an embedded store.

use std::io;

use thiserror::Error;

use crate::{
    ApplyError, CheckpointError, FetchError, ShardOpenError, Status,
    log::{AppendError, LogOpenError},
};

/// Why a store was not opened.
#[derive(Debug, Error)]
pub enum StoreOpenError {
    /// The log cannot be opened: another process has it, or it is damaged.
    #[error(transparent)]
    Log(#[from] LogOpenError),
    /// The state cannot be loaded.
    #[error(transparent)]
    Shard(#[from] ShardOpenError),
    /// The log takes nothing.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The system gives no randomness for the key of message ids.
    #[error("no randomness: {0}")]
    Random(#[source] io::Error),
    /// The rules given are out of their ranges.
    #[error("the rules are out of their ranges")]
    Rules,
    /// The first command failed.
    #[error(transparent)]
    Begin(#[from] StoreError),
}

/// Why a call on a store failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Nothing changed, for the reason that the status names.
    #[error("refused: {status:?}")]
    Refused {
        /// Why.
        status: Status,
    },
    /// The log did not take it. [`AppendError::DiskFull`]: messages and claims are refused while less
    /// than the log's reserve is free, the rest when not even that is left; nothing changed, and it
    /// goes on by itself once there is space. After [`AppendError::Poisoned`] the outcome is unknown.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log holds what cannot be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A message that waits cannot be read.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The checkpoint was not taken; the one before stays in force.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// An earlier failure closed the store; open it again.
    #[error("the store is closed after an earlier failure")]
    Closed,
}
