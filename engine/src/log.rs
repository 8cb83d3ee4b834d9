//! The append log: one per node, for all groups, so that one sync makes durable what all of them
//! have to write.
//!
//! ```text
//!  callers ──append──▶ index (readable at once) + queue
//!                                                  │ one writer: all that waits = one frame, one sync
//!                                                  ▼
//!  segments  [header│frame│frame│…] [header│frame│… │zeros]      next: prepared by the keeper
//!              sealed: read by map    active: read by pread
//! ```
//!
//! What it is: entries, votes and marks of many Raft-like logs, kept in order, durable when their
//! completion fires, readable as soon as `append` has returned, with everything refused that does
//! not read back as written. What it is not: it applies nothing, knows no Raft, and deletes only what
//! it is told to purge.
//!
//! Invariants:
//! - Records become durable in the order in which they were appended, over all groups.
//! - `purged ≤ checkpoint ≤ applied ≤ committed ≤ flushed tail` per group is kept by the callers; the
//!   log keeps that entries are consecutive and that nothing at or below `purged` is read.
//! - A frame is written only when the one before it is synced.
//! - A segment is written again only when no group has an entry in it, by records that are durable,
//!   and nobody holds it or a part of its map.
//! - After a failed write or sync nothing is written any more.
//!
//! The format is in [`record`](self), `frame` and `header`, and in `docs/file-format.md`.

mod append;
mod buffer;
mod core;
mod error;
#[cfg(test)]
mod format_tests;
mod frame;
mod header;
mod index;
pub mod inspect;
mod keeper;
mod lead;
pub mod limits;
mod method;
mod opening;
mod options;
mod queue;
mod read;
mod record;
mod recovery;
mod replay;
mod scan;
mod segment;
mod shared;
mod stats;
mod writer;
mod written;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use parking_lot::Mutex;

pub use error::{AppendError, Fault, LogOpenError, ReadError};
pub use frame::LogPlace;
pub use options::{LogOptions, WriteMethod, WriterMode};
pub use queue::Done;
pub use read::PinnedEntry;
pub use record::Record;
pub use stats::{LogStats, OldestSegment, Space, SpaceLevel};
pub use writer::LogStep;

use self::core::Core;
use self::queue::Item;
use self::shared::Shared;
use self::writer::Writer;
use crate::fs::Files;
use crate::{EntryPayload, GroupId, LogId};

/// What the log knows of a group, as appended (not all of it need be durable yet).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// Counts how often the group was dropped, from 1; 0 if the log never heard of it.
    pub life: u32,
    /// The last vote.
    pub vote: Option<Bytes>,
    /// How far it is known to be committed.
    pub committed: Option<LogId>,
    /// The last purged entry.
    pub purged: Option<LogId>,
    /// The last entry, or the last purged one if there is none.
    pub last: Option<LogId>,
    /// Up to where its state is durable outside the log.
    pub checkpoint: Option<LogId>,
    /// Index of the first entry that can be read.
    pub first: Option<u64>,
}

impl From<&Core> for GroupState {
    fn from(core: &Core) -> Self {
        let Core { life, vote, committed, purged, checkpoint, first, last } = core.clone();
        Self { life, vote, committed, purged, last, checkpoint, first }
    }
}

/// A handle of the log; clones share it. When the last one is dropped, what waits is written (but
/// in a stepped log), the threads end and the directory is free.
///
/// ```
/// use std::sync::Arc;
/// use bytes::Bytes;
/// use switchboard_engine::fs::RealFiles;
/// use switchboard_engine::log::{Log, LogOptions, Record};
/// use switchboard_engine::{EntryPayload, LogId};
///
/// # let dir = tempfile::tempdir()?;
/// let options = LogOptions { segment_bytes: 64 * 1024, ..LogOptions::default() };
/// let log = Log::open(Arc::new(RealFiles), dir.path(), options)?;
/// let payload = EntryPayload::Commands(Bytes::from_static(b"hello"));
/// let entry = Record::Entry { group: 1, log_id: LogId::new(1, 0), payload: payload.clone() };
/// log.append_wait(vec![entry])?; // durable from here on
/// assert_eq!(log.read(1, 0..1, 1024)?, [(LogId::new(1, 0), payload)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    /// Held by whoever writes a frame, until its completions were called.
    writer: Arc<Mutex<Writer>>,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    writer: JoinHandle<()>,
    keeper: JoinHandle<()>,
}

impl Log {
    /// Opens the log in a directory, which is made if it is missing, and takes its lock.
    pub fn open(
        files: Arc<dyn Files>,
        dir: &Path,
        options: LogOptions,
    ) -> Result<Self, LogOpenError> {
        let (shared, writer) = opening::open(files, dir, options)?;
        let (writer, threads) = (Arc::new(Mutex::new(writer)), Mutex::new(None));
        let handle = Handle { shared, writer, threads };
        if handle.shared.options.writer == WriterMode::Thread {
            *handle.threads.lock() = Some(Threads::start(&handle)?);
        }
        Ok(Self { handle: Arc::new(handle) })
    }

