//! Where an id might be: a hash table from 32 bits of a keyed hash to an ordinal.
//!
//! A slot is one word: the bits above, the lower half of the ordinal below, 0 for nobody. So a look-up
//! that finds nothing, which is nearly every one, touches one cache line, and the table takes 8 bytes a
//! slot. Linear probing from the place that the bits name; removing shifts back what follows, so that no
//! graves pile up. The same bits may stand in several slots: the caller compares the whole id.

/// Slots of the smallest table.
const SLOTS_MIN: usize = 64;

#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// A power of two of them, or none.
    slots: Box<[u64]>,
    len: usize,
}

/// The upper half of a slot; never 0.
fn tag_of(hash: u64) -> u64 {
    (hash >> 32) | 1
}

impl Table {
    fn home(&self, tag: u64) -> usize {
        // The upper bits of the tag, as many as the table has. `slots` has at most 2^32.
        let bits = self.slots.len().trailing_zeros();
        usize::try_from(tag >> (32 - bits.min(32))).unwrap_or(0)
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    /// The slots that `hash` could be in: what they hold, until the first empty one.
    fn candidates(&self, hash: u64) -> impl Iterator<Item = (usize, u64)> {
        let tag = tag_of(hash);
        let mut at = self.home(tag);
        std::iter::from_fn(move || {
            loop {
                let slot = *self.slots.get(at)?;
                if slot == 0 {
                    return None;
                }
                let found = (at, slot & u64::from(u32::MAX));
                at = self.next(at);
                if slot >> 32 == tag {
                    return Some(found);
                }
            }
        })
    }

    /// The first ordinal (its lower half) filed under `hash` that `is_it` takes.
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut ordinals = self.candidates(hash).map(|(_, ordinal)| ordinal as u32);
        ordinals.find(|ordinal| is_it(*ordinal))
    }

    /// Begins to fetch the slot where a look-up begins. The value means nothing.
    #[inline]
    pub(crate) fn touch(&self, hash: u64) -> u64 {
        self.slots.get(self.home(tag_of(hash))).copied().unwrap_or(0)
    }

    pub(crate) fn insert(&mut self, hash: u64, ordinal: u32) {
        // At most three of four slots are taken, so that there is always an empty one near.
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.resize((self.slots.len() * 2).max(SLOTS_MIN));
        }
        self.place(tag_of(hash) << 32 | u64::from(ordinal));
        self.len += 1;
    }

    fn place(&mut self, slot: u64) {
        let mut at = self.home(slot >> 32);
        while self.slots[at] != 0 {
            at = self.next(at);
        }
        self.slots[at] = slot;
    }

    fn resize(&mut self, slots: usize) {
        let before = std::mem::replace(&mut self.slots, vec![0; slots].into());
        before.iter().filter(|slot| **slot != 0).for_each(|slot| self.place(*slot));
    }

    /// Removes what `insert` was given.
    pub(crate) fn remove(&mut self, hash: u64, ordinal: u32) {
        let is_it = |(_, found): &(usize, u64)| *found == u64::from(ordinal);
        let Some((mut hole, _)) = self.candidates(hash).find(is_it) else { return };
        let mut at = self.next(hole);
        while self.slots[at] != 0 {
            // One may move into the hole if that does not put it before its home.
            let home = self.home(self.slots[at] >> 32);
            let mask = self.slots.len() - 1;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.slots[hole] = 0;
        self.len -= 1;
        if self.slots.len() > SLOTS_MIN && self.len * 16 < self.slots.len() {
            self.resize(self.slots.len() / 4);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few different hashes, so that chains are long and wrap around.
        #[test]
        fn finds_what_is_in_it_and_nothing_else(
            steps in proptest::collection::vec((0_u64..40, any::<bool>()), 0..200),
        ) {
            let mut table = Table::default();
            let mut model = BTreeSet::new();
            for (ordinal, (bits, removes)) in steps.into_iter().enumerate() {
                let hash = (bits * 0x0600_0000) << 32;
                if removes {
                    if let Some((hash, ordinal)) = model.pop_first() {
                        table.remove(hash, ordinal);
                    }
                } else {
                    table.insert(hash, ordinal as u32);
                    model.insert((hash, ordinal as u32));
                }
                prop_assert_eq!(table.len, model.len());
                for (hash, ordinal) in model.iter().filter(|(_, o)| *o as usize % 32 == ordinal % 32) {
                    prop_assert_eq!(table.find(*hash, |o| o == *ordinal), Some(*ordinal));
                }
                prop_assert_eq!(table.find(hash, |o| !model.contains(&(hash, o))), None);
            }
        }
    }
}
