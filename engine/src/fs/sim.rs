//! A disk in memory that behaves as badly as a disk may: for tests of this crate and of others.
//!
//! What it simulates, all of it derived from one seed:
//! - *Power cut* at any chosen operation ([`SimFiles::crash_at`] by its number, [`SimFiles::watch`] by
//!   what it does, then [`SimFiles::power_cut`]).
//!   Of what was not synced, each 512-byte sector keeps its old content or any of the contents it
//!   was given since, independently: writes are lost, torn and reordered. Changes of names survive
//!   up to a random one, in their order, as on a journaling file system.
//! - *Kill* of the process ([`SimFiles::kill`]): the page cache survives, locks and handles do not.
//! - *Failing syncs* ([`SimFiles::fail_sync_at`]): the error is reported once, the pages then pass
//!   for clean although not all of them reached the disk (as Linux does).
//! - *Failing writes*, a *full disk* ([`SimFiles::set_capacity`]) and *rotten bits*
//!   ([`SimFiles::flip`]).
//!
//! It also watches its user: writing or cutting a file while a map of it is alive panics.
//!
//! Media assumption, as in `docs/file-format.md`: a sector is written whole or not at all.

mod disk;
mod inode;
mod random;
mod touch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{FileHandle, FileLock, Files, OpenMode, is_direct_aligned};
use disk::Disk;
use inode::Inode;
pub use random::Random;

pub use touch::{Touch, TouchKind, Watch};

/// Bytes that reach the disk all or not at all.
pub const SECTOR_BYTES: usize = 512;

/// The simulated disk. Clones share it; it survives crashes of the process that uses it.
///
/// ```
/// use std::path::Path;
/// use switchboard_engine::fs::{Files, OpenMode, sim::SimFiles};
///
/// let disk = SimFiles::new(7);
/// disk.create_dir_all(Path::new("/data"))?;
/// let file = disk.open(Path::new("/data/a"), OpenMode::CreateNew)?;
/// file.write_at(b"kept", 0)?;
/// file.sync_data()?;
/// disk.sync_dir(Path::new("/data"))?;
/// disk.power_cut();
/// assert!(file.size().is_err(), "the handle belongs to the time before the cut");
/// assert_eq!(disk.content(Path::new("/data/a")).as_deref(), Some(&b"kept"[..]));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct SimFiles {
    disk: Arc<Mutex<Disk>>,
}

impl SimFiles {
    /// An empty disk whose every accident follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { disk: Arc::new(Mutex::new(Disk::new(seed))) }
    }

    /// Operations that change the disk (writes, syncs, names) so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.disk.lock().operations
    }

    /// The machine goes down in the midst of the operation of this number (the first is 1); from
    /// then on everything fails until [`SimFiles::power_cut`] or [`SimFiles::kill`].
    pub fn crash_at(&self, operation: u64) {
        self.disk.lock().crash_at = Some(operation);
    }

    /// Calls `watch` before each operation that changes the disk, until the next crash; when it
    /// returns true the machine goes down in the midst of that operation. It must not use the disk.
    pub fn watch(&self, watch: impl FnMut(&Touch<'_>) -> bool + Send + 'static) {
        self.disk.lock().watch = Some(Box::new(watch));
    }

    /// The first sync at or after the operation of this number fails.
    pub fn fail_sync_at(&self, operation: u64) {
        self.disk.lock().fail_sync_at = Some(operation);
    }

    /// The first write at or after the operation of this number fails.
    pub fn fail_write_at(&self, operation: u64) {
        self.disk.lock().fail_write_at = Some(operation);
    }

    /// Limits the bytes that all files together may have; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.lock().capacity = bytes;
    }

    /// Bytes that all files have together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.disk.lock().used()
    }

    /// Whether the machine is down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.disk.lock().down
    }

    /// Loses power: what was not synced survives at random. The disk can be used again after it,
    /// by new handles and locks.
    pub fn power_cut(&self) {
        self.disk.lock().power_cut();
    }

    /// Kills the process that uses the disk: handles and locks end, what was written stays visible
    /// (and, unless it was synced, at risk).
    pub fn kill(&self) {
        self.disk.lock().start_over();
    }

    /// Flips the bits of `mask` in one byte of a file, on the platter and in the cache.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) {
        self.disk.lock().flip(path, offset, mask);
    }

    /// The content of a file as a process sees it now.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        disk.names.get(path).map(|inode| inode.lock().seen.clone())
    }

    /// The paths of all files, sorted.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.disk.lock().names.keys().cloned().collect()
    }
}

