//! How frames reach the disk: past the page cache in one request, or through it and a sync.
//!
//! Direct writes take one request and half the processor time (no copy into the page cache, no walk
//! over it); what they wrote is not in the page cache when it is read. Which of them is faster
//! depends on the disk and the file system, so [`WriteMethod::Auto`] tries both when a log is
//! opened, on the part of the newest segment behind the log's end, where nothing is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::buffer::FrameBuffer;
use super::error::Fault;
use super::limits::{METHOD_TRIAL_BYTES, METHOD_TRIAL_MS, METHOD_TRIALS};
use super::options::{LogOptions, WriteMethod, WriterMode};
use super::segment::SegmentFile;
use crate::fs::{FileHandle, Files, OpenMode};
use crate::planted::{self, Bug};

/// Where a segment's frames are written.
pub(super) struct Output {
    handle: Arc<dyn FileHandle>,
    pub(super) is_direct: bool,
}

impl Output {
    /// Opens a segment's file anew for direct writes if they are asked for and the file system has
    /// them, else writes through the handle that it has.
    pub(super) fn open(
        files: &dyn Files,
        segment: &SegmentFile,
        direct: bool,
    ) -> Result<Self, Fault> {
        let buffered = Self { handle: segment.file.clone(), is_direct: false };
        if !direct {
            return Ok(buffered);
        }
        match files.open(&segment.path, OpenMode::WriteDirect) {
            Ok(handle) => Ok(Self { handle, is_direct: true }),
            Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => Ok(buffered),
            Err(e) => Err(Fault::new("open", &segment.path, e)),
        }
    }

    /// Writes and syncs a frame.
    pub(super) fn write(
        &self,
        segment: &SegmentFile,
        frame: &FrameBuffer,
        at: u64,
    ) -> Result<(), Fault> {
        let written = match planted::is(Bug::SkippedSync) {
            true => self.handle.write_at(frame.bytes(), at),
            false => self.handle.write_durable(frame.bytes(), at),
        };
        written.map_err(|e| Fault::new("write or sync", &segment.path, e))
    }
}

/// Whether to write directly. From `end` on, there is nothing in the newest segment.
pub(super) fn choose(
    files: &dyn Files,
    options: &LogOptions,
    newest: &SegmentFile,
    end: u64,
) -> Result<bool, Fault> {
    match (options.method, options.writer) {
        (WriteMethod::Buffered, _) => Ok(false),
        // A simulation must not depend on time.
        (WriteMethod::Direct, _) | (WriteMethod::Auto, WriterMode::Stepped) => {
            Ok(Output::open(files, newest, true)?.is_direct)
        }
        (WriteMethod::Auto, WriterMode::Thread) => try_both(files, newest, end),
    }
}

/// Writes zeros behind the end by both methods in turn; true if the median direct one is not slower.
/// Where there is no room for that, direct writes are taken if the file system has them.
fn try_both(files: &dyn Files, newest: &SegmentFile, end: u64) -> Result<bool, Fault> {
    let direct = Output::open(files, newest, true)?;
    let room = newest.bytes.saturating_sub(end);
    if !direct.is_direct || room < (2 * METHOD_TRIALS as u64 + 1) * METHOD_TRIAL_BYTES as u64 {
        return Ok(direct.is_direct);
    }
    let buffered = Output::open(files, newest, false)?;
    let mut zeros = FrameBuffer::default();
    zeros.clear(METHOD_TRIAL_BYTES);
    zeros.resize(METHOD_TRIAL_BYTES);
    let mut at = end;
    let mut timed = |output: &Output| {
        let started = now();
        output.write(newest, &zeros, at)?;
        at += METHOD_TRIAL_BYTES as u64;
        Ok::<Duration, Fault>(since(started))
    };
    // The first write of a log that was just opened pays for what nothing after it does.
    timed(&buffered)?;
    let started = now();
    let mut samples = (Vec::new(), Vec::new());
    for nth in 0..METHOD_TRIALS {
        match timed(&direct) {
            Ok(sample) => samples.0.push(sample),
            // Some file systems open a file for direct writes and then refuse them.
            Err(fault) if fault.error.kind() == std::io::ErrorKind::InvalidInput => {
                return Ok(false);
            }
            Err(fault) => return Err(fault),
        }
        samples.1.push(timed(&buffered)?);
        if nth > 0 && since(started) > Duration::from_millis(METHOD_TRIAL_MS) {
            break;
        }
    }
    Ok(median(samples.0) <= median(samples.1))
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "it measures the disk; nothing replicated sees it")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "it measures the disk; nothing replicated sees it")]
fn since(started: Instant) -> Duration {
    started.elapsed()
}
