//! Where the tables of a shard's users lie: blocks of slots, in memory that stays words.
//!
//! ```text
//!   chunk, 24 MiB ──▶ 1,024 large blocks of 512 slots ──▶ each may be cut into 8 small ones of 64
//! ```
//! A block is named by the number of its first small block. A freed block is used again, by whichever
//! table needs one next; while the arena lives nothing is unmapped, so who looks at a block that has
//! gone elsewhere reads words, and finds out by the version (see `version`). Small blocks that are free
//! again grow together into large ones, so that a shard whose tables have all grown leaves nothing behind.

use std::{
    collections::BTreeMap,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering, fence},
    },
};

use parking_lot::Mutex;

use super::{memory::Words, slot::SLOT_WORDS};
use crate::limits::USER_CHUNKS_MAX;

/// Slots of a small block.
pub(super) const SMALL_SLOTS: usize = 64;
/// Small blocks in a large one.
const SMALL_IN_LARGE: u32 = 8;
/// Slots of a large block.
pub(super) const LARGE_SLOTS: usize = SMALL_SLOTS * SMALL_IN_LARGE as usize;
/// Small blocks in a chunk.
const SMALL_IN_CHUNK: u32 = 8_192;
const SMALL_WORDS: usize = SMALL_SLOTS * SLOT_WORDS;
const CHUNK_WORDS: usize = SMALL_IN_CHUNK as usize * SMALL_WORDS;
/// All small blocks of a large one are free.
const WHOLE: u8 = u8::MAX;

/// The two sizes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Small,
    Large,
}

impl Size {
    #[inline]
    pub(super) fn slots(self) -> usize {
        match self {
            Self::Small => SMALL_SLOTS,
            Self::Large => LARGE_SLOTS,
        }
    }
}

/// Blocks that nobody uses.
#[derive(Debug, Default)]
struct Free {
    /// The first block that was never used.
    next: u32,
    large: Vec<u32>,
    /// Large blocks that are cut, by number: a bit for each small one that is free.
    cut: BTreeMap<u32, u8>,
}

/// All blocks of a shard.
#[derive(Debug)]
pub(super) struct Arena {
    /// Grows by one at a time, and never shrinks.
    chunks: Box<[OnceLock<Words>]>,
    /// A lock, because a checkpoint may write to one bucket while `apply` writes to another.
    free: Mutex<Free>,
}

impl Arena {
    pub(super) fn new() -> Self {
        let chunks = (0..USER_CHUNKS_MAX).map(|_| OnceLock::new()).collect();
        Self { chunks, free: Mutex::default() }
    }

    /// The words from the first of a block to the end of its chunk. `None` for a number that is
    /// none, which a reader that comes too late may hold.
    #[inline]
    pub(super) fn words_from(&self, block: u32) -> Option<&[AtomicU64]> {
        let chunk = self.chunks.get((block / SMALL_IN_CHUNK) as usize)?.get()?;
        chunk.words().get((block % SMALL_IN_CHUNK) as usize * SMALL_WORDS..)
    }

    /// A block that was never used or was freed, with whatever is in it. `None` when there is no
    /// memory left for one.
    pub(super) fn take(&self, size: Size) -> Option<u32> {
        let mut free = self.free.lock();
        let block = match size {
            Size::Large => self.take_large(&mut free),
            Size::Small => self.take_small(&mut free),
        };
        // Who reads what is written here from now on sees that its table has moved on, whichever
        // thread took it out of the table (see `version`).
        fence(Ordering::Release);
        block
    }

    fn take_large(&self, free: &mut Free) -> Option<u32> {
        if let Some(block) = free.large.pop() {
            return Some(block);
        }
        let chunk = (free.next / SMALL_IN_CHUNK) as usize;
        let place = self.chunks.get(chunk)?;
        if place.get().is_none() {
            // Most shards of a small cluster are small: their pages should be small, too.
            let words = if chunk == 0 { Words::new } else { Words::huge }(CHUNK_WORDS).ok()?;
            place.get_or_init(|| words);
        }
        let block = free.next;
        free.next += SMALL_IN_LARGE;
        Some(block)
    }

    fn take_small(&self, free: &mut Free) -> Option<u32> {
        // The lowest, so that those further up become whole.
        let (large, bits) = match free.cut.pop_first() {
            Some(cut) => cut,
            None => (self.take_large(free)?, WHOLE),
        };
        let first = bits.trailing_zeros();
        let left = bits & (bits - 1);
        if left != 0 {
            free.cut.insert(large, left);
        }
        Some(large + first)
    }

    /// Gives a block back. Its table no longer names it.
    pub(super) fn give(&self, size: Size, block: u32) {
        let mut free = self.free.lock();
        if size == Size::Large {
            free.large.push(block);
            return;
        }
        let large = block - block % SMALL_IN_LARGE;
        let bits = free.cut.entry(large).or_default();
        *bits |= 1 << (block % SMALL_IN_LARGE);
        if *bits == WHOLE {
            free.cut.remove(&large);
            free.large.push(large);
        }
    }

    /// Gives all memory back to the system; readers may go on, and find zeros.
    pub(super) fn discard(&self) {
        self.chunks.iter().filter_map(OnceLock::get).for_each(Words::discard);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_in_use_never_overlap_and_freed_ones_grow_together(
            steps in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<u16>()), 1..300),
        ) {
            let arena = Arena::new();
            let (mut used, mut small) = (Vec::new(), BTreeSet::new());
            let parts = |size, block: u32| match size {
                Size::Small => block..block + 1,
                Size::Large => block..block + SMALL_IN_LARGE,
            };
            for (takes, is_large, which) in steps {
                if takes || used.is_empty() {
                    let size = if is_large { Size::Large } else { Size::Small };
                    let block = arena.take(size).expect("a block");
                    prop_assert!(parts(size, block).all(|part| small.insert(part)));
                    prop_assert!(arena.words_from(block).is_some());
                    used.push((size, block));
                } else {
                    let (size, block) = used.swap_remove(usize::from(which) % used.len());
                    small.retain(|part| !parts(size, block).contains(part));
                    arena.give(size, block);
                }
            }
            used.into_iter().for_each(|(size, block)| arena.give(size, block));
            let free = arena.free.lock();
            prop_assert!(free.cut.is_empty());
            prop_assert_eq!(free.large.len(), (free.next / SMALL_IN_LARGE) as usize);
        }
    }

    #[test]
    fn a_number_that_is_no_block_is_nothing() {
        let arena = Arena::new();
        assert!(arena.words_from(0).is_none() && arena.words_from(u32::MAX).is_none());
    }
}
