//! Adding users as a file has them: whole buckets at a time, if they come in their order.
//!
//! A checkpoint has users bucket by bucket, and nearly all that are in slots in the order of their hash.
//! So the slots of one bucket are gathered, and its table is written once from front to back, with room
//! to grow and under one lock. Whoever does not fit that is added like anybody else, afterwards.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::FixedState;

use super::{
    UserMap,
    bucket::Bucket,
    gateways::Life,
    slot::{IDENTITY, Key, SLOT_WORDS, Slot, TIME_MS_MAX, order_of},
};
use crate::{
    SessionRecord,
    state::user::{Totals, User},
};

/// Adds users to a map; several threads may, each with one of its own.
#[derive(Debug)]
pub(crate) struct Filling<'a> {
    map: &'a UserMap,
    bucket: usize,
    slots: Vec<[u64; SLOT_WORDS]>,
    others: Vec<(Bytes, User)>,
    /// Numbers of gateways, and how many sessions here have them.
    lives: HashMap<Life, (u32, u32), FixedState>,
    /// A user came twice.
    is_twice: bool,
}

impl UserMap {
    /// Begins to add users.
    pub(crate) fn fill(&self) -> Filling<'_> {
        Filling {
            map: self,
            bucket: 0,
            slots: Vec::new(),
            others: Vec::new(),
            lives: HashMap::default(),
            is_twice: false,
        }
    }
}

impl Filling<'_> {
    /// Adds a user of whom there is only a session of the primary device, last seen at its beginning.
    pub(crate) fn session(&mut self, name: &[u8], record: SessionRecord) {
        let key = self.map.region.key(name);
        self.enter(key.bucket);
        let time_ms = record.connected_at_ms;
        let number = if key.is_long() || time_ms > TIME_MS_MAX {
            None
        } else {
            self.number_of((record.gateway_id, record.incarnation))
        };
        let Some(number) = number else {
            return self.others.push((Bytes::copy_from_slice(name), User::of_session(record)));
        };
        let session = Some((number, record.epoch, record.connection_id));
        let Key { identity, name, .. } = key;
        self.slots.push(Slot { identity, name, session, time_ms, outside: None }.pack());
    }

    /// Adds a user.
    pub(crate) fn user(&mut self, name: &[u8], user: User) {
        self.enter(self.map.region.key(name).bucket);
        self.others.push((Bytes::copy_from_slice(name), user));
    }

    /// Adds what has been gathered; false if any user came twice.
    pub(crate) fn finish(mut self) -> bool {
        self.flush();
        !self.is_twice
    }

    /// A gateway's number, one more session having it.
    fn number_of(&mut self, life: Life) -> Option<u32> {
        if let Some((number, uses)) = self.lives.get_mut(&life) {
            *uses += 1;
            return Some(*number);
        }
        let number = self.map.region.gateways.take(life)?;
        self.lives.insert(life, (number, 0));
        Some(number)
    }

    fn enter(&mut self, bucket: usize) {
        if bucket != self.bucket {
            self.flush();
            self.bucket = bucket;
        }
    }

    fn flush(&mut self) {
        // First, so that no number is given back before it has been taken as often as it is used.
        for (number, uses) in self.lives.values_mut().filter(|(_, uses)| *uses > 0) {
            self.map.region.gateways.take_more(*number, std::mem::take(uses));
        }
        let slots = &mut self.slots;
        if !slots.is_empty() {
            let whole = |slot: &[u64; SLOT_WORDS]| (slot[0] & IDENTITY, slot[1], slot[2]);
            if !slots.is_sorted_by_key(whole) {
                slots.sort_unstable_by_key(whole);
            }
            self.is_twice |= slots.windows(2).any(|pair| whole(&pair[0]) == whole(&pair[1]));
            self.is_twice |= !self.map.with(self.bucket, |bucket| bucket.fill(slots));
            slots.clear();
        }
        for (name, user) in self.others.drain(..) {
            self.is_twice |= !self.map.insert(&name, user);
        }
    }
}

