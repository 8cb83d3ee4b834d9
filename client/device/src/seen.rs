//! The ids that this device has seen, so that a repeat is shown once. Bounded: the oldest ids are
//! forgotten first.

use std::{
    collections::{HashSet, VecDeque, hash_map::RandomState},
    hash::{BuildHasher as _, Hash},
};

/// A message id, and a keyed hash of who sent it: 24 bytes for any sender.
type Key = ([u8; 16], u64);

#[derive(Debug)]
pub(crate) struct Seen {
    keyed: RandomState,
    keys: HashSet<Key>,
    order: VecDeque<Key>,
    capacity: usize,
}

impl Seen {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            keyed: RandomState::new(),
            keys: HashSet::new(),
            order: VecDeque::new(),
            capacity: capacity.max(1),
        }
    }

    /// True the first time.
    pub(crate) fn insert(&mut self, sender: &impl Hash, message_id: [u8; 16]) -> bool {
        let key = (message_id, self.keyed.hash_one(sender));
        if !self.keys.insert(key) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_counts_per_sender_and_the_oldest_is_forgotten() {
        let mut seen = Seen::new(2);
        assert!(seen.insert(&"alice", [1; 16]));
        assert!(!seen.insert(&"alice", [1; 16]));
        assert!(seen.insert(&"bob", [1; 16]));
        assert!(seen.insert(&"bob", [2; 16]));
        assert!(seen.insert(&"alice", [1; 16]));
    }
}
