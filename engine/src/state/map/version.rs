//! Reading what a writer may be changing: a version before and after.
//!
//! ```text
//!   writer   version odd │ fence │ words … │ version even, 2 more
//!   reader   version even? │ words … │ fence │ version the same? then the words belong together
//! ```
//! Readers write nothing, so any number of them cost each other nothing, and a look-up may overlap with
//! the next. The words are atomic: a reader that comes too early or too late has read values that somebody
//! wrote, and throws them away. This is the sequence lock of Boehm, "Can seqlocks get along with
//! programming language memory models?" (MSPC 2012).
//!
//! Words outside of what the version guards may be rewritten freely once they have been taken out of it:
//! whoever reads the new value there also sees that the version has moved on, because [`write`] puts a
//! release fence between the two.

use std::sync::atomic::{self, AtomicU64, Ordering};

/// A word that threads share. The second implementation is loom's, which tries every order of events.
pub(super) trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn fence(order: Ordering);
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        Self::load(self, order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        Self::store(self, value, order);
    }

    #[inline]
    fn fence(order: Ordering) {
        atomic::fence(order);
    }
}

/// One try to read: `None` when a writer came in between.
#[inline]
pub(super) fn try_read<W: Word, R>(version: &W, read: impl FnOnce() -> R) -> Option<R> {
    let before = version.load(Ordering::Acquire);
    if before % 2 == 1 {
        return None;
    }
    let result = read();
    W::fence(Ordering::Acquire);
    (version.load(Ordering::Relaxed) == before).then_some(result)
}

/// Changes words that the version guards. The caller keeps other writers out.
pub(super) fn write<W: Word>(version: &W, change: impl FnOnce()) {
    let before = version.load(Ordering::Relaxed);
    version.store(before.wrapping_add(1), Ordering::Relaxed);
    W::fence(Ordering::Release);
    change();
    version.store(before.wrapping_add(2), Ordering::Release);
}

#[cfg(test)]
mod tests;