    /// Whether no log is open in a directory, for whoever waits for its last handle to go. It takes the lock for
    /// a moment, in which an opening log would be refused.
    #[must_use]
    pub fn is_free(files: &dyn Files, dir: &Path) -> bool {
        opening::is_free(files, dir)
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// The random identity of the directory, drawn when it was made.
    #[must_use]
    pub fn disk_id(&self) -> [u8; 16] {
        self.shared().disk_id
    }

    /// Every group that the log ever heard of, ascending; also those that were dropped.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        self.shared().index.read().groups().map(|(id, _)| id).collect()
    }

    /// What the log knows of a group.
    #[must_use]
    pub fn group_state(&self, group: GroupId) -> GroupState {
        let index = self.shared().index.read();
        index.group(group).map(|group| GroupState::from(&group.core)).unwrap_or_default()
    }

    /// Appends records, in this order and after all that was appended before, and returns at once.
    ///
    /// The entries are readable when it returns. `done` is called when all records are durable, in
    /// the order of the appends, on the thread that wrote them: it must not block. If the records are
    /// refused, none is appended and `done` is called before this returns. Records of one call
    /// share a frame, so are durable together, up to some megabytes; beyond, they are split.
    pub fn append(&self, records: Vec<Record>, done: Done) {
        match append::append(self.shared(), records, done) {
            Some((done, result)) => done(result),
            None => {
                self.shared().wake.notify_all();
            }
        }
    }

    /// Appends and waits until the records are durable. If nobody is writing, this thread writes
    /// them, with all that waits before them.
    pub fn append_wait(&self, records: Vec<Record>) -> Result<(), AppendError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let done = Box::new(move |result| drop(sender.send(result)));
        match append::append(self.shared(), records, done) {
            Some((_, result)) => result,
            None => lead::wait(self.shared(), &self.handle.writer, &receiver),
        }
    }

    /// Waits until everything appended before is durable and recorded as such. The log can be used
    /// on.
    pub fn flush(&self) -> Result<(), AppendError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let done: Done = Box::new(move |result| drop(sender.send(result)));
        let mut queue = self.shared().queue.lock();
        if let Some(closed) = &queue.closed {
            return Err(closed.clone());
        }
        queue.push(Item { records: Vec::new(), done: Some(done), flush: true });
        drop(queue);
        lead::wait(self.shared(), &self.handle.writer, &receiver)
    }

    /// Lets a stepped log write one frame of what waits. [`LogStep::Idle`] if it has a thread.
    pub fn step(&self) -> LogStep {
        match self.shared().options.writer {
            WriterMode::Stepped => self.handle.writer.lock().step(self.shared()),
            WriterMode::Thread => LogStep::Idle,
        }
    }

    /// Lets a stepped log do what it would do after a silence: record what is durable.
    pub fn step_silence(&self) {
        if self.shared().options.writer == WriterMode::Thread {
            return;
        }
        if let Err(fault) = self.handle.writer.lock().record(self.shared()) {
            self.shared().poison(fault, Vec::new());
        }
    }

    /// The log id of the entry at an index, or of the last purged one.
    #[must_use]
    pub fn log_id_at(&self, group: GroupId, index: u64) -> Option<LogId> {
        self.shared().index.read().group(group)?.log_id_at(index)
    }

    /// The entries of a group that are in the range, as many as have `bytes_max` of payload
    /// together, but at least one. What is purged or not there yet is left out without an error.
    ///
    /// Entries of a sealed segment share its map and keep it from being used again: don't keep them.
    pub fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<(LogId, EntryPayload)>, ReadError> {
        read::read(self.shared(), group, range, bytes_max)
    }

    /// Keeps the payload of one entry readable, whatever is purged or recycled meanwhile.
    pub fn pin_entry(&self, group: GroupId, index: u64) -> Result<PinnedEntry, ReadError> {
        read::pin(self.shared(), group, index)
    }

    /// Bytes that the entries of a group take in the log.
    #[must_use]
    pub fn retained_bytes(&self, group: GroupId) -> u64 {
        self.shared().index.read().group(group).map_or(0, index::Group::bytes)
    }

    /// How it stands with the space on the disk; asks the system, costs about a microsecond.
    #[must_use]
    pub fn space(&self) -> Space {
        stats::space(self.shared())
    }

    /// Figures for metrics and for the checkpoint policy.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        stats::stats(self.shared())
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log({})", self.shared().dir.display())
    }
}

impl Threads {
    fn start(handle: &Handle) -> Result<Self, Fault> {
        let shared = handle.shared.clone();
        let keep = move || shared.keeper.run(|| shared.refresh_outlook());
        let keeper = spawn(&handle.shared, "log-keeper", keep)?;
        let (shared, writer) = (handle.shared.clone(), handle.writer.clone());
        match spawn(&handle.shared, "log-writer", move || lead::run(&shared, &writer)) {
            Ok(writer) => Ok(Self { writer, keeper }),
            Err(fault) => {
                handle.shared.keeper.stop();
                let _ = keeper.join();
                Err(fault)
            }
        }
    }
}

fn spawn(
    shared: &Shared,
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Fault> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(run).map_err(|e| Fault::new("start a thread for", &shared.dir, e))
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Some(Threads { writer, keeper }) = self.threads.lock().take() else { return };
        self.shared.queue.lock().stopping = true;
        self.shared.wake.notify_all();
        // A completion may drop the last handle, on the writer's own thread: it then ends alone.
        if writer.thread().id() != thread::current().id() {
            let _ = writer.join();
        }
        self.shared.keeper.stop();
        let _ = keeper.join();
    }
}
