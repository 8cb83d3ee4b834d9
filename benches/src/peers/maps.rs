//! Maps that somebody would keep sessions in: a lock around a hash table, and concurrent ones.
//!
//! All hold the same: a 16-byte name, in place, and the 40 bytes of a session, and all hash with
//! foldhash, as ours does. That is in their favour: names in place have no heap block each.

use foldhash::fast::FixedState;
use parking_lot::RwLock;

/// What a session says, as a peer would keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionValue {
    /// The gateway.
    pub gateway_id: u32,
    /// Its life.
    pub incarnation: u64,
    /// The connection.
    pub connection_id: u64,
    /// The fencing token.
    pub epoch: u64,
    /// Since when.
    pub connected_at_ms: u64,
}

/// The name of a user.
pub type Name = [u8; 16];

/// A map from names to sessions that several threads read.
pub trait SessionTable: Send + Sync {
    /// An empty one.
    fn empty() -> Self;
    /// Adds a session.
    fn insert(&self, name: Name, session: SessionValue);
    /// Looks one up.
    fn connection_of(&self, name: &Name) -> Option<u64>;
}

const LOCKS: usize = 64;

/// 64 locks, a hash table behind each: what one writes without looking for a crate.
pub struct LockedMaps {
    hasher: FixedState,
    maps: Vec<RwLock<hashbrown::HashMap<Name, SessionValue, FixedState>>>,
}

impl LockedMaps {
    fn of(&self, name: &Name) -> &RwLock<hashbrown::HashMap<Name, SessionValue, FixedState>> {
        use std::hash::BuildHasher;
        // The table behind the lock uses the lowest and the highest bits, the lock those between.
        let hash = self.hasher.hash_one(name);
        &self.maps[(hash >> 32) as usize % LOCKS]
    }
}

impl SessionTable for LockedMaps {
    fn empty() -> Self {
        let hasher = FixedState::with_seed(1);
        let map = |_| RwLock::new(hashbrown::HashMap::with_hasher(FixedState::with_seed(1)));
        Self { hasher, maps: (0..LOCKS).map(map).collect() }
    }

    fn insert(&self, name: Name, session: SessionValue) {
        self.of(&name).write().insert(name, session);
    }

    fn connection_of(&self, name: &Name) -> Option<u64> {
        self.of(name).read().get(name).map(|session| session.connection_id)
    }
}

#[cfg(feature = "peers")]
mod concurrent {
    use super::{FixedState, Name, SessionTable, SessionValue};

    /// `dashmap`: a lock a shard.
    pub type DashMap = dashmap::DashMap<Name, SessionValue, FixedState>;

    impl SessionTable for DashMap {
        fn empty() -> Self {
            Self::with_hasher(FixedState::with_seed(1))
        }

        fn insert(&self, name: Name, session: SessionValue) {
            Self::insert(self, name, session);
        }

        fn connection_of(&self, name: &Name) -> Option<u64> {
            self.get(name).map(|session| session.connection_id)
        }
    }

    /// `papaya`: readers never wait.
    pub type Papaya = papaya::HashMap<Name, SessionValue, FixedState>;

    impl SessionTable for Papaya {
        fn empty() -> Self {
            Self::with_hasher(FixedState::with_seed(1))
        }

        fn insert(&self, name: Name, session: SessionValue) {
            self.pin().insert(name, session);
        }

        fn connection_of(&self, name: &Name) -> Option<u64> {
            self.pin().get(name).map(|session| session.connection_id)
        }
    }

    /// `scc`: a lock a bucket, optimistic reads.
    pub type Scc = scc::HashMap<Name, SessionValue, FixedState>;

    impl SessionTable for Scc {
        fn empty() -> Self {
            Self::with_hasher(FixedState::with_seed(1))
        }

        fn insert(&self, name: Name, session: SessionValue) {
            self.upsert_sync(name, session);
        }

        fn connection_of(&self, name: &Name) -> Option<u64> {
            self.read_sync(name, |_, session| session.connection_id)
        }
    }
}

#[cfg(feature = "peers")]
pub use concurrent::{DashMap, Papaya, Scc};
