//! What the frames written so far say, group by group: what the next segment header states, and
//! which segments are still needed.
//!
//! The writer applies a frame here after it was synced, so this never runs ahead of the disk, as
//! the index does. Segments are let go by this view only: an entry that was purged by a record
//! which is still queued would be missed after a crash.

use std::collections::{BTreeMap, VecDeque};

use super::core::Core;
use super::record::{Change, PayloadKind};
use crate::{GroupId, LogId};

/// A record that cannot stand where it stands; the log is damaged in a way that CRCs don't show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misplaced {
    #[error("a record of life {found} of group {group}, whose life is {life}")]
    Life { group: GroupId, found: u32, life: u32 },
    #[error("entry {index} of group {group} does not follow the one before it")]
    Entry { group: GroupId, index: u64 },
}

#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    groups: BTreeMap<GroupId, Group>,
}

#[derive(Clone, Debug, Default)]
struct Group {
    core: Core,
    /// Where entries stand, as (first index, segment): each run reaches to the next.
    runs: VecDeque<(u64, u64)>,
}

impl Written {
    pub(super) fn cores(&self) -> impl Iterator<Item = (GroupId, &Core)> {
        self.groups.iter().map(|(group, state)| (*group, &state.core))
    }

    /// Takes over a group's state from a segment header, when recovery starts there. Where its
    /// entries stand shows as they are met.
    pub(super) fn start(&mut self, group: GroupId, core: Core) {
        self.groups.insert(group, Group { core, runs: VecDeque::new() });
    }

    /// Applies a record that stands in `segment`.
    pub(super) fn apply(
        &mut self,
        group: GroupId,
        life: u32,
        change: &Change,
        segment: u64,
    ) -> Result<(), Misplaced> {
        let state = self.groups.entry(group).or_default();
        let Group { core, runs } = state;
        if core.life != life {
            return Err(Misplaced::Life { group, found: life, life: core.life });
        }
        if let Change::Entry { id, .. } = change {
            if !core.follows(*id) {
                return Err(Misplaced::Entry { group, index: id.index });
            }
            if runs.back().is_none_or(|(_, last)| *last != segment) {
                runs.push_back((id.index, segment));
            }
        }
        core.apply(change);
        if matches!(change, Change::Truncate(_) | Change::Purge(_) | Change::Drop) {
            state.trim();
        }
        Ok(())
    }

    /// Applies entries that follow each other and stand in `segment`, from `first` to `last.index`.
    pub(super) fn apply_run(
        &mut self,
        (group, life): (GroupId, u32),
        first: u64,
        last: LogId,
        segment: u64,
    ) -> Result<(), Misplaced> {
        let begin =
            Change::Entry { id: LogId::new(last.term, first), kind: PayloadKind::Blank, len: 0 };
        self.apply(group, life, &begin, segment)?;
        if let Some(state) = self.groups.get_mut(&group) {
            state.core.append_run(first, last);
        }
        Ok(())
    }

    /// The oldest segment in which a group has an entry, and a group that has.
    pub(super) fn oldest(&self) -> Option<(u64, GroupId)> {
        let firsts = self.groups.iter().filter_map(|(g, s)| Some((s.runs.front()?.1, *g)));
        firsts.min()
    }
}

impl Group {
    fn trim(&mut self) {
        let (Some(first), Some(last)) = (self.core.first, self.core.last) else {
            self.runs.clear();
            return;
        };
        while self.runs.back().is_some_and(|(from, _)| *from > last.index) {
            self.runs.pop_back();
        }
        while self.runs.get(1).is_some_and(|(from, _)| *from <= first) {
            self.runs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> Change {
        Change::Entry { id: LogId::new(1, index), kind: PayloadKind::Blank, len: 0 }
    }

    #[test]
    fn a_segment_is_needed_as_long_as_an_entry_in_it_is() {
        let mut written = Written::default();
        for index in 0..30 {
            written.apply(1, 1, &entry(index), 1 + index / 10).unwrap();
        }
        written.apply(2, 1, &entry(5), 2).unwrap();
        assert_eq!(written.oldest(), Some((1, 1)));
        written.apply(1, 1, &Change::Purge(LogId::new(1, 8)), 3).unwrap();
        assert_eq!(written.oldest(), Some((1, 1)), "entry 9 is still there");
        written.apply(1, 1, &Change::Purge(LogId::new(1, 9)), 3).unwrap();
        assert_eq!(written.oldest(), Some((2, 1)));
        written.apply(1, 1, &Change::Purge(LogId::new(1, 25)), 3).unwrap();
        assert_eq!(written.oldest(), Some((2, 2)));
        written.apply(2, 1, &Change::Drop, 3).unwrap();
        assert_eq!(written.oldest(), Some((3, 1)));
    }

    #[test]
    fn truncating_and_appending_again_moves_entries_to_the_newer_segment() {
        let mut written = Written::default();
        for index in 0..10 {
            written.apply(1, 1, &entry(index), 1).unwrap();
        }
        written.apply(1, 1, &Change::Truncate(None), 2).unwrap();
        assert_eq!(written.oldest(), None);
        written.apply(1, 1, &entry(0), 2).unwrap();
        assert_eq!(written.oldest(), Some((2, 1)));
    }

    #[test]
    fn records_of_another_life_or_out_of_order_are_refused() {
        let mut written = Written::default();
        written.apply(1, 1, &entry(0), 1).unwrap();
        let misplaced = written.apply(1, 1, &entry(2), 1).unwrap_err();
        assert_eq!(misplaced, Misplaced::Entry { group: 1, index: 2 });
        let misplaced = written.apply(1, 2, &entry(1), 1).unwrap_err();
        assert_eq!(misplaced, Misplaced::Life { group: 1, found: 2, life: 1 });
    }
}
