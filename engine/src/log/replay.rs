//! Checks segments while a log is recovered, on several threads, and applies them in order.
//!
//! ```text
//!  threads: read, check every CRC, note where records stand ──▶ in order: index, written, states
//! ```
//! A segment can be checked alone: its header and the next one's say where it begins and ends. What
//! its records mean depends on those before, so they are applied by one thread, oldest first. That
//! thread checks segments itself while the one it needs is not ready. Entries that follow each other
//! are noted as runs of eight bytes an entry.

use std::collections::BTreeMap;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::error::{Fault, LogOpenError};
use super::frame::{FRAME_HEAD_BYTES, FrameKind};
use super::index::Index;
use super::limits::RECOVERY_AHEAD_MAX;
use super::record::{BadRecord, Change, Found, HEAD_BYTES};
use super::recovery::{LogEnd, Opened, Recovery};
use super::scan::{BadFrame, Scanner, Step};
use super::written::{Misplaced, Written};
use crate::{GroupId, LogId};

/// What a segment holds, checked but for what depends on older ones.
pub(super) struct Checked {
    pieces: Vec<Piece>,
    /// Offset and length of the entries of all runs, in order.
    places: Vec<(u32, u32)>,
    pub(super) end: LogEnd,
}

enum Piece {
    /// Entries of a group and life, of one term, from an index on.
    Run {
        group: GroupId,
        life: u32,
        first: LogId,
        entries: usize,
    },
    Other {
        group: GroupId,
        life: u32,
        change: Change,
        offset: u32,
    },
}

impl Checked {
    /// Notes the records of a frame at `at`, whose CRCs are right.
    fn note(&mut self, mut records: &[u8], at: u64) -> Result<(), BadRecord> {
        let mut offset = at.saturating_add(FRAME_HEAD_BYTES as u64);
        while !records.is_empty() {
            let (found, rest) = Found::first_checked(records)?;
            records = rest;
            // Offsets in a segment fit 32 bits: `SEGMENT_BYTES_MAX`.
            let place = u32::try_from(offset).unwrap_or(u32::MAX);
            offset += (HEAD_BYTES + found.payload.len()) as u64;
            let (group, life) = (found.head.group, found.head.life);
            match found.change()? {
                Change::Entry { id, len, .. } => self.note_entry(group, life, id, (place, len)),
                change => self.pieces.push(Piece::Other { group, life, change, offset: place }),
            }
        }
        Ok(())
    }

    fn note_entry(&mut self, of: GroupId, in_life: u32, id: LogId, place: (u32, u32)) {
        self.places.push(place);
        if let Some(Piece::Run { group, life, first, entries }) = self.pieces.last_mut()
            && (*group, *life, first.term) == (of, in_life, id.term)
            && first.index.checked_add(*entries as u64) == Some(id.index)
        {
            *entries += 1;
            return;
        }
        self.pieces.push(Piece::Run { group: of, life: in_life, first: id, entries: 1 });
    }

    /// Applies the records; refuses with the offset of one that cannot stand where it stands.
    pub(super) fn apply(
        &self,
        segment: u64,
        index: &mut Index,
        written: &mut Written,
    ) -> Result<(), (u64, Misplaced)> {
        let mut places = self.places.as_slice();
        for piece in &self.pieces {
            match piece {
                Piece::Run { group, life, first, entries } => {
                    let Some((run, rest)) = places.split_at_checked(*entries) else {
                        return Ok(());
                    };
                    places = rest;
                    let at = run.first().map_or(0, |(offset, _)| u64::from(*offset));
                    let last = first.index.saturating_add((*entries as u64).saturating_sub(1));
                    let last = LogId::new(first.term, last);
                    let of = (*group, *life);
                    let applied = written.apply_run(of, first.index, last, segment);
                    applied.map_err(|misplaced| (at, misplaced))?;
                    index.recover_run(*group, *first, segment, run);
                }
                Piece::Other { group, life, change, offset } => {
                    let applied = written.apply(*group, *life, change, segment);
                    applied.map_err(|misplaced| (u64::from(*offset), misplaced))?;
                    index.recover(*group, change, segment, *offset);
                }
            }
        }
        Ok(())
    }
}

/// What the threads share.
struct Work {
    /// The next segment that nobody has begun.
    next: usize,
    /// Segments that are applied.
    applied: usize,
    done: BTreeMap<usize, Result<Checked, LogOpenError>>,
    stop: bool,
}

impl Work {
    fn begin(&mut self, segments: usize, ahead: usize) -> Option<usize> {
        let nth = self.next;
        let open = nth < segments && nth < self.applied + ahead && !self.stop;
        self.next += usize::from(open);
        open.then_some(nth)
    }
}

