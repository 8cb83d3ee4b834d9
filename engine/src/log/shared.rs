//! What callers, the writer and the keeper share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};

use super::error::{AppendError, Fault};
use super::index::Index;
use super::keeper::Keeper;
use super::options::{LogOptions, WriterMode};
use super::queue::{Item, Queue};
use crate::fs::{FileLock, Files};

pub(super) struct Shared {
    pub(super) files: Arc<dyn Files>,
    pub(super) dir: PathBuf,
    pub(super) options: LogOptions,
    pub(super) disk_id: [u8; 16],
    /// Where entries are. Callers hold it for writing while they append, then take `queue` as well
    /// (never the other way round), so that the order of the queue is that of the index.
    pub(super) index: RwLock<Index>,
    /// What waits to be written. Never held during input or output.
    pub(super) queue: Mutex<Queue>,
    /// Told when the queue or the outlook for segments has changed.
    pub(super) wake: Condvar,
    pub(super) keeper: Keeper,
    /// The size to which somebody had cut the newest segment's file before this opening.
    pub(super) cut_at_open: Option<u64>,
    /// Frames are written past the page cache.
    pub(super) writes_direct: bool,
    pub(super) counters: Counters,
    /// Kept until the writer is done, also if the last handle is dropped by a completion.
    pub(super) _lock: FileLock,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) frames: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) frame_bytes: AtomicU64,
    pub(super) segments_opened: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

impl Shared {
    /// Closes the log for good: what waits, and whatever comes, fails.
    pub(super) fn poison(&self, fault: Fault, in_hand: Vec<Item>) {
        self.close(&AppendError::Poisoned(fault), in_hand);
    }

    pub(super) fn close(&self, why: &AppendError, in_hand: Vec<Item>) {
        let waiting = self.queue.lock().close(why.clone());
        for item in in_hand.into_iter().chain(waiting) {
            if let Some(done) = item.done {
                done(Err(why.clone()));
            }
        }
        self.wake.notify_all();
    }

    /// Asks the keeper for the segment of a sequence. A stepped log prepares it here and now.
    pub(super) fn want_segment(&self, sequence: u64) {
        self.keeper.want(sequence);
        self.keep_if_stepped();
        self.refresh_outlook();
    }

    pub(super) fn keep_if_stepped(&self) {
        if self.options.writer == WriterMode::Stepped {
            self.keeper.work();
        }
    }

    /// Whether the writer may end: the last handle is gone and all is written.
    pub(super) fn is_done(&self) -> bool {
        let queue = self.queue.lock();
        queue.stopping && queue.is_empty()
    }

    /// Tells the queue how it stands with the next segment.
    pub(super) fn refresh_outlook(&self) {
        // Asked under the lock, or an older answer could overwrite the keeper's news, and the
        // writer would wait for a segment that is there.
        let mut queue = self.queue.lock();
        let (ready, full) = self.keeper.outlook();
        queue.next_ready = ready;
        queue.disk_full = full;
        drop(queue);
        self.wake.notify_all();
    }

    /// Wakes the writer's thread if there is something to do for it that a caller who wrote by
    /// itself has left: what came meanwhile, or the record of what is durable after a silence.
    pub(super) fn leave_to_thread(&self) {
        let queue = self.queue.lock();
        if !queue.is_empty() || (queue.is_unrecorded && queue.is_resting) {
            drop(queue);
            self.wake.notify_all();
        }
    }
}
