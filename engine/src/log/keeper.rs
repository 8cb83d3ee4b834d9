//! Prepares the next segment and takes back retired ones, beside the writer.
//!
//! A segment is prepared under the name it will have: filled with zeros and synced as `spare.tmp`,
//! or taken from a retired one as it is, then renamed, then the directory synced. It counts as a
//! segment only when the writer has put a header of its sequence into it, so a crash at any point
//! leaves either an unfinished file above the newest segment or one that is still retired.
//!
//! A retired segment is used again only when this holds its last reference: no reader, no pinned
//! entry, no part of a map. Which segments are retired is decided by the writer (see `written`),
//! oldest first, so that what stays is an unbroken row of sequences.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::buffer::FrameBuffer;
use super::error::Fault;
use super::limits::{FILL_BYTES, FULL_RETRY_MS, SPARES_MAX};
use super::segment::{SPARE_NAME, SegmentFile, file_name};
use crate::fs::{Files, OpenMode};
use crate::planted::{self, Bug};

#[derive(Default)]
struct State {
    /// The sequence to prepare, until it is.
    wanted: Option<u64>,
    ready: Option<SegmentFile>,
    retired: Vec<Arc<SegmentFile>>,
    /// Segments were retired since the last look at them.
    retired_more: bool,
    /// Bytes that were free when no segment could be prepared for want of space.
    full: Option<u64>,
    fault: Option<Fault>,
    stop: bool,
}

impl State {
    fn has_work(&self) -> bool {
        self.retired_more || (self.wanted.is_some() && self.fault.is_none())
    }
}

/// What a look at the next segment finds.
pub(super) enum Next {
    Ready(SegmentFile),
    /// It is being prepared, or there is no space for it yet.
    Soon,
    Failed(Fault),
}

pub(super) struct Keeper {
    files: Arc<dyn Files>,
    dir: std::path::PathBuf,
    segment_bytes: u64,
    /// Bytes that a new segment must leave free.
    leave_bytes: u64,
    /// Guards what is handed over between the writer and the keeper's thread; held briefly, never
    /// during input or output.
    state: Mutex<State>,
    wake: Condvar,
}

impl Keeper {
    pub(super) fn new(
        files: Arc<dyn Files>,
        dir: &Path,
        segment_bytes: u64,
        leave_bytes: u64,
    ) -> Self {
        let (state, wake) = (Mutex::default(), Condvar::new());
        Self { files, dir: dir.to_path_buf(), segment_bytes, leave_bytes, state, wake }
    }

    /// Asks for the segment of a sequence.
    pub(super) fn want(&self, sequence: u64) {
        self.state.lock().wanted = Some(sequence);
        self.wake.notify_all();
    }

    /// Takes segments that nobody needs any more.
    pub(super) fn retire(&self, files: impl IntoIterator<Item = Arc<SegmentFile>>) {
        let mut state = self.state.lock();
        let before = state.retired.len();
        state.retired.extend(files);
        state.retired_more |= state.retired.len() > before;
        drop(state);
        self.wake.notify_all();
    }

    /// Hands out the segment that was asked for, if it is ready.
    pub(super) fn next(&self) -> Next {
        let mut state = self.state.lock();
        if let Some(fault) = &state.fault {
            return Next::Failed(fault.clone());
        }
        state.ready.take().map_or(Next::Soon, Next::Ready)
    }

    /// Whether the next segment is ready, and the bytes that were free if there is no space for it.
    pub(super) fn outlook(&self) -> (bool, Option<u64>) {
        let state = self.state.lock();
        (state.ready.is_some(), state.full)
    }

    /// Whether the next segment can be prepared as things stand, else how many bytes that needs and
    /// how many are free.
    pub(super) fn check_space(&self) -> Result<(), (u64, u64)> {
        let free_one = |file: &Arc<SegmentFile>| Arc::strong_count(file) == 1;
        if self.state.lock().retired.iter().any(free_one) {
            return Ok(());
        }
        let free = self.files.space_free(&self.dir).unwrap_or(0);
        let needed = self.segment_bytes.saturating_add(self.leave_bytes);
        if free < needed { Err((needed, free)) } else { Ok(()) }
    }

    pub(super) fn retired_len(&self) -> usize {
        self.state.lock().retired.len()
    }

    /// Puts back a segment that the writer could not use, or one found unfinished at recovery.
    pub(super) fn put_ready(&self, file: SegmentFile) {
        let mut state = self.state.lock();
        state.wanted = None;
        state.ready = Some(file);
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.wake.notify_all();
    }

    /// Works until [`Keeper::stop`]; calls `changed` after each change of the outlook.
    pub(super) fn run(&self, mut changed: impl FnMut()) {
        loop {
            {
                let mut state = self.state.lock();
                // Retired segments that are held are looked at again with the next request.
                while !state.stop && !state.has_work() {
                    self.wake.wait(&mut state);
                }
                if state.stop {
                    return;
                }
            }
            self.work();
            changed();
            let mut state = self.state.lock();
            if state.full.is_some() && !state.stop {
                self.wake.wait_for(&mut state, Duration::from_millis(FULL_RETRY_MS));
            }
        }
    }

