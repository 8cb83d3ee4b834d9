//! What a bucket keeps outside of its slots, under its lock: mailboxes, and names that are long.
//!
//! A slot says at which place. Places that are free again are used first, so that the numbers stay small;
//! a bucket that nobody is left in forgets all of them.

use super::slot::OUTSIDE_MAX;
use crate::state::mailbox::Mailbox;

/// A user whose name has no room in a slot.
#[derive(Debug, Default)]
pub(super) struct Long {
    pub(super) name: Box<[u8]>,
    pub(super) mailbox: Mailbox,
}

/// Numbered places.
#[derive(Debug)]
pub(super) struct Places<T> {
    items: Vec<T>,
    free: Vec<u32>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }
}

impl<T: Default> Places<T> {
    /// Keeps an item; gives it back when there are as many as slots can name.
    pub(super) fn put(&mut self, item: T) -> Result<usize, T> {
        if let Some(at) = self.free.pop() {
            let at = at as usize;
            self.items[at] = item;
            return Ok(at);
        }
        if self.items.len() >= OUTSIDE_MAX {
            return Err(item);
        }
        if self.items.len() == self.items.capacity() {
            // An eighth instead of twice: there is one for every queued message's user.
            self.items.reserve_exact((self.items.len() / 8).max(4));
        }
        self.items.push(item);
        Ok(self.items.len() - 1)
    }

    /// An item, to look at or to change.
    pub(super) fn at(&mut self, at: usize) -> &mut T {
        &mut self.items[at]
    }

    /// Frees a place.
    pub(super) fn remove(&mut self, at: usize) -> T {
        self.free.push(u32::try_from(at).unwrap_or(u32::MAX));
        std::mem::take(&mut self.items[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_place_is_used_before_a_new_one() {
        let mut places = Places::default();
        let numbers: Vec<_> = (1..=3).map(|item| places.put(item)).collect();
        assert_eq!(numbers, [Ok(0), Ok(1), Ok(2)]);
        assert_eq!(places.remove(1), 2);
        assert_eq!((places.put(4), places.put(5)), (Ok(1), Ok(3)));
        assert_eq!((*places.at(0), *places.at(1)), (1, 4));
    }
}
