//! Files that count what is written to them.
//!
//! The system's own count of what a process writes is no use here: on a kernel with large folios a
//! write of 4 KiB into a cached file counts as the whole folio, up to 2 MiB, though only the blocks that
//! changed reach the disk. So bytes are counted where they are handed over.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use switchboard_engine::fs::{FileHandle, FileLock, Files, OpenMode, RealFiles};

/// The system's files, with counters.
#[derive(Clone, Default)]
pub struct CountingFiles {
    counted: Arc<Counted>,
}

/// Bytes written so far.
#[derive(Debug, Default)]
pub struct Counted {
    bytes: AtomicU64,
    zeros: AtomicU64,
}

impl Counted {
    fn count(&self, bytes: &[u8]) {
        let is_zero = bytes.iter().all(|byte| *byte == 0);
        let counter = if is_zero { &self.zeros } else { &self.bytes };
        counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }

    /// All bytes but those of writes that were nothing but zeros.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of writes that were nothing but zeros: new segments are filled with them.
    pub fn zeros(&self) -> u64 {
        self.zeros.load(Ordering::Relaxed)
    }
}

impl CountingFiles {
    /// The counters.
    pub fn counted(&self) -> &Counted {
        &self.counted
    }
}

impl Files for CountingFiles {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealFiles.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealFiles.list(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn FileHandle>> {
        let file = RealFiles.open(path, mode)?;
        Ok(Arc::new(CountingFile { file, counted: Arc::clone(&self.counted) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFiles.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFiles.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealFiles.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<FileLock> {
        RealFiles.lock(path)
    }

    fn space_free(&self, dir: &Path) -> io::Result<u64> {
        RealFiles.space_free(dir)
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        RealFiles.fill_random(bytes)
    }
}

struct CountingFile {
    file: Arc<dyn FileHandle>,
    counted: Arc<Counted>,
}

impl FileHandle for CountingFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.counted.count(bytes);
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write_durable(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.counted.count(bytes);
        self.file.write_durable(bytes, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.file.set_size(size)
    }

    fn map(&self) -> io::Result<Bytes> {
        self.file.map()
    }
}
