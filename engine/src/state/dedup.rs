//! Which message ids were seen: a table of keyed hashes in slices of time.
//!
//! The rule, which every replica follows to the letter (`t` is log time):
//! - Before anything else at `t`, the oldest slice goes while its last id is as old as the horizon.
//! - An id goes into the newest slice. A new slice begins when there is none, when the newest was
//!   opened an eighth of the horizon ago or more, or when it holds an eighth of the ids allowed.
//! - While more ids are kept than allowed, the oldest slice goes.
//!
//! So an id is remembered for at least the horizon unless the cap is reached, and forgetting costs one
//! slice, not one id.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::Arc,
};

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::{DeviceId, command::Rules, limits::DEDUP_SLICES};

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

impl Hash for IdHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Takes the first word of what is a keyed hash already.
#[derive(Clone, Debug, Default)]
pub(crate) struct FirstWord(u64);

impl Hasher for FirstWord {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

type Ids = HashMap<IdHash, u64, BuildHasherDefault<FirstWord>>;

/// Ids seen in one stretch of time, with the seq that each got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slice {
    pub(crate) opened_ms: u64,
    pub(crate) last_ms: u64,
    pub(crate) ids: Ids,
}

/// The ids that a shard remembers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dedup {
    /// Shared with images; only the newest is ever written.
    slices: VecDeque<Arc<Slice>>,
    ids: usize,
    /// The last log time of what the cap made it forget.
    forgot_ms: u64,
}

impl Dedup {
    /// Forgets what is as old as the horizon.
    pub(crate) fn advance(&mut self, now_ms: u64, rules: &Rules) {
        while let Some(front) = self.slices.front() {
            if front.last_ms.saturating_add(rules.dedup_horizon_ms) > now_ms {
                break;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> u64 {
        let Some(front) = self.slices.pop_front() else { return 0 };
        self.ids = self.ids.saturating_sub(front.ids.len());
        front.last_ms
    }

    /// The seq that the id got, if it is remembered.
    pub(crate) fn seq_of(&self, id: &IdHash) -> Option<u64> {
        self.slices.iter().rev().find_map(|slice| slice.ids.get(id).copied())
    }

    /// Remembers an id that is not remembered yet.
    pub(crate) fn record(&mut self, id: IdHash, seq: u64, now_ms: u64, rules: &Rules) {
        let width = (rules.dedup_horizon_ms / u64::from(DEDUP_SLICES)).max(1);
        let full = (rules.dedup_ids_max / DEDUP_SLICES).max(1) as usize;
        let is_done = self
            .slices
            .back()
            .is_none_or(|s| now_ms >= s.opened_ms.saturating_add(width) || s.ids.len() >= full);
        if is_done {
            let slice = Slice { opened_ms: now_ms, last_ms: now_ms, ids: Ids::default() };
            self.slices.push_back(Arc::new(slice));
        }
        if let Some(slice) = self.slices.back_mut() {
            let slice = Arc::make_mut(slice);
            slice.last_ms = now_ms;
            slice.ids.insert(id, seq);
            self.ids += 1;
        }
        while self.ids > rules.dedup_ids_max as usize && self.slices.len() > 1 {
            self.forgot_ms = self.forget_oldest();
        }
    }

    /// How many ids are remembered.
    pub(crate) fn len(&self) -> usize {
        self.ids
    }

    /// For how long an id is remembered at present: the horizon, or less while the cap cuts it.
    pub(crate) fn horizon_ms(&self, now_ms: u64, rules: &Rules) -> u64 {
        match self.forgot_ms {
            0 => rules.dedup_horizon_ms,
            forgot_ms => rules.dedup_horizon_ms.min(now_ms.saturating_sub(forgot_ms)),
        }
    }

    pub(crate) fn slices(&self) -> impl Iterator<Item = &Slice> {
        self.slices.iter().map(Arc::as_ref)
    }

    pub(crate) fn forgot_ms(&self) -> u64 {
        self.forgot_ms
    }

    /// Puts a table together again from what a file says.
    pub(crate) fn from_slices(slices: Vec<Slice>, forgot_ms: u64) -> Self {
        let ids = slices.iter().map(|s| s.ids.len()).sum();
        Self { slices: slices.into_iter().map(Arc::new).collect(), ids, forgot_ms }
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