    /// Prepares the wanted segment, if there is one, and removes retired ones beyond the bound.
    pub(super) fn work(&self) {
        let wanted = {
            let mut state = self.state.lock();
            state.retired_more = false;
            state.wanted.filter(|_| state.fault.is_none())
        };
        if let Some(sequence) = wanted {
            let prepared = self.prepare(sequence, self.leave_bytes);
            let mut state = self.state.lock();
            state.full = None;
            match prepared {
                Ok(file) => {
                    state.wanted = None;
                    state.ready = Some(file);
                }
                Err(fault) if fault.error.kind() == io::ErrorKind::StorageFull => {
                    state.full = Some(self.files.space_free(&self.dir).unwrap_or(0));
                }
                Err(fault) => state.fault = Some(fault),
            }
        }
        self.remove_surplus();
    }

    /// Makes the file of a segment, of a retired one if one is free. `leave_bytes` stay free on the
    /// disk, else it fails with [`io::ErrorKind::StorageFull`].
    pub(super) fn prepare(&self, sequence: u64, leave_bytes: u64) -> Result<SegmentFile, Fault> {
        let to = self.dir.join(file_name(sequence));
        while let Some(free) = self.take_free() {
            if free.bytes != self.segment_bytes {
                self.remove(&free);
                continue;
            }
            self.files.rename(&free.path, &to).map_err(|e| Fault::new("rename", &free.path, e))?;
            self.sync_dir()?;
            return Ok(SegmentFile::new(&self.dir, sequence, free.file, free.bytes));
        }
        let free =
            self.files.space_free(&self.dir).map_err(|e| Fault::new("stat", &self.dir, e))?;
        if free < self.segment_bytes.saturating_add(leave_bytes) {
            return Err(Fault::new("fill", to, io::ErrorKind::StorageFull.into()));
        }
        let spare = self.dir.join(SPARE_NAME);
        let file = self.fill(&spare).map_err(|e| {
            // Half a segment would take the space that is wanted elsewhere.
            let _ = self.files.remove(&spare);
            Fault::new("fill", &spare, e)
        })?;
        self.files.rename(&spare, &to).map_err(|e| Fault::new("rename", &spare, e))?;
        self.sync_dir()?;
        Ok(SegmentFile::new(&self.dir, sequence, file, self.segment_bytes))
    }

    /// Writes a segment of zeros: appending to blocks that were written once takes no allocation
    /// and no change of the file's size, which halves the cost of a sync. Past the page cache where
    /// that can be: the zeros would be copied into it, and nobody reads them.
    fn fill(&self, spare: &Path) -> io::Result<Arc<dyn crate::fs::FileHandle>> {
        match self.files.remove(spare) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = self.files.open(spare, OpenMode::CreateNew)?;
        let chunk = usize::try_from(self.segment_bytes).unwrap_or(FILL_BYTES).min(FILL_BYTES);
        let mut zeros = FrameBuffer::default();
        zeros.clear(chunk);
        zeros.resize(chunk);
        let output = match self.files.open(spare, OpenMode::WriteDirect) {
            Ok(direct) => direct,
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => file.clone(),
            Err(e) => return Err(e),
        };
        let mut at = 0;
        while at < self.segment_bytes {
            if self.state.lock().stop {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let left = usize::try_from(self.segment_bytes - at).unwrap_or(chunk).min(chunk);
            output.write_durable(zeros.bytes().get(..left).unwrap_or_default(), at)?;
            at += left as u64;
        }
        Ok(file)
    }

    fn sync_dir(&self) -> Result<(), Fault> {
        self.files.sync_dir(&self.dir).map_err(|e| Fault::new("sync", &self.dir, e))
    }

    /// The oldest retired segment that nobody else holds.
    fn take_free(&self) -> Option<SegmentFile> {
        let mut state = self.state.lock();
        for nth in 0..state.retired.len() {
            // The count says no more than that somebody holds it now; only `try_unwrap` decides.
            match Arc::try_unwrap(state.retired.remove(nth)) {
                Ok(file) => return Some(file),
                Err(held) if planted::is(Bug::HeldSegmentReused) => {
                    let SegmentFile { sequence, file, bytes, .. } = &*held;
                    return Some(SegmentFile::new(&self.dir, *sequence, file.clone(), *bytes));
                }
                Err(held) => state.retired.insert(nth, held),
            }
        }
        None
    }

    fn remove_surplus(&self) {
        while self.retired_len() > SPARES_MAX {
            let Some(free) = self.take_free() else { return };
            self.remove(&free);
        }
    }

    /// Removes a retired file. That it fails, or is undone by a crash, costs space and no more: the
    /// file is found and retired again when the log is opened.
    fn remove(&self, file: &SegmentFile) {
        let _ = self.files.remove(&file.path);
    }
}
