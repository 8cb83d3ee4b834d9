//! Numbered places for small things, in chunks.
//!
//! ```text
//!   chunks ──▶ used: a bit each │ items     about a kilobyte, a size that allocators have
//!          ──▶ nothing: nobody is in it
//! ```
//! The lowest free place is used first, so that numbers stay small and what is left gathers in few
//! chunks; one that nobody is in any more is given back.

use std::collections::BTreeSet;

/// So many things side by side.
#[derive(Debug)]
struct Chunk<T, const N: usize> {
    used: u32,
    items: [T; N],
}

/// Places for any number of things, in chunks of `N`: at most 32.
#[derive(Debug)]
pub(super) struct Places<T, const N: usize> {
    chunks: Vec<Option<Box<Chunk<T, N>>>>,
    /// The chunks below the end of `chunks` that have a free place.
    open: BTreeSet<u32>,
}

impl<T, const N: usize> Default for Places<T, N> {
    fn default() -> Self {
        const { assert!(N <= u32::BITS as usize) };
        Self { chunks: Vec::new(), open: BTreeSet::new() }
    }
}

impl<T: Default, const N: usize> Places<T, N> {
    const FULL: u32 = u32::MAX >> (u32::BITS - N as u32);

    /// Keeps an item below `limit`; gives it back when there is no place left.
    pub(super) fn put(&mut self, item: T, limit: usize) -> Result<usize, T> {
        let number = match self.open.first() {
            Some(number) => *number as usize,
            None => self.chunks.len(),
        };
        if (number + 1) * N > limit {
            return Err(item);
        }
        if number == self.chunks.len() {
            self.chunks.push(None);
            self.open.insert(number as u32);
        }
        let chunk = self.chunks[number].get_or_insert_with(|| {
            Box::new(Chunk { used: 0, items: std::array::from_fn(|_| T::default()) })
        });
        let place = chunk.used.trailing_ones() as usize;
        chunk.items[place] = item;
        chunk.used |= 1 << place;
        if chunk.used == Self::FULL {
            self.open.remove(&(number as u32));
        }
        Ok(number * N + place)
    }

    /// An item, to look at or to change.
    ///
    /// # Panics
    /// If there is none in that place, which the slots know.
    pub(super) fn at(&mut self, at: usize) -> &mut T {
        #[allow(clippy::expect_used)]
        let chunk = self.chunks[at / N].as_mut().expect("somebody is in the chunk");
        &mut chunk.items[at % N]
    }

    /// Frees a place; gives what was in it.
    pub(super) fn remove(&mut self, at: usize) -> T {
        let item = std::mem::take(self.at(at));
        let number = at / N;
        let place = &mut self.chunks[number];
        if let Some(chunk) = place {
            chunk.used &= !(1 << (at % N));
            if chunk.used == 0 {
                *place = None;
            }
        }
        self.open.insert(number as u32);
        while let Some(None) = self.chunks.last() {
            self.chunks.pop();
            self.open.remove(&(self.chunks.len() as u32));
        }
        item
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_free_place_is_used_before_a_new_one() {
        let mut places = Places::<_, 2>::default();
        let numbers: Vec<_> = (1..=3).map(|item| places.put(item, 4)).collect();
        assert_eq!(numbers, [Ok(0), Ok(1), Ok(2)]);
        assert_eq!(places.remove(1), 2);
        assert_eq!((places.put(4, 4), places.put(5, 4)), (Ok(1), Ok(3)));
        assert_eq!(places.put(6, 4), Err(6));
        assert_eq!((*places.at(0), *places.at(1)), (1, 4));
    }

    proptest! {
        #[test]
        fn everything_is_where_it_was_put_and_nothing_is_held_for_nobody(
            steps in proptest::collection::vec(proptest::option::of(any::<prop::sample::Index>()), 0..400),
        ) {
            let (mut places, mut model) = (Places::<usize, 5>::default(), BTreeMap::new());
            for (item, step) in steps.into_iter().enumerate() {
                match step {
                    Some(which) if !model.is_empty() => {
                        let at = *which.get(&model.keys().copied().collect::<Vec<_>>());
                        prop_assert_eq!(Some(places.remove(at)), model.remove(&at));
                    }
                    _ => {
                        let at = places.put(item + 1, usize::MAX).expect("room");
                        prop_assert_eq!(at, (0..).find(|at| !model.contains_key(at)).expect("one"));
                        model.insert(at, item + 1);
                    }
                }
                for (at, item) in &model {
                    prop_assert_eq!(places.at(*at), item);
                }
                let held = places.chunks.iter().flatten().count();
                prop_assert_eq!(held, model.keys().map(|at| at / 5).collect::<BTreeSet<_>>().len());
            }
            for (at, item) in model {
                prop_assert_eq!(places.remove(at), item);
            }
            prop_assert!(places.is_empty());
        }
    }
}
