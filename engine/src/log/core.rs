//! What the log knows of a group, without its entries, and how each record changes it.
//!
//! The same few lines serve three times: for what callers see (which runs ahead of the disk), for
//! what is written (which segment headers state), and for recovery. That they agree is checked when
//! a log is opened: replaying the segments must give what each header says.
//!
//! Invariant: `purged < first ≤ last`, or `first` is none and `last` is `purged` or none.

use bytes::Bytes;

use super::record::Change;
use crate::LogId;

/// The life of a group that was never dropped.
pub(super) const FIRST_LIFE: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Core {
    pub(super) life: u32,
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    pub(super) checkpoint: Option<LogId>,
    /// Index of the first entry that is there.
    pub(super) first: Option<u64>,
    /// The last entry, or what was purged last.
    pub(super) last: Option<LogId>,
}

impl Default for Core {
    fn default() -> Self {
        Self {
            life: FIRST_LIFE,
            vote: None,
            committed: None,
            purged: None,
            checkpoint: None,
            first: None,
            last: None,
        }
    }
}

impl Core {
    /// Whether an entry may be appended: the one after the last; in an empty log any later one.
    pub(super) fn follows(&self, id: LogId) -> bool {
        match (self.first, self.last) {
            (Some(_), Some(last)) => Some(id.index) == last.index.checked_add(1),
            (_, Some(last)) => id.index > last.index,
            (_, None) => true,
        }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Entry { id, .. } => {
                self.first.get_or_insert(id.index);
                self.last = Some(*id);
            }
            Change::Vote(bytes) => self.vote = Some(bytes.clone()),
            Change::Committed(id) => self.committed = Some(*id),
            Change::Truncate(after) => self.truncate(*after),
            Change::Purge(upto) => self.purge(*upto),
            Change::Checkpoint(at) => self.checkpoint = Some(*at),
            Change::Drop => *self = Self { life: self.life.wrapping_add(1), ..Self::default() },
        }
    }

    /// Entries up to `last`, each the one after the one before; the first one [follows](Self::follows).
    pub(super) fn append_run(&mut self, first: u64, last: LogId) {
        self.first.get_or_insert(first);
        self.last = Some(last);
    }

    fn truncate(&mut self, after: Option<LogId>) {
        let Some(first) = self.first else { return };
        match after.filter(|after| after.index >= first) {
            Some(after) if self.last.is_some_and(|last| last.index <= after.index) => {}
            Some(after) => self.last = Some(after),
            None => {
                self.first = None;
                self.last = self.purged;
            }
        }
    }

    fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        self.purged = Some(upto);
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
            self.first = None;
        } else {
            self.first = self.first.map(|first| first.max(upto.index.saturating_add(1)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::PayloadKind;
    use super::*;

    fn entry(term: u64, index: u64) -> Change {
        Change::Entry { id: LogId::new(term, index), kind: PayloadKind::Blank, len: 0 }
    }

    fn with_entries(from: u64, to: u64) -> Core {
        let mut core = Core::default();
        for index in from..=to {
            assert!(core.follows(LogId::new(1, index)));
            core.apply(&entry(1, index));
        }
        core
    }

    #[test]
    fn entries_are_consecutive_but_an_empty_log_begins_anywhere() {
        let mut core = with_entries(7, 9);
        assert_eq!((core.first, core.last), (Some(7), Some(LogId::new(1, 9))));
        assert!(!core.follows(LogId::new(1, 9)) && !core.follows(LogId::new(1, 11)));
        core.apply(&Change::Truncate(None));
        assert_eq!((core.first, core.last), (None, None));
        assert!(core.follows(LogId::new(1, 3)));
    }

    #[test]
    fn truncating_keeps_what_is_purged_and_ignores_what_is_beyond_the_end() {
        let mut core = with_entries(0, 9);
        core.apply(&Change::Truncate(Some(LogId::new(1, 12))));
        assert_eq!(core.last, Some(LogId::new(1, 9)));
        core.apply(&Change::Truncate(Some(LogId::new(1, 5))));
        assert_eq!(core.last, Some(LogId::new(1, 5)));
        core.apply(&Change::Purge(LogId::new(1, 3)));
        core.apply(&Change::Truncate(None));
        assert_eq!((core.first, core.last), (None, Some(LogId::new(1, 3))));
    }

    #[test]
    fn purging_beyond_the_end_moves_the_log_there() {
        let mut core = with_entries(0, 4);
        core.apply(&Change::Purge(LogId::new(2, 20)));
        assert_eq!((core.first, core.last), (None, Some(LogId::new(2, 20))));
        assert!(!core.follows(LogId::new(2, 20)) && core.follows(LogId::new(2, 21)));
        core.apply(&Change::Purge(LogId::new(2, 10)));
        assert_eq!(core.purged, Some(LogId::new(2, 20)), "never backwards");
    }

    #[test]
    fn dropping_starts_a_new_life() {
        let mut core = with_entries(0, 4);
        core.apply(&Change::Vote(Bytes::from_static(b"v")));
        core.apply(&Change::Drop);
        assert_eq!(core, Core { life: 2, ..Core::default() });
    }
}
