//! Which message ids were seen: a table of keyed hashes in slices of time.
//!
//! The rule, which every replica follows to the letter (`t` is log time):
//! - Before anything else at `t`, the oldest slice goes while its last id is as old as the horizon.
//! - An id goes into the newest slice. A new slice begins when there is none, when the newest was
//!   opened an eighth of the horizon ago or more, or when it holds an eighth of the ids allowed.
//! - While more ids are kept than allowed, the oldest slice goes.
//!
//! So an id is remembered for at least the horizon unless the cap is reached.
//!
//! ```text
//!   ids by ordinal   ··· swept │ forgotten │ remembered: slice │ slice │ slice │
//!                              └── still in the table, but passed over
//! ```
//! A slice is forgotten by moving one number; the table is swept of its ids afterwards, a few at a time,
//! so that no entry pays for a whole slice.

mod encode;
mod ids;
mod table;

use std::{collections::VecDeque, hash::Hasher};

use siphasher::sip128::{Hasher128, SipHasher24};

pub(crate) use encode::{
    DedupIndex, decode_dedup, decode_ids, decode_index, encode_dedup, encode_ids, encode_index,
};
pub(crate) use ids::{Entry, Ids};
use table::Table;

use crate::{
    DeviceId,
    command::Rules,
    limits::{DEDUP_SLICES, DEDUP_SWEEP_ENTRY, DEDUP_SWEEP_ID},
};

/// The keyed hash of (user, device, message id).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IdHash(pub(crate) u64, pub(crate) u64);

impl IdHash {
    pub(crate) fn new(key: &[u8; 16], from: &DeviceId, message_id: &[u8; 16]) -> Self {
        let mut hasher = SipHasher24::new_with_key(key);
        // The length first, so that no two senders can write the same bytes.
        hasher.write_u64(from.user.len() as u64);
        hasher.write(&from.user);
        hasher.write(&from.device.to_le_bytes());
        hasher.write(message_id);
        let hash = hasher.finish128();
        Self(hash.h1, hash.h2)
    }
}

/// A stretch of time: how many ids it has, beginning where the slice before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) opened_ms: u64,
    pub(crate) last_ms: u64,
    pub(crate) ids: u64,
}

/// What is remembered, without the means to look it up: to be written, or read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) slices: VecDeque<Slice>,
    /// Ordinal of the first id that is remembered.
    pub(crate) first: u64,
    /// Those ids, and perhaps some before them.
    pub(crate) ids: Ids,
    /// The last log time of what the cap made it forget.
    pub(crate) forgot_ms: u64,
}

/// The ids that a shard remembers.
#[derive(Debug, Default)]
pub(crate) struct Dedup {
    remembered: Remembered,
    table: Table,
    /// Ordinal below which no id is in the table.
    swept: u64,
}

impl Remembered {
    fn len(&self) -> u64 {
        self.ids.next() - self.first
    }

    fn forget_oldest(&mut self) -> u64 {
        let Some(front) = self.slices.pop_front() else { return 0 };
        self.first += front.ids;
        front.last_ms
    }
}

impl Dedup {
    /// A table of what a file says is remembered.
    pub(crate) fn new(remembered: Remembered) -> Self {
        let mut table = Table::default();
        let first = remembered.first;
        for ((id, _), ordinal) in remembered.ids.from(first).zip(first..) {
            table.insert(id.0, ordinal as u32);
        }
        Self { remembered, table, swept: first }
    }

    /// What is remembered now; the ids are shared, not copied.
    pub(crate) fn remembered(&self) -> Remembered {
        self.remembered.clone()
    }

    /// Forgets what is as old as the horizon.
    pub(crate) fn advance(&mut self, now_ms: u64, rules: &Rules) {
        while let Some(front) = self.remembered.slices.front() {
            if front.last_ms.saturating_add(rules.dedup_horizon_ms) > now_ms {
                break;
            }
            self.remembered.forget_oldest();
        }
        self.sweep(DEDUP_SWEEP_ENTRY);
    }

    /// Takes some of the ids that are forgotten out of the table.
    fn sweep(&mut self, ids_max: u64) {
        let to = self.remembered.first.min(self.swept + ids_max);
        for ordinal in self.swept..to {
            if let Some((id, _)) = self.remembered.ids.get(ordinal) {
                self.table.remove(id.0, ordinal as u32);
            }
        }
        if to > self.swept {
            self.swept = to;
            self.remembered.ids.drop_below(to);
        }
    }

    /// Begins to fetch what [`Self::seq_of`] will look at first. The value means nothing.
    #[inline]
    pub(crate) fn touch(&self, id: &IdHash) -> u64 {
        self.table.touch(id.0)
    }

    /// The seq that the id got, if it is remembered.
    pub(crate) fn seq_of(&self, id: &IdHash) -> Option<u64> {
        let Remembered { first, ids, .. } = &self.remembered;
        // The table knows the lower half of an ordinal; those in it lie within 2^32 of each other.
        let whole = |low: u32| self.swept + u64::from(low.wrapping_sub(self.swept as u32));
        let entry = |low| ids.get(whole(low)).filter(|_| whole(low) >= *first);
        let found = self.table.find(id.0, |low| entry(low).is_some_and(|(other, _)| other == id));
        found.and_then(entry).map(|(_, seq)| *seq)
    }