impl Recovery<'_> {
    /// Checks all segments and hands them over, oldest first.
    pub(super) fn check_segments(
        &self,
        row: &[Opened],
        apply: &mut dyn FnMut(&Opened, &Checked) -> Result<(), LogOpenError>,
    ) -> Result<(), LogOpenError> {
        let threads = self.threads.min(row.len()).max(1);
        let ahead = threads + RECOVERY_AHEAD_MAX;
        let work = Work { next: 0, applied: 0, done: BTreeMap::new(), stop: false };
        let (work, changed) = (Mutex::new(work), Condvar::new());
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| self.check_for(row, ahead, &work, &changed));
            }
            let outcome = self.apply_all(row, ahead, &work, &changed, apply);
            work.lock().stop = true;
            changed.notify_all();
            outcome
        })
    }

    fn check_for(&self, row: &[Opened], ahead: usize, work: &Mutex<Work>, changed: &Condvar) {
        let mut window = Vec::new();
        let mut state = work.lock();
        while !state.stop && state.next < row.len() {
            let Some(nth) = state.begin(row.len(), ahead) else {
                changed.wait(&mut state);
                continue;
            };
            drop(state);
            let checked = self.check_nth(row, nth, &mut window);
            state = work.lock();
            state.done.extend(checked.map(|checked| (nth, checked)));
            changed.notify_all();
        }
    }

    fn apply_all(
        &self,
        row: &[Opened],
        ahead: usize,
        work: &Mutex<Work>,
        changed: &Condvar,
        apply: &mut dyn FnMut(&Opened, &Checked) -> Result<(), LogOpenError>,
    ) -> Result<(), LogOpenError> {
        let mut window = Vec::new();
        for (nth, opened) in row.iter().enumerate() {
            let checked = loop {
                let mut state = work.lock();
                if let Some(checked) = state.done.remove(&nth) {
                    break checked?;
                }
                let Some(mine) = state.begin(row.len(), ahead) else {
                    changed.wait(&mut state);
                    continue;
                };
                drop(state);
                let checked = self.check_nth(row, mine, &mut window);
                work.lock().done.extend(checked.map(|checked| (mine, checked)));
            };
            apply(opened, &checked)?;
            work.lock().applied += 1;
            changed.notify_all();
        }
        Ok(())
    }

    fn check_nth(
        &self,
        row: &[Opened],
        nth: usize,
        window: &mut Vec<u8>,
    ) -> Option<Result<Checked, LogOpenError>> {
        Some(self.check_segment(row.get(nth)?, row.get(nth + 1), window))
    }

    /// Goes through the frames of a segment: up to where `next` says it ends, or as far as they go.
    fn check_segment(
        &self,
        opened: &Opened,
        next: Option<&Opened>,
        window: &mut Vec<u8>,
    ) -> Result<Checked, LogOpenError> {
        let (file, path, sequence) = (&opened.file.file, &opened.file.path, opened.file.sequence);
        let fault = |e| LogOpenError::from(Fault::new("read", path, e));
        let sealed_at = next.map(|next| next.head.durable.offset);
        if next.is_some_and(|next| next.head.durable.segment != sequence) {
            return Err(self.corrupt(path, 0, "the segment after it ends another one"));
        }
        let taken = std::mem::take(window);
        let mut scanner = Scanner::new(&**file, sequence, self.seed, taken).map_err(fault)?;
        let last_frame = (0, opened.head);
        let end = LogEnd { offset: 0, chain: opened.chain, torn: false, last_frame };
        let mut checked = Checked { pieces: Vec::new(), places: Vec::new(), end };
        while sealed_at != Some(scanner.at()) {
            let at = scanner.at();
            match scanner.step().map_err(fault)? {
                Step::Frame(head) if sealed_at.is_none_or(|end| scanner.at() <= end) => {
                    checked.end.last_frame = (at, head);
                    if head.kind == FrameKind::Records {
                        let noted = checked.note(scanner.records(), at);
                        noted.map_err(|bad| self.corrupt(path, at, bad.to_string()))?;
                    }
                }
                Step::Bad(BadFrame::Version(found)) => return Err(self.version(path, found)),
                step if sealed_at.is_some() => {
                    let what = match step {
                        Step::Bad(bad) => bad.to_string(),
                        _ => "a frame that was durable is gone".to_owned(),
                    };
                    return Err(self.corrupt(path, at, what));
                }
                step => {
                    if let Some(beyond) = scanner.beyond().map_err(fault)? {
                        return Err(self.no_end(path, at, beyond, step));
                    }
                    checked.end.torn = matches!(step, Step::Bad(_));
                    break;
                }
            }
        }
        checked.end.offset = scanner.at();
        checked.end.chain = scanner.chain().unwrap_or(checked.end.chain);
        *window = scanner.into_window();
        Ok(checked)
    }
}