impl std::fmt::Debug for SimFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimFiles")
    }
}

impl Files for SimFiles {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.begin(&Touch::of(TouchKind::MakeDir, dir))?;
        disk.dirs.extend(dir.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.lock().list(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn FileHandle>> {
        let mut disk = self.disk.lock();
        let inode = disk.open(path, mode)?;
        Ok(Arc::new(SimFile { disk: self.disk.clone(), inode, boot: disk.boot, mode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.lock().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.lock().remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.lock().sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<FileLock> {
        let mut disk = self.disk.lock();
        disk.check_up()?;
        if disk.locks.contains(path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !disk.names.contains_key(path) {
            disk.open(path, OpenMode::CreateNew)?;
        }
        disk.locks.insert(path.to_path_buf());
        let boot = disk.boot;
        Ok(FileLock::new(SimLock { disk: self.disk.clone(), path: path.to_path_buf(), boot }))
    }

    fn space_free(&self, _dir: &Path) -> io::Result<u64> {
        let disk = self.disk.lock();
        disk.check_up()?;
        Ok(disk.capacity.map_or(u64::MAX / 2, |capacity| capacity.saturating_sub(disk.used())))
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut disk = self.disk.lock();
        bytes.fill_with(|| disk.drawn.next().to_le_bytes()[0]);
        Ok(())
    }
}

struct SimLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    boot: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock();
        if disk.boot == self.boot {
            disk.locks.remove(&self.path);
        }
    }
}

struct SimFile {
    disk: Arc<Mutex<Disk>>,
    inode: Arc<Mutex<Inode>>,
    boot: u64,
    mode: OpenMode,
}

impl SimFile {
    fn check(&self, disk: &Disk, write: bool) -> io::Result<()> {
        disk.check_up()?;
        if disk.boot != self.boot {
            return Err(io::Error::other("the handle is from before the crash"));
        }
        if write && self.mode == OpenMode::Read {
            return Err(io::Error::other("the file is open for reading only"));
        }
        Ok(())
    }
}

impl FileHandle for SimFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.disk.lock();
        self.check(&disk, false)?;
        Ok(self.inode.lock().read(bytes, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        self.check(&disk, true)?;
        let mut inode = self.inode.lock();
        let end = offset.saturating_add(bytes.len() as u64);
        disk.check_space(end.saturating_sub(inode.seen.len() as u64), &inode)?;
        let path = inode.path.clone();
        let started = disk.begin(&Touch { offset, bytes, ..Touch::of(TouchKind::Write, &path) });
        if started.is_ok() || disk.down {
            inode.write(bytes, offset);
        }
        started
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        self.check(&disk, false)?;
        let mut inode = self.inode.lock();
        let path = inode.path.clone();
        let started = disk.begin(&Touch::of(TouchKind::Sync, &path));
        match &started {
            Ok(()) => inode.sync(),
            Err(_) if !disk.down => inode.fail_sync(&mut disk.random),
            Err(_) => {}
        }
        started
    }

    /// A write and a sync, each of which may meet an accident: of a direct write that was cut off
    /// any sectors may have reached the disk. One that fails is taken for a failed sync.
    fn write_durable(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.mode != OpenMode::WriteDirect {
            self.write_at(bytes, offset)?;
            return self.sync_data();
        }
        if !is_direct_aligned(bytes, offset) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.write_at(bytes, offset)?;
        let mut disk = self.disk.lock();
        self.check(&disk, true)?;
        let mut inode = self.inode.lock();
        let path = inode.path.clone();
        let started = disk.begin(&Touch::of(TouchKind::Sync, &path));
        match &started {
            Ok(()) => inode.sync_range(offset, bytes.len()),
            Err(_) if !disk.down => inode.fail_sync(&mut disk.random),
            Err(_) => {}
        }
        started
    }

    fn size(&self) -> io::Result<u64> {
        let disk = self.disk.lock();
        self.check(&disk, false)?;
        Ok(self.inode.lock().seen.len() as u64)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        self.check(&disk, true)?;
        let mut inode = self.inode.lock();
        disk.check_space(size.saturating_sub(inode.seen.len() as u64), &inode)?;
        let path = inode.path.clone();
        disk.begin(&Touch { offset: size, ..Touch::of(TouchKind::SetSize, &path) })?;
        inode.set_size(size);
        Ok(())
    }

    fn map(&self) -> io::Result<Bytes> {
        let disk = self.disk.lock();
        self.check(&disk, false)?;
        Ok(self.inode.lock().map())
    }
}

#[cfg(test)]
#[path = "sim/tests.rs"]
mod tests;
