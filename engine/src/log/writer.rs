//! The one writer: takes all that waits, writes it as one frame, syncs once, completes in order.
//!
//! ```text
//! queue ─take─▶ frame ─write─▶ ─sync─▶ written, index ─▶ completions
//!                 │ no room
//!                 └▶ header into the next segment, sync, seal the old one
//! ```
//!
//! A frame is written only after the one before it is synced; recovery relies on it. Any failure
//! of a write or sync closes the log for good: what a failed sync lost stays lost, whatever a
//! second one says.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::buffer::FrameBuffer;
use super::error::Fault;
use super::frame::{FRAME_HEAD_BYTES, FrameBuilder, FrameKind, LogPlace, seed_of};
use super::header;
use super::keeper::Next;
use super::limits::{BLOCK_BYTES, FRAME_BYTES_MAX, frame_bytes_max};
use super::method::Output;
use super::queue::{Item, Queue, Queued, Taken};
use super::record::Change;
use super::segment::{Segment, SegmentFile};
use super::shared::{Counters, Shared};
use super::written::Written;
use crate::planted::{self, Bug};

/// What a step of the writer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStep {
    /// It wrote and synced a frame, or completed what needed none.
    Wrote,
    /// There was nothing to do.
    Idle,
    /// Something waits, but there is no segment to write it to yet.
    Stalled,
    /// The log is closed.
    Closed,
}

pub(super) struct Writer {
    active: Arc<Segment>,
    /// Where the next frame goes.
    end: u64,
    /// The CRC of the last frame.
    chain: u32,
    written: Written,
    /// No frame says yet that the last one is durable.
    unrecorded: bool,
    frame: FrameBuffer,
    output: Output,
}

impl Writer {
    /// Goes on after `end` of a segment whose last frame has this CRC.
    pub(super) fn new(
        active: Arc<Segment>,
        output: Output,
        end: u64,
        chain: u32,
        written: Written,
    ) -> Self {
        let frame = FrameBuffer::default();
        Self { active, end, chain, written, unrecorded: false, frame, output }
    }

    pub(super) fn sequence(&self) -> u64 {
        self.active.file.sequence
    }

    fn left(&self) -> u64 {
        self.active.file.bytes.saturating_sub(self.end)
    }

    /// Writes one frame of what waits.
    pub(super) fn step(&mut self, shared: &Shared) -> LogStep {
        loop {
            let frame_max = frame_bytes_max(shared.options.segment_bytes).min(self.left());
            let taken = {
                let mut queue = shared.queue.lock();
                if queue.closed.is_some() {
                    return LogStep::Closed;
                }
                queue.take(frame_max)
            };
            let outcome = match taken {
                Taken::Nothing => return LogStep::Idle,
                Taken::Batch(batch) => return self.commit(shared, batch),
                Taken::NoRoom => self.rotate(shared),
            };
            match outcome {
                Ok(true) => {}
                Ok(false) => return LogStep::Stalled,
                Err(fault) => {
                    shared.poison(fault, Vec::new());
                    return LogStep::Closed;
                }
            }
        }
    }

    fn commit(&mut self, shared: &Shared, batch: Vec<Item>) -> LogStep {
        let outcome = self.write_batch(shared, &batch).and_then(|()| {
            if batch.iter().any(|item| item.flush) { self.record(shared) } else { Ok(()) }
        });
        if let Err(fault) = outcome {
            shared.poison(fault, batch);
            return LogStep::Closed;
        }
        for item in batch {
            if let Some(done) = item.done {
                done(Ok(()));
            }
        }
        LogStep::Wrote
    }

