//! The slots of one bucket: a sorted table with gaps, over blocks that need not lie side by side.
//!
//! ```text
//!   head      version │ shape: blocks, size, strays │ numbers of blocks, two a word
//!                                                        │
//!   slots     ░ a b c ░ ░ d e │ f g ░ h ░ i j k │ …  ◀───┘   in order of hash; ░ free
//! ```
//! A slot's *home* is where its order falls if orders are spread over all slots. It lies there or, if
//! that is taken, after it, with nothing free between: linear probing. Slots ascend by order, so that a
//! look-up of somebody who is not there ends as soon as one that is, and growing is one sequential copy.
//!
//! Growing builds the new table in blocks of its own and then swaps the head, under the version, so
//! readers never wait for it. It takes a twelfth more slots at a time: a table is then between four fifths
//! and [`FILL`] full.
//!
//! Only the holder of the bucket's lock changes a table. Readers do everything through `version`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{
    arena::{Arena, LARGE_SLOTS, SMALL_SLOTS, Size},
    slot::{self, IDENTITY, Key, SLOT_WORDS, order_of},
    version,
};

/// Words of a head.
pub(super) const HEAD_WORDS: usize = 64;
const DIRECTORY: usize = 2;
/// Blocks of one table.
const BLOCKS_MAX: usize = (HEAD_WORDS - DIRECTORY) * 2;
/// Small blocks of one table; with more it has large ones.
const SMALL_BLOCKS_MAX: usize = 32;
/// Of this many slots,
const FILL_OF: usize = 8;
/// so many are in use at most.
const FILL: usize = 7;
/// The part by which a table grows.
const GROWTH: usize = 12;
/// Slots that a look-up compares at once.
const WINDOW: usize = 6;
/// Words of a cache line.
const LINE_WORDS: usize = 8;

/// How far from home a slot is put at most: names chosen to lie together cannot slow others down.
const DISTANCE_MAX: usize = 64;
/// How often a table grows for one user at most.
const GROWTHS_MAX: usize = 4;

const LARGE_BIT: u64 = 1 << 8;
const STRAYS_BIT: u64 = 1 << 9;

const _: () = {
    assert!(BLOCKS_MAX < LARGE_BIT as usize);
    assert!(SMALL_BLOCKS_MAX * SMALL_SLOTS < BLOCKS_MAX * LARGE_SLOTS);
};

pub(super) type SlotWords = [AtomicU64; SLOT_WORDS];

/// How many blocks, and of which size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    blocks: usize,
    size: Size,
}

impl Shape {
    #[inline]
    fn unpack(word: u64) -> Self {
        let size = if word & LARGE_BIT == 0 { Size::Small } else { Size::Large };
        Self { blocks: (word & (LARGE_BIT - 1)) as usize, size }
    }

    fn pack(self) -> u64 {
        self.blocks as u64 | if self.size == Size::Large { LARGE_BIT } else { 0 }
    }

    #[inline]
    fn slots(self) -> usize {
        self.blocks * self.size.slots()
    }

    /// Slots that are homes. Those after them take what the last homes have no room for.
    #[inline]
    fn homes(self) -> usize {
        let slots = self.slots();
        slots - (slots / 8).min(32)
    }

    #[inline]
    fn home_of(self, order: u32) -> usize {
        ((u64::from(order) * self.homes() as u64) >> u32::BITS) as usize
    }

    /// The smallest with so many slots. `None`: no table is so large.
    fn with_slots(slots: usize) -> Option<Self> {
        let small = slots.div_ceil(SMALL_SLOTS);
        let large = slots.div_ceil(LARGE_SLOTS);
        let is_small = small <= SMALL_BLOCKS_MAX;
        let shape = if is_small {
            Self { blocks: small, size: Size::Small }
        } else {
            Self { blocks: large, size: Size::Large }
        };
        (shape.blocks <= BLOCKS_MAX).then_some(shape)
    }

    fn has_room_for(self, users: usize) -> bool {
        users * FILL_OF <= self.slots() * FILL
    }
}

