//! The way of a look-up to the sessions, past the lock that the state is behind.
//!
//! ```text
//!   look-up ──▶ current ──▶ region of the state ──▶ current still the same? then it is an answer
//!   import  ──▶ new state, its region next in line ──▶ current ──▶ old state dropped
//! ```
//! An import replaces the state as a whole, while look-ups count nobody and lock nothing. So a region
//! stays, without the memory behind it, until the shard is dropped: a look-up that was led to it still
//! finds words there, and then that it was led astray. There are places for [`IMPORTS_MAX`] imports;
//! after those, until the shard is opened again, look-ups go through the lock.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering, fence},
};

use crate::{limits::IMPORTS_MAX, state::Region};

/// The regions of a shard's states.
#[derive(Debug)]
pub(super) struct Regions {
    all: Box<[OnceLock<Arc<Region>>]>,
    current: AtomicUsize,
}

impl Regions {
    pub(super) fn new(first: Arc<Region>) -> Self {
        let later = (0..IMPORTS_MAX).map(|_| OnceLock::new());
        let all = std::iter::once(OnceLock::from(first)).chain(later).collect();
        Self { all, current: AtomicUsize::new(0) }
    }

    /// Leads look-ups to another region. The state of the one before must live until this returns.
    pub(super) fn follow(&self, region: Arc<Region>) {
        let next = self.current.load(Ordering::Relaxed).saturating_add(1).min(self.all.len());
        if let Some(place) = self.all.get(next) {
            drop(place.set(region));
        }
        self.current.store(next, Ordering::SeqCst);
    }

    /// What `look` finds; `None` if there were too many imports.
    #[inline]
    pub(super) fn look<R>(&self, look: impl Fn(&Region) -> R) -> Option<R> {
        loop {
            let current = self.current.load(Ordering::Acquire);
            let found = look(self.all.get(current)?.get()?);
            fence(Ordering::Acquire);
            if self.current.load(Ordering::Relaxed) == current {
                return Some(found);
            }
        }
    }
}
