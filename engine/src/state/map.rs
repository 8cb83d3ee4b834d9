//! The users of a shard: 1,024 buckets, one writer, many readers.
//!
//! The bucket of a user follows from a fixed hash, because expiry and sweeps walk the buckets and every
//! replica must walk them alike. Inside a bucket the order is undefined, so nothing that is replicated
//! may depend on it.
//!
//! Before a user changes, snapshots that are under way are told (see `snapshot`). This file is all that
//! knows how users are kept: another map can take its place.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::FixedState;
use parking_lot::RwLock;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{
    snapshot::Snapshots,
    user::{Totals, User},
};
use crate::limits::{SHARDS_MAX, USER_BUCKETS};

/// The users whose hashes lie in one range.
#[derive(Debug)]
pub(crate) struct Bucket {
    users: HashMap<Bytes, User, FixedState>,
    totals: Totals,
    /// Lower bound of the earliest expiry in the bucket.
    next_expiry_ms: u64,
}

impl Bucket {
    fn new(seed: u64) -> Self {
        Self {
            users: HashMap::with_hasher(FixedState::with_seed(seed)),
            totals: Totals::default(),
            next_expiry_ms: u64::MAX,
        }
    }

    /// All users, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Bytes, &User)> {
        self.users.iter()
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    pub(crate) fn next_expiry_ms(&self) -> u64 {
        self.next_expiry_ms
    }

    /// Calls `change` on one user and keeps counts and records right after it.
    fn change<R>(&mut self, name: &[u8], change: impl FnOnce(&mut User) -> R) -> R {
        if let Some(user) = self.users.get_mut(name) {
            let before = user.totals();
            let result = change(user);
            let is_empty = user.prune();
            let (after, next) = (user.totals(), user.next_expiry_ms());
            self.account(before, after, next);
            if is_empty {
                self.users.remove(name);
                self.shrink();
            }
            return result;
        }
        let mut user = User::default();
        let result = change(&mut user);
        if !user.prune() {
            self.account(Totals::default(), user.totals(), user.next_expiry_ms());
            self.users.insert(Bytes::copy_from_slice(name), user);
        }
        result
    }

    fn account(&mut self, before: Totals, after: Totals, next_expiry_ms: u64) {
        self.totals = self.totals.minus(before).plus(after);
        self.next_expiry_ms = self.next_expiry_ms.min(next_expiry_ms);
    }

    /// Calls `change` on every user; drops those that hold nothing after it.
    fn change_all(&mut self, mut change: impl FnMut(&Bytes, &mut User)) {
        let mut totals = Totals::default();
        let mut next_expiry_ms = u64::MAX;
        self.users.retain(|name, user| {
            change(name, user);
            let is_empty = user.prune();
            totals = totals.plus(user.totals());
            next_expiry_ms = next_expiry_ms.min(user.next_expiry_ms());
            !is_empty
        });
        self.totals = totals;
        self.next_expiry_ms = next_expiry_ms;
        self.shrink();
    }

    fn shrink(&mut self) {
        if self.users.capacity() > 64 && self.users.len() * 8 < self.users.capacity() {
            self.users.shrink_to(self.users.len() * 2);
        }
    }
}

/// The users of a shard.
#[derive(Debug)]
pub(crate) struct UserMap {
    /// A lock per bucket: a reader waits for the writer only in its own bucket, and only while one
    /// command changes it.
    buckets: Box<[RwLock<Bucket>]>,
    snapshots: Snapshots,
}

impl UserMap {
    /// An empty map. The hash inside a bucket is seeded from `key`, so that names cannot be chosen
    /// to collide.
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        let seed = xxh3_64_with_seed(key, 1);
        let bucket = |_| RwLock::new(Bucket::new(seed));
        let buckets = (0..USER_BUCKETS).map(bucket).collect();
        Self { buckets, snapshots: Snapshots::default() }
    }

    /// The snapshots of this map that are under way.
    pub(super) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// The top bits of the hash choose the shard, up to as many as the most shards need. Those after
    /// them choose the bucket, so a bucket holds a contiguous range of what is left of the hash.
    fn index_of(user: &[u8]) -> usize {
        let order = xxh3_64(user).rotate_left(SHARDS_MAX.ilog2());
        usize::try_from(order >> (u64::BITS - USER_BUCKETS.ilog2())).unwrap_or(0)
    }

    /// Looks at a user; `None` when there is no record. Keep it short: the writer may wait.
    pub(crate) fn read<R>(&self, user: &[u8], look: impl FnOnce(Option<&User>) -> R) -> R {
        let bucket = self.buckets[Self::index_of(user)].read();
        look(bucket.users.get(user))
    }

    /// Changes a user, who is made if there is none and dropped if nothing is left.
    pub(crate) fn write<R>(&self, user: &[u8], change: impl FnOnce(&mut User) -> R) -> R {
        let index = Self::index_of(user);
        let mut bucket = self.buckets[index].write();
        self.snapshots.keep(index, user, bucket.users.get(user));
        bucket.change(user, change)
    }

    /// Changes those users of one bucket that are `concerned`; the others are only looked at.
    pub(crate) fn write_bucket(
        &self,
        index: usize,
        concerned: impl Fn(&User) -> bool,
        mut change: impl FnMut(&Bytes, &mut User),
    ) {
        let Some(bucket) = self.buckets.get(index) else { return };
        bucket.write().change_all(|name, user| {
            if concerned(user) {
                self.snapshots.keep(index, name, Some(user));
                change(name, user);
            }
        });
    }

    /// Looks at one bucket.
    pub(crate) fn read_bucket<R>(
        &self,
        index: usize,
        look: impl FnOnce(&Bucket) -> R,
    ) -> Option<R> {
        Some(look(&self.buckets.get(index)?.read()))
    }

    /// Makes room for users that are about to be added.
    pub(crate) fn reserve(&self, users: usize) {
        for bucket in &self.buckets {
            bucket.write().users.reserve(users / USER_BUCKETS * 9 / 8);
        }
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
