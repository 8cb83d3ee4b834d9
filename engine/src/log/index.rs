//! Where every entry is, in memory: what reads look up.
//!
//! The index shows what was *appended*, at once, and so runs ahead of the disk. An entry that is
//! not written yet is served from memory; for a while (bounded in bytes and entries) it still is
//! after that, because the state machine and followers read what was just appended.
//!
//! ```text
//! group ─ core (purged, first, last, …)
//!       ├ slots   [base ..= last]   term, segment, offset, length: 24 bytes an entry
//!       └ recent            [.. last]   payloads: a suffix of the slots; never less than what is
//!                                       not written yet
//! ```
//!
//! After a recovery that began in the midst of a group's log, `base` may be above `core.first` until
//! the purge record that explains it is met; [`Index::gap`] finds what is missing at the end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::core::{Core, FIRST_LIFE};
use super::limits::RECENT_ENTRIES_MAX;
use super::record::{Change, HEAD_BYTES, PayloadKind, payload_parts};
use super::segment::{RecordPlace, Segment};
use crate::{EntryPayload, GroupId, LogId};

/// An entry that is not written yet stands in no segment.
const UNWRITTEN: u64 = 0;
/// What keeping a payload in memory costs beside its bytes.
const RECENT_OVERHEAD_BYTES: usize = 64;

#[derive(Clone, Copy)]
struct Slot {
    term: u64,
    segment: u64,
    offset: u32,
    len: u32,
}

struct Recent {
    /// Counts all entries ever appended: tells an entry from another that was at its index before.
    number: u64,
    payload: EntryPayload,
}

#[derive(Default)]
pub(super) struct Group {
    pub(super) core: Core,
    base: u64,
    slots: VecDeque<Slot>,
    recent: VecDeque<Recent>,
    /// Bytes of the entries in the log, heads included.
    bytes: u64,
}

/// Where the payload of an entry is to be had.
pub(super) enum Source {
    Memory(EntryPayload),
    Segment(Arc<Segment>, RecordPlace),
}

#[derive(Default)]
pub(super) struct Index {
    groups: BTreeMap<GroupId, Group>,
    /// Segments that are read; retired ones have left.
    pub(super) segments: BTreeMap<u64, Arc<Segment>>,
    /// The order in which payloads leave memory; may name some that have left already.
    order: VecDeque<(GroupId, u64)>,
    recent_bytes: usize,
    numbers: u64,
    /// Entries up to this number are on the disk.
    written: u64,
}

impl Index {
    pub(super) fn group(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(&group)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        self.groups.iter().map(|(id, group)| (*id, group))
    }