/// Where a look-up ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// In this slot.
    At(usize),
    /// Nowhere; in this slot it would have to be.
    Absent(usize),
}

/// There is no memory, or no larger table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// One bucket's table, to read or, under the bucket's lock, to change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    pub(super) head: &'a [AtomicU64; HEAD_WORDS],
    pub(super) arena: &'a Arena,
}

impl<'a> Table<'a> {
    #[inline]
    pub(super) fn version(self) -> &'a AtomicU64 {
        &self.head[0]
    }

    #[inline]
    fn shape(self) -> Shape {
        Shape::unpack(self.head[1].load(Relaxed))
    }

    /// Whether some users of the bucket are not in the table.
    #[inline]
    pub(super) fn has_strays(self) -> bool {
        self.head[1].load(Relaxed) & STRAYS_BIT != 0
    }

    pub(super) fn set_strays(self, has: bool) {
        if has != self.has_strays() {
            let word = self.shape().pack() | if has { STRAYS_BIT } else { 0 };
            version::write(self.version(), || self.head[1].store(word, Relaxed));
        }
    }

    #[inline]
    fn block(self, at: usize) -> Option<u32> {
        let word = self.head.get(DIRECTORY + at / 2)?.load(Relaxed);
        Some((word >> (32 * (at % 2))) as u32)
    }

    /// The words from a slot on, to the end of its block.
    #[inline]
    fn words_from(self, shape: Shape, index: usize) -> Option<&'a [AtomicU64]> {
        // Named one by one, so that dividing is shifting.
        let (block, within, left) = match shape.size {
            Size::Small => (index / SMALL_SLOTS, index % SMALL_SLOTS, SMALL_SLOTS),
            Size::Large => (index / LARGE_SLOTS, index % LARGE_SLOTS, LARGE_SLOTS),
        };
        let words = self.arena.words_from(self.block(block)?)?;
        words.get(within * SLOT_WORDS..left * SLOT_WORDS)
    }

    #[inline]
    fn slot_in(self, shape: Shape, index: usize) -> Option<&'a SlotWords> {
        if index >= shape.slots() {
            return None;
        }
        self.words_from(shape, index)?.first_chunk()
    }

    /// A slot that there is; `None` also for a reader that comes too late.
    #[inline]
    pub(super) fn slot(self, index: usize) -> Option<&'a SlotWords> {
        self.slot_in(self.shape(), index)
    }

    /// All slots in use, in order, with their places.
    pub(super) fn used(self) -> impl Iterator<Item = (usize, &'a SlotWords)> {
        let shape = self.shape();
        let slots = (0..shape.slots()).filter_map(move |at| Some((at, self.slot_in(shape, at)?)));
        slots.filter(|(_, words)| words[0].load(Relaxed) != 0)
    }

    /// Begins to fetch what a look-up will need. The value means nothing: it is there so that the
    /// memory is really asked for.
    #[inline]
    pub(super) fn touch(self, key: &Key) -> u64 {
        let shape = self.shape();
        let words = self.words_from(shape, shape.home_of(key.order())).unwrap_or_default();
        // A look-up reads of each slot in its window, so every line of that is asked for.
        let window = words.iter().take(WINDOW * SLOT_WORDS).step_by(LINE_WORDS);
        window.fold(0, |sum, word| sum ^ word.load(Relaxed))
    }

    /// Looks a key up as a reader: under the version, so what it finds may be nonsense until the
    /// version is seen not to have changed.
    #[inline]
    pub(super) fn look(self, key: &Key) -> Option<&'a SlotWords> {
        let shape = self.shape();
        let home = shape.home_of(key.order());
        if let Some(window) = self.words_from(shape, home)
            && let Some(window) = window.first_chunk::<{ WINDOW * SLOT_WORDS }>()
        {
            // Those of a lower order are counted, and a free slot, 0 less 1, is of the highest: so six
            // comparisons take no branch. The processor need not guess where it is, and can begin the
            // next look-up while it waits for the memory of this one.
            let lowest = u64::from(key.order()) << u32::BITS;
            let mut lower = 0;
            for at in 0..WINDOW {
                let first = window[at * SLOT_WORDS].load(Relaxed);
                lower += usize::from(first.wrapping_sub(1) < lowest);
            }
            let found = window.get(lower * SLOT_WORDS..).and_then(<[_]>::first_chunk::<SLOT_WORDS>);
            if let Some(found) = found
                && (found[0].load(Relaxed) ^ key.identity) & IDENTITY == 0
                && is_named(found, key)
            {
                return Some(found);
            }
        }
        self.look_on(shape, home, key)
    }

    /// The rest of the way: further from home than usual, over the end of a block, or not there.
    #[inline(never)]
    fn look_on(self, shape: Shape, home: usize, key: &Key) -> Option<&'a SlotWords> {
        match self.find_in(shape, home, key) {
            Found::At(at) => self.slot_in(shape, at),
            Found::Absent(_) => None,
        }
    }

    pub(super) fn find(self, key: &Key) -> Found {
        let shape = self.shape();
        self.find_in(shape, shape.home_of(key.order()), key)
    }

    fn find_in(self, shape: Shape, home: usize, key: &Key) -> Found {
        let mut at = home;
        while let Some(words) = self.slot_in(shape, at) {
            let first = words[0].load(Relaxed);
            if first == 0 || order_of(first) > key.order() {
                break;
            }
            if (first ^ key.identity) & IDENTITY == 0 && is_named(words, key) {
                return Found::At(at);
            }
            at += 1;
        }
        Found::Absent(at)
    }

    /// Puts other values into a slot in use.
    pub(super) fn replace(self, at: usize, values: [u64; SLOT_WORDS]) {
        let Some(words) = self.slot(at) else { return };
        if slot::load(words) != values {
            version::write(self.version(), || slot::store(words, values));
        }
    }

    /// Adds a slot for a key that is not there. `used` is how many slots are.
    pub(super) fn insert(
        self,
        key: &Key,
        values: [u64; SLOT_WORDS],
        used: usize,
    ) -> Result<(), Full> {
        for _ in 0..GROWTHS_MAX {
            let shape = self.shape();
            if shape.has_room_for(used + 1) && self.try_insert(key, values) {
                return Ok(());
            }
            let slots = shape.slots();
            // Names that lie too close together in a table half empty do so in any.
            if used * 2 < slots {
                return Err(Full);
            }
            self.resize(slots + (slots / GROWTH).max(1))?;
        }
        Err(Full)
    }

    /// Moves those from the key's place on by one, up to the first gap, and puts it there.
    fn try_insert(self, key: &Key, values: [u64; SLOT_WORDS]) -> bool {
        let shape = self.shape();
        let Found::Absent(at) = self.find(key) else { return false };
        if at - shape.home_of(key.order()) > DISTANCE_MAX {
            return false;
        }
        let mut gap = at;
        loop {
            match self.slot_in(shape, gap) {
                None => return false,
                Some(words) if words[0].load(Relaxed) == 0 => break,
                Some(_) => gap += 1,
            }
        }
        version::write(self.version(), || {
            for to in (at + 1..=gap).rev() {
                self.copy_slot(shape, to - 1, to);
            }
            if let Some(words) = self.slot_in(shape, at) {
                slot::store(words, values);
            }
        });
        true
    }

    fn copy_slot(self, shape: Shape, from: usize, to: usize) {
        if let (Some(from), Some(to)) = (self.slot_in(shape, from), self.slot_in(shape, to)) {
            slot::store(to, slot::load(from));
        }
    }

    /// Frees a slot; those after it that are not at home move back by one. `left` is how many are in
    /// use then: a table that is nearly empty gives memory back.
    pub(super) fn remove(self, at: usize, left: usize) {
        let shape = self.shape();
        let mut end = at + 1;
        while let Some(words) = self.slot_in(shape, end) {
            let first = words[0].load(Relaxed);
            if first == 0 || shape.home_of(order_of(first)) == end {
                break;
            }
            end += 1;
        }
        version::write(self.version(), || {
            (at + 1..end).for_each(|from| self.copy_slot(shape, from, from - 1));
            if let Some(words) = self.slot_in(shape, end - 1) {
                slot::store(words, [0; SLOT_WORDS]);
            }
        });
        if left == 0 || (shape.blocks > 1 && left * 4 < shape.slots()) {
            // It only saves memory, so that it cannot be done is no harm.
            let _ = self.resize(left * 3 / 2);
        }
    }

    /// Copies the table into one of at least so many slots.
    fn resize(self, slots: usize) -> Result<(), Full> {
        let new = Shape::with_slots(slots).ok_or(Full)?;
        self.rebuild(new, self.used().map(|(_, words)| slot::load(words)))
    }

    /// Makes the table one of these slots, in order, with room for a few more. It is empty before.
    pub(super) fn fill(self, slots: &[[u64; SLOT_WORDS]]) -> Result<(), Full> {
        let new = Shape::with_slots(slots.len() + slots.len() / 5 + 1).ok_or(Full)?;
        self.rebuild(new, slots.iter().copied())
    }

    /// Makes the table one of these slots, in order.
    fn rebuild(
        self,
        new: Shape,
        slots: impl Iterator<Item = [u64; SLOT_WORDS]>,
    ) -> Result<(), Full> {
        let old = self.shape();
        let mut blocks = Vec::with_capacity(new.blocks);
        for _ in 0..new.blocks {
            blocks.extend(self.arena.take(new.size));
        }
        if blocks.len() < new.blocks || !self.copy_into(new, &blocks, slots) {
            blocks.into_iter().for_each(|block| self.arena.give(new.size, block));
            return Err(Full);
        }
        let before: Vec<u32> = (0..old.blocks).filter_map(|at| self.block(at)).collect();
        let strays = self.head[1].load(Relaxed) & STRAYS_BIT;
        version::write(self.version(), || {
            self.head[1].store(new.pack() | strays, Relaxed);
            for (word, pair) in self.head[DIRECTORY..].iter().zip(blocks.chunks(2)) {
                let second = pair.get(1).copied().unwrap_or(0);
                word.store(u64::from(pair[0]) | u64::from(second) << 32, Relaxed);
            }
        });
        before.into_iter().for_each(|block| self.arena.give(old.size, block));
        Ok(())
    }

    /// Writes slots to where they are at home in the new blocks, and zeros between. False if they do
    /// not fit, because too many have nearly the same order.
    fn copy_into(
        self,
        new: Shape,
        blocks: &[u32],
        slots: impl Iterator<Item = [u64; SLOT_WORDS]>,
    ) -> bool {
        let to = |at: usize| -> Option<&'a SlotWords> {
            let words = self.arena.words_from(*blocks.get(at / new.size.slots())?)?;
            words.get(at % new.size.slots() * SLOT_WORDS..)?.first_chunk()
        };
        let mut next = 0;
        let mut put = |values, until: usize| -> Option<()> {
            while next < until {
                slot::store(to(next)?, [0; SLOT_WORDS]);
                next += 1;
            }
            if let Some(values) = values {
                slot::store(to(next)?, values);
                next += 1;
            }
            Some(())
        };
        for values in slots {
            if put(Some(values), new.home_of(order_of(values[0]))).is_none() {
                return false;
            }
        }
        put(None, new.slots()).is_some()
    }

    /// Whether order and distance are as they should be.
    #[cfg(test)]
    pub(super) fn is_sorted(self) -> bool {
        let shape = self.shape();
        let orders: Vec<(usize, u32)> =
            self.used().map(|(at, words)| (at, order_of(words[0].load(Relaxed)))).collect();
        orders.windows(2).all(|pair| pair[0].1 <= pair[1].1)
            && orders.iter().all(|(at, order)| {
                let home = shape.home_of(*order);
                (home..=*at).all(|at| self.slot(at).is_some_and(|w| w[0].load(Relaxed) != 0))
            })
    }
}

#[inline]
fn is_named(words: &SlotWords, key: &Key) -> bool {
    (words[1].load(Relaxed) ^ key.name[0]) | (words[2].load(Relaxed) ^ key.name[1]) == 0
}
