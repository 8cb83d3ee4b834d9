//! The state as of one entry, while `apply` goes on changing it.
//!
//! ```text
//!   apply ── about to change a user ──▶ of a bucket not visited yet? ──▶ the user as it was, kept
//!                                                                             │
//!   visit(bucket) ──▶ users as they are, but for those kept: as they were ◀───┘
//! ```
//! Nothing is copied when a snapshot begins, and no bucket is copied at all: the writer keeps one user
//! at a time, the first time that it changes one since the snapshot began and before the bucket is
//! visited. So it never waits for longer than one visit of the very bucket that it writes to, and memory
//! holds what changed ahead of the visits, not a second state.
//!
//! Invariant: whoever changes a user calls [`Snapshots::keep`] before, while readers are kept out of
//! the user's bucket; a visit keeps writers out of it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use foldhash::fast::FixedState;
use parking_lot::Mutex;

use super::{Header, MetaState, State, dedup::Remembered, user::User};
use crate::limits::USER_BUCKETS;

/// Users as they were; `None`: there was no record.
type Kept = HashMap<Bytes, Option<User>, FixedState>;

/// The snapshots that are under way on one state.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// How many, so that the writer need not lock when there is none.
    count: AtomicUsize,
    /// A lock, held by the writer to keep a user and by snapshots to come and go.
    active: Mutex<Vec<Arc<Before>>>,
}

impl Snapshots {
    /// Keeps a user as it is, for snapshots that have not visited its bucket.
    pub(super) fn keep(&self, bucket: usize, name: &[u8], user: Option<&User>) {
        // Snapshots begin while the writer is kept out, so it sees every one that it must serve.
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        for before in self.active.lock().iter() {
            before.keep(bucket, name, user);
        }
    }

    fn begin(&self) -> Arc<Before> {
        let before = Arc::new(Before::default());
        let mut active = self.active.lock();
        active.push(Arc::clone(&before));
        self.count.store(active.len(), Ordering::Release);
        before
    }

    fn end(&self, before: &Arc<Before>) {
        let mut active = self.active.lock();
        active.retain(|other| !Arc::ptr_eq(other, before));
        self.count.store(active.len(), Ordering::Release);
    }
}

/// What one snapshot needs to know of what has changed since it began.
#[derive(Debug)]
struct Before {
    /// By bucket; `None` once the bucket has been visited. A lock each, taken under the bucket's own.
    buckets: Box<[Mutex<Option<Kept>>]>,
}

impl Default for Before {
    fn default() -> Self {
        let bucket = |_| Mutex::new(Some(Kept::default()));
        Self { buckets: (0..USER_BUCKETS).map(bucket).collect() }
    }
}

impl Before {
    fn keep(&self, bucket: usize, name: &[u8], user: Option<&User>) {
        let Some(bucket) = self.buckets.get(bucket) else { return };
        if let Some(kept) = bucket.lock().as_mut()
            && !kept.contains_key(name)
        {
            kept.insert(Bytes::copy_from_slice(name), user.cloned());
        }
    }

    fn take(&self, bucket: usize) -> Option<Kept> {
        self.buckets.get(bucket)?.lock().take()
    }
}

/// The whole state of a group as of one entry; each bucket of it can be visited once.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) header: Header,
    pub(crate) dedup: Remembered,
    pub(crate) meta: Arc<MetaState>,
    /// How many users there are.
    pub(crate) users: u64,
    state: Arc<State>,
    before: Arc<Before>,
}

impl Snapshot {
    /// Begins a snapshot. The caller keeps `apply` out meanwhile, so that it shows one entry.
    pub(crate) fn of(state: &Arc<State>) -> Self {
        let dedup = state.dedup.lock().remembered();
        let meta = Arc::clone(&state.meta.read());
        Self {
            header: state.header(),
            dedup,
            meta,
            users: state.stats().users,
            before: state.users.snapshots().begin(),
            state: Arc::clone(state),
        }
    }

    /// Calls `each` with every user of a bucket, in no order, while the writer is kept out of the
    /// bucket: keep it short. A second visit of the same bucket finds nobody.
    pub(crate) fn visit(&self, bucket: usize, mut each: impl FnMut(&[u8], &User)) {
        let mut kept = None;
        self.state.users.read_bucket(bucket, |living| {
            kept = self.before.take(bucket);
            let Some(kept) = &kept else { return };
            living.each(|name, user| {
                if !kept.contains_key(name) {
                    each(name, user);
                }
            });
        });
        // What was kept is nobody else's, so the writer may go on.
        for (name, user) in kept.into_iter().flatten() {
            if let Some(user) = user {
                each(&name, &user);
            }
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.state.users.snapshots().end(&self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::state::{Message, Place};

    fn name(number: u8) -> Bytes {
        Bytes::from(vec![b'u', number])
    }

    /// Gives a user one more message, or takes its record away.
    fn change(state: &State, (number, removes): (u8, bool)) {
        state.users.write(&name(number), |user| {
            let mailbox = &mut user.ensure(1).mailbox;
            if removes {
                mailbox.clear();
            } else {
                let seqs = (mailbox.tail() + 1, mailbox.tail());
                let place = Place::Old { file: 1, offset: 24 };
                mailbox.push(Message::from_parts(seqs, (9, 9), 0, 0, place).expect("a message"));
            }
        });
    }

    fn tails(state: &State) -> BTreeMap<Bytes, u64> {
        let tail = |number| {
            let name = name(number);
            let tail = state.users.read(&name, |user| Some(user?.device(1)?.mailbox.tail()));
            tail.map(|tail| (name, tail))
        };
        (0..=u8::MAX).filter_map(tail).collect()
    }

    fn visit(snapshot: &Snapshot, bucket: usize, seen: &mut BTreeMap<Bytes, u64>) {
        snapshot.visit(bucket, |name, user| {
            let tail = user.device(1).map_or(0, |device| device.mailbox.tail());
            assert!(seen.insert(Bytes::copy_from_slice(name), tail).is_none(), "seen twice");
        });
    }

    proptest! {
        #[test]
        fn a_snapshot_shows_the_moment_it_began_whatever_changes_meanwhile(
            first in proptest::collection::vec(any::<(u8, bool)>(), 0..300),
            meanwhile in proptest::collection::vec((any::<(u8, bool)>(), 0..USER_BUCKETS), 0..300),
        ) {
            let state = Arc::new(State::new(Header::new(1)));
            first.iter().for_each(|step| change(&state, *step));
            let expected = tails(&state);
            let (snapshot, mut seen) = (Snapshot::of(&state), BTreeMap::new());
            for (step, bucket) in meanwhile {
                change(&state, step);
                visit(&snapshot, bucket, &mut seen);
            }
            // One that begins later is not mistaken for the first.
            let (later, mut seen_later) = (Snapshot::of(&state), BTreeMap::new());
            let expected_later = tails(&state);
            for bucket in 0..USER_BUCKETS {
                change(&state, (bucket as u8, bucket % 3 == 0));
                visit(&snapshot, bucket, &mut seen);
                visit(&later, bucket, &mut seen_later);
            }
            prop_assert_eq!(seen, expected);
            prop_assert_eq!(seen_later, expected_later);
            drop((snapshot, later));
            prop_assert_eq!(state.users.snapshots().count.load(Ordering::Relaxed), 0);
        }
    }
}