    pub(super) fn groups_len(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn recent_bytes(&self) -> usize {
        self.recent_bytes
    }

    pub(super) fn life(&self, group: GroupId) -> u32 {
        self.groups.get(&group).map_or(FIRST_LIFE, |group| group.core.life)
    }

    /// Takes over a group's state from a segment header.
    pub(super) fn start(&mut self, group: GroupId, core: Core) {
        self.groups.insert(group, Group { core, ..Group::default() });
    }

    /// Applies a record that a caller appends; returns the number of its entry, else 0.
    pub(super) fn append(
        &mut self,
        id: GroupId,
        change: &Change,
        payload: Option<EntryPayload>,
    ) -> u64 {
        let group = self.groups.entry(id).or_default();
        group.apply(change, UNWRITTEN, 0, &mut self.recent_bytes);
        let Some(payload) = payload else { return 0 };
        self.numbers += 1;
        let number = self.numbers;
        self.recent_bytes += recent_cost(&payload);
        group.recent.push_back(Recent { number, payload });
        self.order.push_back((id, number));
        number
    }

    /// Applies a record that stands in a segment, while the log is recovered.
    pub(super) fn recover(&mut self, id: GroupId, change: &Change, segment: u64, offset: u32) {
        let group = self.groups.entry(id).or_default();
        group.apply(change, segment, offset, &mut self.recent_bytes);
    }

    /// Applies entries that follow each other and stand in a segment, while the log is recovered:
    /// the first index, the term, and the place and length of each.
    pub(super) fn recover_run(
        &mut self,
        id: GroupId,
        first: LogId,
        segment: u64,
        places: &[(u32, u32)],
    ) {
        let Some(last) = (places.len() as u64).checked_sub(1) else { return };
        let group = self.groups.entry(id).or_default();
        if group.slots.is_empty() {
            group.base = first.index;
        }
        let last = LogId::new(first.term, first.index.saturating_add(last));
        group.core.append_run(first.index, last);
        let slot = |&(offset, len): &(u32, u32)| Slot { term: first.term, segment, offset, len };
        group.slots.extend(places.iter().map(slot));
        group.bytes += places.iter().map(|(_, len)| slot_bytes(*len)).sum::<u64>();
    }

    /// Notes where entries were written that follow each other and were appended one after the
    /// other, the first at `at` with this number, unless they have been removed since.
    pub(super) fn place(
        &mut self,
        id: GroupId,
        at: u64,
        number: u64,
        segment: u64,
        offsets: impl ExactSizeIterator<Item = u32>,
    ) {
        let last = number.saturating_add(offsets.len() as u64).saturating_sub(1);
        self.written = self.written.max(last);
        let Some(group) = self.groups.get_mut(&id) else { return };
        let recent_from = group.slots.len().saturating_sub(group.recent.len());
        for (after, offset) in (0..).zip(offsets) {
            let Some(nth) = group.nth(at + after) else { continue };
            let recent = nth.checked_sub(recent_from).and_then(|nth| group.recent.get(nth));
            if recent.is_some_and(|recent| recent.number == number + after)
                && let Some(slot) = group.slots.get_mut(nth)
            {
                slot.segment = segment;
                slot.offset = offset;
            }
        }
    }

    /// Lets go of the oldest payloads in memory beyond `bytes_max`, but of none that isn't written.
    pub(super) fn evict(&mut self, bytes_max: usize) {
        while let Some(&(id, _)) = self.order.front() {
            let mut group = self.groups.get_mut(&id);
            while let Some(&(_, number)) = self.order.front().filter(|(of, _)| *of == id) {
                let recent = group.as_mut();
                let recent =
                    recent.filter(|g| g.recent.front().is_some_and(|r| r.number == number));
                if let Some(group) = recent {
                    let full =
                        self.recent_bytes > bytes_max || self.order.len() > RECENT_ENTRIES_MAX;
                    if !full || number > self.written {
                        return;
                    }
                    group.forget_oldest(&mut self.recent_bytes);
                }
                self.order.pop_front();
            }
        }
    }

    /// Where an entry of a group is.
    pub(super) fn source(&self, id: GroupId, at: u64) -> Option<(LogId, usize, Source)> {
        let group = self.groups.get(&id)?;
        let nth = group.nth(at)?;
        let slot = group.slots.get(nth)?;
        let log_id = LogId::new(slot.term, at);
        let recent_from = group.slots.len().checked_sub(group.recent.len())?;
        let source = match nth.checked_sub(recent_from).and_then(|nth| group.recent.get(nth)) {
            Some(recent) => Source::Memory(recent.payload.clone()),
            None => {
                let segment = self.segments.get(&slot.segment)?.clone();
                let (offset, len) = (slot.offset, slot.len);
                Source::Segment(segment, RecordPlace { group: id, id: log_id, offset, len })
            }
        };
        Some((log_id, slot.len as usize, source))
    }

    /// The oldest segment in which an entry stands, and the groups that have one in it.
    pub(super) fn oldest_pins(&self) -> Option<(u64, Vec<GroupId>)> {
        let firsts = |group: &Group| group.slots.front().map(|slot| slot.segment);
        let written = |segment: &u64| *segment != UNWRITTEN;
        let oldest = self.groups.values().filter_map(firsts).filter(written).min()?;
        let pins = self.groups.iter().filter(|(_, group)| firsts(group) == Some(oldest));
        Some((oldest, pins.map(|(id, _)| *id).collect()))
    }

    /// A group whose entries are not all there, and the first index that is missing.
    pub(super) fn gap(&self) -> Option<(GroupId, u64)> {
        self.groups.iter().find_map(|(id, group)| Some((*id, group.missing()?)))
    }
}

impl Group {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The indexes of the entries that are there.
    pub(super) fn indexes(&self) -> std::ops::Range<u64> {
        self.base..self.base.saturating_add(self.slots.len() as u64)
    }