    /// Remembers an id that is not remembered yet.
    pub(crate) fn record(&mut self, id: IdHash, seq: u64, now_ms: u64, rules: &Rules) {
        let width = (rules.dedup_horizon_ms / u64::from(DEDUP_SLICES)).max(1);
        let full = u64::from((rules.dedup_ids_max / DEDUP_SLICES).max(1));
        let is_done = |s: &Slice| now_ms >= s.opened_ms.saturating_add(width) || s.ids >= full;
        let remembered = &mut self.remembered;
        if remembered.slices.back().is_none_or(is_done) {
            remembered.slices.push_back(Slice { opened_ms: now_ms, last_ms: now_ms, ids: 0 });
        }
        if let Some(slice) = remembered.slices.back_mut() {
            slice.last_ms = now_ms;
            slice.ids += 1;
            self.table.insert(id.0, remembered.ids.next() as u32);
            remembered.ids.push((id, seq));
        }
        while remembered.len() > u64::from(rules.dedup_ids_max) && remembered.slices.len() > 1 {
            remembered.forgot_ms = remembered.forget_oldest();
        }
        self.sweep(DEDUP_SWEEP_ID);
    }

    /// How many ids are remembered.
    pub(crate) fn len(&self) -> u64 {
        self.remembered.len()
    }

    /// For how long an id is remembered at present: the horizon, or less while the cap cuts it.
    pub(crate) fn horizon_ms(&self, now_ms: u64, rules: &Rules) -> u64 {
        match self.remembered.forgot_ms {
            0 => rules.dedup_horizon_ms,
            forgot_ms => rules.dedup_horizon_ms.min(now_ms.saturating_sub(forgot_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(horizon: u64, ids: u32) -> Rules {
        Rules { dedup_horizon_ms: horizon, dedup_ids_max: ids, ..Rules::default() }
    }

    fn id(n: u64) -> IdHash {
        IdHash(n, n)
    }

    #[test]
    fn remembers_for_the_horizon_and_forgets_soon_after() {
        let rules = rules(800, 1_000);
        let mut dedup = Dedup::default();
        for t in 0..100 {
            dedup.advance(t * 10, &rules);
            dedup.record(id(t), t + 1, t * 10, &rules);
            for seen in (0..=t).filter(|seen| t * 10 - seen * 10 < 800) {
                assert_eq!(dedup.seq_of(&id(seen)), Some(seen + 1), "{seen} at {t}");
            }
            for seen in (0..=t).filter(|seen| t * 10 - seen * 10 >= 900) {
                assert_eq!(dedup.seq_of(&id(seen)), None, "{seen} at {t}");
            }
        }
        assert_eq!(dedup.horizon_ms(990, &rules), 800);
        dedup.advance(10_000, &rules);
        assert_eq!(dedup.len(), 0);
    }

    #[test]
    fn the_cap_shortens_the_horizon() {
        let rules = rules(1_000_000, 80);
        let mut dedup = Dedup::default();
        for t in 0..1_000 {
            dedup.record(id(t), t + 1, t, &rules);
            assert!(dedup.len() <= 80);
        }
        assert!((70..=80).contains(&dedup.len()));
        assert!((70..=81).contains(&dedup.horizon_ms(999, &rules)));
        assert_eq!(dedup.seq_of(&id(999)), Some(1_000));
        assert_eq!(dedup.seq_of(&id(900)), None);
    }

    /// A slice is forgotten at once although the table is swept of it slowly, and an id of it may come
    /// again meanwhile.
    #[test]
    fn a_forgotten_id_may_come_again_before_the_table_is_swept() {
        let rules = rules(1_000, 100_000);
        let mut dedup = Dedup::default();
        for n in 0..20_000 {
            dedup.record(id(n), n + 1, 0, &rules);
        }
        dedup.advance(1_000, &rules);
        assert!(dedup.swept < 20_000, "swept at once");
        for n in (0..20_000).step_by(3) {
            assert_eq!(dedup.seq_of(&id(n)), None);
            dedup.record(id(n), 100_000 + n, 1_000, &rules);
            assert_eq!(dedup.seq_of(&id(n)), Some(100_000 + n));
        }
        for _ in 0..100 {
            dedup.advance(1_001, &rules);
        }
        assert_eq!(dedup.swept, 20_000);
        assert_eq!(dedup.seq_of(&id(3)), Some(100_003));
        assert_eq!(dedup.len(), 6_667);
    }

    #[test]
    fn senders_cannot_write_each_others_keys() {
        let key = [7; 16];
        let a = IdHash::new(&key, &DeviceId::new("ab", 1), &[0; 16]);
        let b = IdHash::new(&key, &DeviceId::new("a", 1), &[0; 16]);
        assert_ne!(a, b);
        assert_ne!(a, IdHash::new(&[8; 16], &DeviceId::new("ab", 1), &[0; 16]));
        assert_eq!(a, IdHash::new(&key, &DeviceId::new("ab", 1), &[0; 16]));
    }
}
