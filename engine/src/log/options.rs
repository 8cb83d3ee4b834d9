//! What a log can be told when it is opened.

use std::time::Duration;

use super::error::LogOpenError;
use super::limits::{
    BLOCK_BYTES, QUEUE_BYTES_MAX, RECENT_BYTES_MAX, RESERVE_BYTES, SEGMENT_BYTES,
    SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SILENCE_MS,
};

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterMode {
    /// A thread of the log's own; a second one prepares segments.
    Thread,
    /// Nobody, until [`Log::step`](super::Log::step) is called: for simulations. Blocking calls such
    /// as `append_wait` step by themselves. Dropping the log writes nothing.
    Stepped,
}

/// How frames are written; see ADR 0009.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMethod {
    /// Whichever is faster on this disk, found out by some writes when the log is opened (a few
    /// milliseconds). A stepped log writes directly if it can.
    #[default]
    Auto,
    /// Past the page cache, written and synced in one request; buffered where the file system does
    /// not have that.
    Direct,
    /// Through the page cache, then a sync.
    Buffered,
}

/// Options of [`Log::open`](super::Log::open). All but `disk_id` may differ from one opening to the
/// next.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Bytes of a segment made from now on: 32 KiB to 1 GiB, a multiple of 4 KiB. Default 64 MiB.
    pub segment_bytes: u64,
    /// Silence after which a frame records that the last one is durable. Default 10 ms.
    pub silence: Duration,
    /// Payloads kept in memory after they were written, in bytes. Default 32 MiB.
    pub recent_bytes_max: usize,
    /// Records that may wait to be written, in bytes. Default 512 MiB.
    pub queue_bytes_max: usize,
    /// Free bytes on the disk below which [`Space`](super::Space) reports reserve. Half of it is
    /// never taken by new segments. Default 256 MiB.
    pub reserve_bytes: u64,
    /// The disk id to give to a new directory, or that an existing one must have. Default: random,
    /// or whatever the directory has.
    pub disk_id: Option<[u8; 16]>,
    /// Who writes. Default: a thread.
    pub writer: WriterMode,
    /// How. Default: whichever is faster.
    pub method: WriteMethod,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            silence: Duration::from_millis(SILENCE_MS),
            recent_bytes_max: RECENT_BYTES_MAX,
            queue_bytes_max: QUEUE_BYTES_MAX,
            reserve_bytes: RESERVE_BYTES,
            disk_id: None,
            writer: WriterMode::Thread,
            method: WriteMethod::Auto,
        }
    }
}

impl LogOptions {
    pub(super) fn validate(&self) -> Result<(), LogOpenError> {
        let wrong = |option, why| Err(LogOpenError::Options { option, why });
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            let range = format!("must be {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}");
            return wrong("segment_bytes", range);
        }
        if !self.segment_bytes.is_multiple_of(BLOCK_BYTES) {
            return wrong("segment_bytes", format!("must be a multiple of {BLOCK_BYTES}"));
        }
        Ok(())
    }
}
