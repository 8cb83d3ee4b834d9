//! What a device acknowledged before this connection delivered it: it has the message from an
//! earlier connection.

use std::collections::BTreeSet;

use crate::limits::AHEAD_SEQS_MAX;

#[derive(Debug, Default)]
pub(super) struct Ahead {
    up_to: u64,
    seqs: BTreeSet<u64>,
}

impl Ahead {
    /// Remembers what lies above `high`. Beyond the bound the highest are forgotten: the device
    /// acknowledges them when they are delivered.
    pub(super) fn add(&mut self, up_to: u64, seqs: &[u64], high: u64) {
        self.up_to = self.up_to.max(up_to);
        self.seqs = self.seqs.split_off(&high.saturating_add(1).max(self.up_to));
        self.seqs.extend(seqs.iter().filter(|seq| **seq > high));
        while self.seqs.len() > AHEAD_SEQS_MAX {
            self.seqs.pop_last();
        }
    }

    /// Whether nothing above `high` is remembered.
    pub(super) fn is_behind(&self, high: u64) -> bool {
        self.up_to <= high && self.seqs.last().is_none_or(|last| *last <= high)
    }

    /// Whether the device has it. Asked once for each seq.
    pub(super) fn covers(&mut self, seq: u64) -> bool {
        self.seqs.remove(&seq) || seq <= self.up_to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_a_prefix_and_single_seqs_within_bounds() {
        let mut ahead = Ahead::default();
        ahead.add(10, &[5, 12, 15], 7);
        assert!(ahead.covers(8) && ahead.covers(10) && ahead.covers(12));
        assert!(!ahead.covers(11) && !ahead.covers(12));
        let many: Vec<u64> = (100..100 + 2 * AHEAD_SEQS_MAX as u64).collect();
        ahead.add(0, &many, 99);
        assert!(ahead.seqs.len() <= AHEAD_SEQS_MAX && ahead.covers(100));
    }
}
