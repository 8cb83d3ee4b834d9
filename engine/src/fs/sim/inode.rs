//! One file of the simulated disk: what a process sees of it, and what the platter holds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::{Random, SECTOR_BYTES};

type Sector = [u8; SECTOR_BYTES];

/// Every content a sector was given since the last sync, oldest first.
type Unsynced = BTreeMap<usize, Vec<Box<Sector>>>;

#[derive(Default)]
pub(super) struct Inode {
    /// The name that it has, or had last.
    pub(super) path: PathBuf,
    /// The content as the page cache shows it.
    pub(super) seen: Vec<u8>,
    /// The content after a power cut that loses everything unsynced.
    platter: Vec<u8>,
    unsynced: Unsynced,
    /// A size set since the last sync that cuts the file.
    cut: Option<usize>,
    maps: Arc<AtomicUsize>,
}

struct Mapped {
    content: Vec<u8>,
    maps: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.maps.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Inode {
    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> usize {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.seen.len());
        let count = bytes.len().min(self.seen.len() - start);
        bytes[..count].copy_from_slice(&self.seen[start..start + count]);
        count
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        self.assert_unmapped();
        let start = usize::try_from(offset).expect("a simulated file fits in memory");
        let end = start + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[start..end].copy_from_slice(bytes);
        for number in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            self.unsynced.entry(number).or_default().push(sector_of(&self.seen, number));
        }
    }

    pub(super) fn set_size(&mut self, size: u64) {
        self.assert_unmapped();
        let size = usize::try_from(size).expect("a simulated file fits in memory");
        let before = self.seen.len();
        self.seen.resize(size, 0);
        if size < before {
            self.cut = Some(self.cut.map_or(size, |cut| cut.min(size)));
            self.unsynced.retain(|number, _| number * SECTOR_BYTES < size);
        } else {
            for number in before / SECTOR_BYTES..size.div_ceil(SECTOR_BYTES) {
                self.unsynced.entry(number).or_default().push(sector_of(&self.seen, number));
            }
        }
    }

    pub(super) fn sync(&mut self) {
        if let Some(cut) = self.cut.take() {
            self.platter.truncate(cut);
        }
        self.platter.resize(self.seen.len(), 0);
        for number in std::mem::take(&mut self.unsynced).into_keys() {
            let start = number * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(self.seen.len());
            if start < end {
                self.platter[start..end].copy_from_slice(&self.seen[start..end]);
            }
        }
    }

    /// What one durable write covers; the rest stays unsynced.
    pub(super) fn sync_range(&mut self, offset: u64, len: usize) {
        let start = usize::try_from(offset).expect("a simulated file fits in memory");
        let end = (start + len).min(self.seen.len());
        if self.platter.len() < end {
            self.platter.resize(end, 0);
        }
        if start < end {
            self.platter[start..end].copy_from_slice(&self.seen[start..end]);
        }
        self.unsynced.retain(|number, _| !(start..end).contains(&(number * SECTOR_BYTES)));
    }

    /// A sync that reports an error: some sectors reached the platter, none will be tried again.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        self.settle(random);
    }

    /// A power cut: chance decides about each unsynced sector.
    pub(super) fn power_cut(&mut self, random: &mut Random) {
        self.settle(random);
        self.seen = self.platter.clone();
        // Maps belong to a process that is gone.
        self.maps = Arc::default();
    }

    /// The process is gone, and its maps with it.
    pub(super) fn forget_maps(&mut self) {
        self.maps = Arc::default();
    }

    fn settle(&mut self, random: &mut Random) {
        if let Some(cut) = self.cut.take()
            && random.one_in(2)
        {
            self.platter.truncate(cut);
        }
        // A run in which everything survives, or nothing, finds other faults than a mixed one.
        let mood = random.below(4);
        let size = self.seen.len().max(self.platter.len());
        for (number, contents) in std::mem::take(&mut self.unsynced) {
            let choice = match mood {
                0 => 0,
                1 => contents.len() as u64,
                _ => random.below(contents.len() as u64 + 1),
            };
            let Some(content) = (choice as usize).checked_sub(1).and_then(|n| contents.get(n))
            else {
                continue;
            };
            let start = number * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(size);
            if self.platter.len() < end {
                self.platter.resize(end, 0);
            }
            self.platter[start..end].copy_from_slice(&content[..end - start]);
        }
    }

    pub(super) fn flip(&mut self, offset: u64, mask: u8) {
        let offset = usize::try_from(offset).expect("a simulated file fits in memory");
        self.seen[offset] ^= mask;
        if let Some(byte) = self.platter.get_mut(offset) {
            *byte ^= mask;
        }
    }

    pub(super) fn map(&self) -> Bytes {
        self.maps.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(Mapped { content: self.seen.clone(), maps: self.maps.clone() })
    }

    fn assert_unmapped(&self) {
        let maps = self.maps.load(Ordering::Acquire);
        assert_eq!(maps, 0, "a file was written while {maps} maps of it were alive");
    }
}

fn sector_of(content: &[u8], number: usize) -> Box<Sector> {
    let mut sector = Box::new([0; SECTOR_BYTES]);
    let start = (number * SECTOR_BYTES).min(content.len());
    let end = (start + SECTOR_BYTES).min(content.len());
    sector[..end - start].copy_from_slice(&content[start..end]);
    sector
}
