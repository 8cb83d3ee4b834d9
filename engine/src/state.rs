//! The state of one group in memory, and `apply`, the only thing that changes it.
//!
//! ```text
//!   entry (log id, stamp, commands)                readers, any number of threads
//!          │ one writer                                  │
//!          ▼                                             ▼
//!      apply ──▶ header │ users (1,024 buckets) │ dedup │ meta ◀── query
//!                                │
//!                                └─▶ snapshot: the users as of one entry, bucket by bucket
//! ```
//!
//! `apply` is a pure function of the state and the entry: no clock, no randomness, no file, no
//! iteration in an order that could differ. It is called by one thread at a time; readers see each
//! command whole or not at all. A [`Snapshot`] is the state at one entry: it begins in microseconds, and
//! from then on the writer keeps what it changes before it is visited. Checkpoints, exports and the state
//! hash work on snapshots while `apply` goes on.
//!
//! Here is no body of any message: only where it lies.

mod apply;
mod dedup;
mod encode;
mod expiry;
mod hash;
mod header;
mod live;
mod mailbox;
mod map;
mod message;
mod meta;
mod placement;
mod query;
mod restore;
mod snapshot;
mod user;

pub use apply::ApplyError;
pub(crate) use dedup::{
    Dedup, DedupIndex, Entry as DedupEntry, Remembered, decode_dedup, decode_ids, decode_index,
    encode_dedup, encode_ids, encode_index,
};
pub(crate) use encode::{
    Described, Expected, decode_counts, decode_meta, each_user, encode_counts, encode_meta,
    encode_user, put_place,
};
pub(crate) use header::Header;
pub(crate) use live::Live;
pub(crate) use message::{Message, Place};
pub use meta::{ClusterInfo, GatewayInfo, MetaState, NodeInfo};
pub use placement::{Move, NodeRole, Placement};
pub use query::{Located, LocatedOne, MailboxStat, ShardStats};
pub(crate) use snapshot::Snapshot;
pub use user::SessionRecord;
pub(crate) use user::User;

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

pub(crate) use map::{Answer, Filling, Region};

use map::UserMap;

/// The state of one group.
#[derive(Debug)]
pub(crate) struct State {
    /// Small values that every read may want. A lock, because a reader needs them as of one moment.
    header: RwLock<Header>,
    users: UserMap,
    /// Touched by `apply` and by snapshots only, so the lock is never waited for while reading.
    dedup: Mutex<Dedup>,
    /// Replaced as a whole on each change, which is rare.
    meta: RwLock<Arc<MetaState>>,
}

impl State {
    /// The state before the first entry.
    pub(crate) fn new(header: Header) -> Self {
        Self {
            users: UserMap::new(&header.dedup_key),
            dedup: Mutex::new(Dedup::default()),
            meta: RwLock::new(Arc::new(MetaState::default())),
            header: RwLock::new(header),
        }
    }

    /// What look-ups of sessions need no lock for.
    pub(crate) fn region(&self) -> &Arc<Region> {
        self.users.region()
    }

    pub(crate) fn header(&self) -> Header {
        self.header.read().clone()
    }

    pub(crate) fn log_time_ms(&self) -> u64 {
        self.header.read().log_time_ms
    }
}
