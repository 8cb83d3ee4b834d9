//! The ids that are remembered, in the order in which they came, in blocks that snapshots share.
//!
//! Every id has an *ordinal*: how many came before it. Ordinals are this replica's own affair, for
//! checkpoints to say which ids they cover; they are never compared between replicas.

use std::{collections::VecDeque, sync::Arc};

use super::IdHash;
use crate::limits::DEDUP_BLOCK_IDS;

/// One id, and the seq that it got.
pub(crate) type Entry = (IdHash, u64);

/// A queue of ids: added at the back, dropped at the front by whole blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ids {
    /// Ordinal of the first id of the first block.
    base: u64,
    /// Blocks that are full, and so never change again.
    full: VecDeque<Arc<[Entry]>>,
    /// The newest ids, fewer than a block.
    last: Vec<Entry>,
}

impl Ids {
    /// An empty queue whose first id will have this ordinal.
    pub(crate) fn starting_at(base: u64) -> Self {
        Self { base, ..Self::default() }
    }

    /// The ordinal that the next id will have.
    pub(crate) fn next(&self) -> u64 {
        self.base + (self.full.len() * DEDUP_BLOCK_IDS + self.last.len()) as u64
    }

    /// The seq of the newest id; 0: there is none.
    pub(crate) fn last_seq(&self) -> u64 {
        let full = || self.full.back().and_then(|block| block.last());
        self.last.last().or_else(full).map_or(0, |(_, seq)| *seq)
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.last.push(entry);
        if self.last.len() == DEDUP_BLOCK_IDS {
            self.full.push_back(self.last.as_slice().into());
            self.last.clear();
        }
    }

    pub(crate) fn get(&self, ordinal: u64) -> Option<&Entry> {
        let at = usize::try_from(ordinal.checked_sub(self.base)?).ok()?;
        let (block, at) = (at / DEDUP_BLOCK_IDS, at % DEDUP_BLOCK_IDS);
        match self.full.get(block) {
            Some(block) => block.get(at),
            None if block == self.full.len() => self.last.get(at),
            None => None,
        }
    }

    /// The ids from an ordinal on.
    pub(crate) fn from(&self, ordinal: u64) -> impl Iterator<Item = &Entry> {
        let skip = usize::try_from(ordinal.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let blocks = self.full.iter().skip(skip / DEDUP_BLOCK_IDS);
        let ids = blocks.flat_map(|block| block.iter()).chain(&self.last);
        ids.skip(skip - DEDUP_BLOCK_IDS * (skip / DEDUP_BLOCK_IDS).min(self.full.len()))
    }

    /// Gives back the blocks that lie wholly below an ordinal.
    pub(crate) fn drop_below(&mut self, ordinal: u64) {
        while self.base + DEDUP_BLOCK_IDS as u64 <= ordinal && self.full.pop_front().is_some() {
            self.base += DEDUP_BLOCK_IDS as u64;
        }
        if self.full.is_empty() && self.next() == ordinal {
            // Nothing is remembered, so nothing need be held for it.
            *self = Self::starting_at(ordinal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_their_ordinals_while_blocks_go() {
        let mut ids = Ids::starting_at(7);
        let count = DEDUP_BLOCK_IDS as u64 * 3 + 5;
        for number in 7..7 + count {
            assert_eq!(ids.next(), number);
            ids.push((IdHash(number, 0), number));
        }
        for drop in [0, 7, 8, 7 + DEDUP_BLOCK_IDS as u64, 6 + count] {
            ids.drop_below(drop);
            for from in [drop.max(7), 6 + count, 7 + count] {
                let found: Vec<u64> = ids.from(from).map(|(_, seq)| *seq).collect();
                assert_eq!(found, (from..7 + count).collect::<Vec<_>>(), "from {from}");
            }
            assert_eq!(ids.get(drop.max(7)).map(|(_, seq)| *seq), Some(drop.max(7)));
        }
        assert!(ids.full.is_empty() && ids.get(7).is_none());
        ids.drop_below(7 + count);
        assert_eq!((ids.next(), ids.get(6 + count)), (7 + count, None));
    }
}