impl Bucket<'_> {
    /// Adds users with sessions, sorted; false if one is there already.
    fn fill(&mut self, slots: &[[u64; SLOT_WORDS]]) -> bool {
        debug_assert!(slots.is_sorted_by_key(|slot| order_of(slot[0])));
        if self.kept.slots == 0 && self.table.fill(slots).is_ok() {
            self.kept.slots = slots.len();
            let count = slots.len() as u64;
            let added = Totals { users: count, sessions: count, ..Totals::default() };
            self.kept.totals = self.kept.totals.plus(added);
            return slots.iter().all(|slot| !self.is_stray(slot));
        }
        slots.iter().all(|slot| self.add_slot(&Slot::unpack(*slot)))
    }

    fn is_stray(&self, words: &[u64; SLOT_WORDS]) -> bool {
        let name = Slot::unpack(*words).short_name();
        let is_stray = |(name, length): ([u8; 16], usize)| {
            self.kept.strays.contains_key(name.get(..length).unwrap_or(&[]))
        };
        !self.kept.strays.is_empty() && name.is_some_and(is_stray)
    }

    /// Adds one user the usual way.
    fn add_slot(&mut self, slot: &Slot) -> bool {
        let user = self.take_user(slot);
        let Some((name, length)) = slot.short_name() else { return false };
        let name = name.get(..length).unwrap_or(&[]);
        let is_new = self.change(
            name,
            |_| (),
            |now| {
                let is_new = now.devices().is_empty();
                if is_new {
                    *now = user;
                }
                is_new
            },
        );
        self.release(slot);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::limits::USER_BUCKETS;

    fn record(n: u64) -> SessionRecord {
        let (gateway_id, connected_at_ms) = ((n % 5) as u32, 1_000 + n);
        SessionRecord { gateway_id, incarnation: 1, connection_id: n, epoch: n, connected_at_ms }
    }

    fn others(n: u64) -> User {
        let mut user = User::of_session(record(n));
        user.ensure(2).last_seen_ms = n;
        user
    }

    /// Short and long names, in few buckets so that some have many.
    fn name(n: u64) -> Vec<u8> {
        vec![b'a' + (n % 26) as u8; 1 + (n % 30) as usize]
    }

    fn all(map: &UserMap) -> BTreeMap<Vec<u8>, String> {
        let mut users = BTreeMap::new();
        for bucket in 0..USER_BUCKETS {
            map.read_bucket(bucket, |bucket| {
                assert!(bucket.table.is_sorted());
                bucket.each(|name, user| {
                    assert!(users.insert(name.to_vec(), format!("{user:?}")).is_none());
                });
            });
        }
        users
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_map_that_is_filled_is_as_one_that_was_written_to(
            numbers in proptest::collection::btree_map(0_u64..390, any::<bool>(), 0..200),
            is_ordered in any::<bool>(),
        ) {
            let (written, filled) = (UserMap::new(&[7; 16]), UserMap::new(&[7; 16]));
            let mut users: Vec<_> = numbers.into_iter().map(|(n, sole)| (name(n), n, sole)).collect();
            if is_ordered {
                users.sort_by_key(|(name, ..)| written.region.key(name).bucket);
            }
            let mut filling = filled.fill();
            for (name, n, is_sole) in &users {
                if *is_sole {
                    filling.session(name, record(*n));
                    written.insert(name, User::of_session(record(*n)));
                } else {
                    filling.user(name, others(*n));
                    written.insert(name, others(*n));
                }
            }
            prop_assert!(filling.finish());
            prop_assert_eq!(all(&filled), all(&written));
            for bucket in 0..USER_BUCKETS {
                let totals = |map: &UserMap| map.read_bucket(bucket, |bucket| bucket.totals());
                prop_assert_eq!(totals(&filled), totals(&written));
                prop_assert_eq!(filled.totals(), written.totals());
            }
            // Numbers of gateways are counted right: all can be given back.
            for (name, ..) in &users {
                filled.write(name, |user| *user = User::default());
            }
            prop_assert!(all(&filled).is_empty());
            let Some((name, n, _)) = users.first() else { return Ok(()) };
            for ways in 0..3 {
                let mut filling = filled.fill();
                for way in [ways % 2 == 0, ways == 0] {
                    if way { filling.session(name, record(*n)) } else { filling.user(name, others(*n)) }
                }
                prop_assert!(!filling.finish(), "the same user twice");
                filled.write(name, |user| *user = User::default());
            }
        }
    }
}