    /// Writes and syncs the records of a batch, then lets the index know where they are.
    fn write_batch(&mut self, shared: &Shared, batch: &[Item]) -> Result<(), Fault> {
        let records = batch.iter().map(|item| item.records.len()).sum();
        let mut places: Vec<(&Queued, u32)> = Vec::with_capacity(records);
        let mut buffer = std::mem::take(&mut self.frame);
        let bytes = batch.iter().map(Item::bytes).sum();
        let mut frame = FrameBuilder::new(&mut buffer, bytes);
        for record in batch.iter().flat_map(|item| &item.records) {
            let at = frame.push(&record.head, &record.payload);
            places.push((record, u32::try_from(self.end + at as u64).unwrap_or(u32::MAX)));
        }
        if places.is_empty() {
            self.frame = buffer;
            return Ok(());
        }
        let segment = self.sequence();
        let here = LogPlace { segment, offset: self.end };
        let seed = seed_of(&shared.disk_id);
        // All before this frame is synced, so it is durable up to where this one begins.
        let chain = frame.finish(FrameKind::Records, here, here, self.chain, seed);
        let outcome = self.output.write(&self.active.file, &buffer, self.end);
        self.end += buffer.len() as u64;
        self.keep(buffer);
        outcome?;
        if !planted::is(Bug::WrongChain) {
            self.chain = chain;
        }
        self.unrecorded = true;
        Counters::add(&shared.counters.frames, 1);
        Counters::add(&shared.counters.records, places.len() as u64);
        Counters::add(&shared.counters.frame_bytes, self.end - here.offset);
        self.note_written(shared, &places);
        Ok(())
    }

    fn note_written(&mut self, shared: &Shared, places: &[(&Queued, u32)]) {
        let segment = self.sequence();
        let mut removed = false;
        for run in places.chunk_by(|(before, _), (after, _)| before.is_followed_by(after)) {
            let Some((first, _)) = run.first() else { continue };
            let last = run.last().map_or(first, |(last, _)| last);
            let applied = match (&first.change, &last.change) {
                (Change::Entry { id: from, .. }, Change::Entry { id: to, .. }) => {
                    let of = (first.group, first.life);
                    self.written.apply_run(of, from.index, *to, segment)
                }
                (change, _) => self.written.apply(first.group, first.life, change, segment),
            };
            // The index refused what does not follow before it was queued.
            debug_assert!(applied.is_ok(), "{applied:?}");
            removed |=
                matches!(first.change, Change::Truncate(_) | Change::Purge(_) | Change::Drop);
        }
        let mut index = shared.index.write();
        for run in places.chunk_by(|(before, _), (after, _)| before.is_followed_by(after)) {
            if let Some((Queued { group, number, change: Change::Entry { id, .. }, .. }, _)) =
                run.first()
            {
                let offsets = run.iter().map(|(_, offset)| *offset);
                index.place(*group, id.index, *number, segment, offsets);
            }
        }
        index.evict(shared.options.recent_bytes_max);
        drop(index);
        self.publish(shared).commits += 1;
        if removed {
            self.retire(shared);
        }
    }