    /// The log id of an entry that is there, or of the last purged one.
    pub(super) fn log_id_at(&self, index: u64) -> Option<LogId> {
        if let Some(purged) = self.core.purged.filter(|purged| purged.index == index) {
            return Some(purged);
        }
        let slot = self.slots.get(self.nth(index)?)?;
        Some(LogId::new(slot.term, index))
    }

    fn nth(&self, index: u64) -> Option<usize> {
        let nth = usize::try_from(index.checked_sub(self.base)?).ok()?;
        (nth < self.slots.len()).then_some(nth)
    }

    fn apply(&mut self, change: &Change, segment: u64, offset: u32, recent_bytes: &mut usize) {
        self.core.apply(change);
        match change {
            Change::Entry { id, len, .. } => {
                if self.slots.is_empty() {
                    self.base = id.index;
                }
                self.slots.push_back(Slot { term: id.term, segment, offset, len: *len });
                self.bytes += slot_bytes(*len);
            }
            Change::Truncate(_) | Change::Purge(_) | Change::Drop => self.trim(recent_bytes),
            Change::Vote(_) | Change::Committed(_) | Change::Checkpoint(_) => {}
        }
    }

    /// Removes the slots outside of what the core says is there.
    fn trim(&mut self, recent_bytes: &mut usize) {
        let (first, end) = match (self.core.first, self.core.last) {
            (Some(first), Some(last)) => (first, last.index.saturating_add(1)),
            _ => (u64::MAX, 0),
        };
        while self.base.saturating_add(self.slots.len() as u64) > end {
            let Some(slot) = self.slots.pop_back() else { break };
            self.bytes = self.bytes.saturating_sub(slot_bytes(slot.len));
            if let Some(recent) = self.recent.pop_back() {
                *recent_bytes = recent_bytes.saturating_sub(recent_cost(&recent.payload));
            }
        }
        while self.base < first {
            let Some(slot) = self.slots.pop_front() else { break };
            self.base += 1;
            self.bytes = self.bytes.saturating_sub(slot_bytes(slot.len));
            if self.recent.len() > self.slots.len() {
                self.forget_oldest(recent_bytes);
            }
        }
    }

    fn forget_oldest(&mut self, recent_bytes: &mut usize) {
        if let Some(recent) = self.recent.pop_front() {
            *recent_bytes = recent_bytes.saturating_sub(recent_cost(&recent.payload));
        }
    }

    fn missing(&self) -> Option<u64> {
        let Core { first, last, .. } = &self.core;
        let (Some(first), Some(last)) = (*first, *last) else { return None };
        if self.slots.is_empty() || self.base > first {
            return Some(first);
        }
        let end = self.base.saturating_add(self.slots.len() as u64);
        (end <= last.index).then_some(end)
    }
}

fn slot_bytes(len: u32) -> u64 {
    HEAD_BYTES as u64 + u64::from(len)
}

fn recent_cost(payload: &EntryPayload) -> usize {
    RECENT_OVERHEAD_BYTES + payload_parts(payload).1.len()
}

/// The payload of an entry as it is given to callers.
pub(super) fn payload_of(change: &Change, bytes: &bytes::Bytes) -> Option<EntryPayload> {
    let Change::Entry { kind, .. } = change else { return None };
    let kind: PayloadKind = *kind;
    Some(kind.with(bytes.clone()))
}

#[cfg(test)]
#[path = "index/tests.rs"]
mod tests;
