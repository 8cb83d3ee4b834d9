//! The users of a shard: 1,024 buckets, few writers, any number of readers.
//!
//! ```text
//!   name ──hash──▶ bucket ──▶ region: slots of 48 bytes      sessions; readers need no lock
//!                     └─────▶ lock ──▶ mailboxes, long names, whole records of those who fit no slot
//! ```
//! The bucket of a user follows from a fixed hash, because expiry and sweeps walk the buckets and every
//! replica must walk them alike. A bucket is a contiguous range of the hash. Inside a bucket nothing that
//! is replicated may depend on the order.
//!
//! Where a user's session is, [`Region::look_up`] tells without a lock, and without writing anything that
//! another thread reads. Everything else goes through the bucket's lock. Before a user changes,
//! snapshots that are under way are told (see `snapshot`). This file is all that the rest of the state
//! knows of how users are kept.

mod arena;
mod bucket;
mod counts;
mod gateways;
mod load;
mod memory;
mod outside;
mod places;
mod region;
mod slot;
mod table;
mod version;

use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub(crate) use bucket::Bucket;
use bucket::Kept;
use counts::Counts;
pub(crate) use load::Filling;
pub(crate) use region::{Answer, Region};

use super::{
    snapshot::Snapshots,
    user::{Totals, User},
};
use crate::limits::USER_BUCKETS;

/// The users of a shard.
#[derive(Debug)]
pub(crate) struct UserMap {
    region: Arc<Region>,
    /// A lock per bucket, for whoever wants more than a session: who waits, waits for one command in
    /// one bucket. Nothing is kept of a bucket without users.
    buckets: Box<[Mutex<Option<Box<Kept>>>]>,
    /// Of all buckets together.
    counts: Counts,
    seed: u64,
    snapshots: Snapshots,
}

impl UserMap {
    /// An empty map. Hashes inside a bucket are seeded from `key`, so that names cannot be chosen to
    /// collide.
    ///
    /// # Panics
    /// When the system has no address space left, as an allocation does.
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        #[allow(clippy::expect_used)]
        let region = Region::new().expect("address space for a shard's users");
        let map = Self {
            region: Arc::new(region),
            buckets: (0..USER_BUCKETS).map(|_| Mutex::new(None)).collect(),
            counts: Counts::default(),
            seed: xxh3_64_with_seed(key, 1),
            snapshots: Snapshots::default(),
        };
        map.set_key(key);
        map
    }

    /// Hashes long names with another key from now on. There must be no user yet.
    pub(crate) fn set_key(&self, key: &[u8; 16]) {
        self.region.set_secret([xxh3_64_with_seed(key, 2), xxh3_64_with_seed(key, 3)]);
    }

    /// What readers need no lock for.
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// The snapshots of this map that are under way.
    pub(super) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    fn with<R>(&self, index: usize, work: impl FnOnce(&mut Bucket<'_>) -> R) -> R {
        let mut place = self.buckets[index].lock();
        let kept = place.get_or_insert_with(|| Box::new(Kept::new(self.seed)));
        let table = self.region.table(index);
        let before = kept.totals;
        let result = work(&mut Bucket { region: &self.region, table, kept });
        self.counts.change(before, kept.totals);
        if kept.is_empty() {
            *place = None;
        }
        result
    }

    /// How many users there are, and what they have.
    pub(crate) fn totals(&self) -> Totals {
        self.counts.totals()
    }

    /// Looks at a user; `None` when there is no record. Keep it short: the writer may wait.
    pub(crate) fn read<R>(&self, user: &[u8], look: impl FnOnce(Option<&User>) -> R) -> R {
        let index = self.region.key(user).bucket;
        if self.buckets[index].lock().is_none() {
            return look(None);
        }
        self.with(index, |bucket| bucket.read(user, look))
    }

    /// Begins to fetch what [`Self::write`] will look at first. The value means nothing.
    #[inline]
    pub(crate) fn touch(&self, user: &[u8]) -> u64 {
        let key = self.region.key(user);
        self.region.table(key.bucket).touch(&key)
    }

    /// Changes a user, who is made if there is none and dropped if nothing is left.
    pub(crate) fn write<R>(&self, user: &[u8], change: impl FnOnce(&mut User) -> R) -> R {
        let index = self.region.key(user).bucket;
        let keep = |before: Option<&User>| self.snapshots.keep(index, user, before);
        self.with(index, |bucket| bucket.change(user, keep, change))
    }

    /// Changes those users of one bucket that are `concerned`; the others are only looked at.
    pub(crate) fn write_bucket(
        &self,
        index: usize,
        concerned: impl Fn(&User) -> bool,
        change: impl FnMut(&[u8], &mut User),
    ) {
        if index < USER_BUCKETS {
            let keep = |name: &[u8], user: &User| self.snapshots.keep(index, name, Some(user));
            self.with(index, |bucket| bucket.change_some(concerned, keep, change));
        }
    }

    /// Looks at one bucket, while nobody else does.
    pub(crate) fn read_bucket<R>(
        &self,
        index: usize,
        look: impl FnOnce(&mut Bucket<'_>) -> R,
    ) -> Option<R> {
        (index < USER_BUCKETS).then(|| self.with(index, look))
    }

    /// Adds a user as a file describes it; false when it is there already.
    pub(crate) fn insert(&self, name: &[u8], user: User) -> bool {
        self.write(name, |slot| {
            let is_new = slot.devices().is_empty();
            if is_new {
                *slot = user;
            }
            is_new
        })
    }
}

impl Drop for UserMap {
    fn drop(&mut self) {
        // Somebody who was led here may still look; of the memory nothing need be left for that.
        self.region.discard();
    }
}

#[cfg(test)]
mod tests;
