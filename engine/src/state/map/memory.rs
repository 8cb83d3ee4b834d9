//! Memory that is words from its first byte to its last, for as long as it is mapped.
//!
//! Nothing but atomic words is ever made of it, and it stays mapped while the map that it belongs to can
//! be read. So a reader may look at a word whose meaning has changed: it finds an old or a new value,
//! and the version of what it read tells it that it was too late.

#![allow(unsafe_code)]

use std::{io, sync::atomic::AtomicU64};

use memmap2::{Advice, MmapMut, UncheckedAdvice};

/// Huge pages begin at multiples of their size.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Words, zero until they are written. Pages take memory from their first write on.
#[derive(Debug)]
pub(super) struct Words {
    map: MmapMut,
    /// Bytes before the first word.
    skip: usize,
    len: usize,
}

impl Words {
    /// Words on ordinary pages.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let map = MmapMut::map_anon(len * size_of::<AtomicU64>())?;
        Ok(Self { map, skip: 0, len })
    }

    /// Words on huge pages where the system has them: a look-up among many gigabytes then finds its
    /// page at once.
    pub(super) fn huge(len: usize) -> io::Result<Self> {
        let map = MmapMut::map_anon(len * size_of::<AtomicU64>() + HUGE_PAGE_BYTES)?;
        let skip = map.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // Without huge pages it is slower and nothing else, so a refusal is no error.
        let _ = map.advise(Advice::HugePage);
        Ok(Self { map, skip, len })
    }

    pub(super) fn words(&self) -> &[AtomicU64] {
        let first = self.map[self.skip..].as_ptr().cast::<AtomicU64>();
        // SAFETY: the map is private to this value, was made at least `skip` and `len` words long, and
        // lives as long as the borrow. It begins at a page and `skip` is a multiple of one or zero, so
        // the words are aligned. Any bits are a word, and nobody makes anything but shared atomic
        // words of this memory.
        unsafe { std::slice::from_raw_parts(first, self.len) }
    }

    /// Gives the pages back to the system: the words are zero again, and readers may go on reading.
    pub(super) fn discard(&self) {
        // SAFETY: the map is anonymous and private, so its pages become pages of zeros. All that is
        // made of them are atomic words, of which zero is one that a reader must expect.
        let _ = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn words_are_zero_until_written_and_after_they_were_given_back() {
        for words in [Words::new(1_000), Words::huge(1 << 18)] {
            let words = words.expect("memory");
            assert!(words.words().iter().all(|word| word.load(Relaxed) == 0));
            words.words()[999].store(7, Relaxed);
            assert_eq!(words.words()[999].load(Relaxed), 7);
            words.discard();
            assert_eq!(words.words()[999].load(Relaxed), 0);
        }
    }
}