    /// Lets callers and the thread know where the writer stands.
    fn publish<'a>(&self, shared: &'a Shared) -> MutexGuard<'a, Queue> {
        let mut queue = shared.queue.lock();
        queue.active_left = self.left();
        queue.is_unrecorded = self.unrecorded;
        queue
    }

    /// Lets go of the segments in which no group has an entry any more.
    pub(super) fn retire(&self, shared: &Shared) {
        let active = self.sequence();
        let needed = self.written.oldest().map_or(active, |(segment, _)| segment.min(active));
        let mut index = shared.index.write();
        let needed = match planted::is(Bug::EarlyRecycle) {
            true => index.oldest_pins().map_or(active, |(segment, _)| segment.min(active)),
            false => needed,
        };
        let kept = index.segments.split_off(&needed);
        let retired = std::mem::replace(&mut index.segments, kept);
        drop(index);
        shared.keeper.retire(retired.into_values().map(|segment| segment.file.clone()));
        shared.keep_if_stepped();
        shared.refresh_outlook();
    }

    /// Writes a frame that records the last one as durable, and carries the lazy records.
    pub(super) fn record(&mut self, shared: &Shared) -> Result<(), Fault> {
        // If this fails to find room, or fails, there is nothing to try again.
        let unrecorded = std::mem::take(&mut self.unrecorded);
        shared.queue.lock().is_unrecorded = false;
        if self.left() < BLOCK_BYTES {
            // The header of the next segment says it as well.
            return if unrecorded { self.rotate(shared).map(|_| ()) } else { Ok(()) };
        }
        let room = frame_bytes_max(shared.options.segment_bytes).min(self.left());
        let lazy = shared.queue.lock().take_lazy(room.saturating_sub(FRAME_HEAD_BYTES as u64));
        if let Some(item) = lazy {
            self.write_batch(shared, &[item])?;
            // The lazy records were promised to nobody.
            self.unrecorded = false;
            drop(self.publish(shared));
            return Ok(());
        }
        if unrecorded { self.write_empty(shared) } else { Ok(()) }
    }

    /// Records, when the log is opened, that all that was found is durable.
    pub(super) fn record_start(&mut self, shared: &Shared) -> Result<(), Fault> {
        drop(self.publish(shared));
        if self.left() < BLOCK_BYTES { Ok(()) } else { self.write_empty(shared) }
    }

    /// Writes a frame without records.
    fn write_empty(&mut self, shared: &Shared) -> Result<(), Fault> {
        let here = LogPlace { segment: self.sequence(), offset: self.end };
        let mut buffer = std::mem::take(&mut self.frame);
        let frame = FrameBuilder::new(&mut buffer, 0);
        let seed = seed_of(&shared.disk_id);
        let chain = frame.finish(FrameKind::Records, here, here, self.chain, seed);
        self.output.write(&self.active.file, &buffer, self.end)?;
        self.end += buffer.len() as u64;
        self.frame = buffer;
        self.chain = chain;
        Counters::add(&shared.counters.frames, 1);
        Counters::add(&shared.counters.frame_bytes, self.end - here.offset);
        drop(self.publish(shared));
        Ok(())
    }

    /// Goes on in the next segment, if it is ready.
    pub(super) fn rotate(&mut self, shared: &Shared) -> Result<bool, Fault> {
        shared.keep_if_stepped();
        let file = match shared.keeper.next() {
            Next::Ready(file) => file,
            Next::Failed(fault) => return Err(fault),
            Next::Soon => {
                shared.refresh_outlook();
                return Ok(false);
            }
        };
        self.rotate_into(shared, file)?;
        self.retire(shared);
        shared.want_segment(self.sequence().saturating_add(1));
        Ok(true)
    }

    /// Seals the active segment at its end, and goes on in `file`.
    pub(super) fn rotate_into(&mut self, shared: &Shared, file: SegmentFile) -> Result<(), Fault> {
        let durable = LogPlace { segment: self.sequence(), offset: self.end };
        let mut buffer = std::mem::take(&mut self.frame);
        let output = Output::open(&*shared.files, &file, shared.writes_direct)?;
        let (id, written) = (&shared.disk_id, &self.written);
        let chain = write_header(&file, &output, id, written, durable, self.chain, &mut buffer)?;
        self.output = output;
        self.end = buffer.len() as u64;
        self.keep(buffer);
        self.chain = chain;
        self.active.seal();
        self.active = Segment::new(file, false);
        self.unrecorded = false;
        shared.index.write().segments.insert(self.sequence(), self.active.clone());
        drop(self.publish(shared));
        Counters::add(&shared.counters.segments_opened, 1);
        Ok(())
    }

    /// Takes a buffer to use again, unless one large frame has made it large.
    fn keep(&mut self, mut buffer: FrameBuffer) {
        buffer.keep_at_most(2 * FRAME_BYTES_MAX as usize);
        self.frame = buffer;
    }
}

/// Writes and syncs the frame that opens a segment; returns its CRC. `buffer` then is the frame.
pub(super) fn write_header(
    file: &SegmentFile,
    output: &Output,
    disk_id: &[u8; 16],
    written: &Written,
    durable: LogPlace,
    previous: u32,
    buffer: &mut FrameBuffer,
) -> Result<u32, Fault> {
    let mut frame = FrameBuilder::new(buffer, BLOCK_BYTES);
    header::encode(&mut frame, disk_id, file.bytes, written);
    let here = LogPlace { segment: file.sequence, offset: 0 };
    let chain = frame.finish(FrameKind::SegmentHeader, here, durable, previous, seed_of(disk_id));
    output.write(file, buffer, 0)?;
    Ok(chain)
}
