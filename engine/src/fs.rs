//! Files, behind a trait, because there are two kinds: the operating system's ([`RealFiles`]) and
//! an in-memory disk that loses, tears and refuses writes on demand ([`sim::SimFiles`]).
//!
//! The trait is what a durable store needs and no more: positioned reads and writes, explicit syncs
//! of files and directories, atomic rename, a lock, and the free space. Nothing here buffers,
//! retries, or hides an error; a caller that gets an error from a sync must treat the file as lost.
//!
//! Invariants that callers rely on:
//! - A write is durable only after `sync_data` of the handle returned `Ok`.
//! - A created, renamed or removed name is durable only after `sync_dir` of its directory.
//! - `rename` is atomic: after a crash the old or the new name holds the file, never neither.
//! - A map shows the file as it is; whoever maps a file sees to it that nobody writes it meanwhile.
//! - Handles of one file agree: what one of them wrote, another reads, past the page cache or not.

mod map;
mod real;
pub mod sim;

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

pub use real::RealFiles;

/// A handle of [`OpenMode::WriteDirect`] takes memory, offsets and lengths in multiples of this.
pub const DIRECT_ALIGN_BYTES: usize = 4096;

/// How [`Files::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    Write,
    /// A file that must not exist yet, to read and write.
    CreateNew,
    /// An existing file, only for [`FileHandle::write_durable`] past the page cache.
    /// [`io::ErrorKind::InvalidInput`] where the file system does not have that.
    WriteDirect,
}

/// A directory tree: the operating system's, or a simulated disk.
pub trait Files: Send + Sync + 'static {
    /// Makes a directory with its parents, all of them durable when it returns.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The names of the regular files in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn FileHandle>>;

    /// Renames a file, replacing the one at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes an exclusive lock on a file (made if missing) until the value returned is dropped.
    /// [`io::ErrorKind::WouldBlock`] when somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<FileLock>;

    /// Bytes that an unprivileged process may still write under `dir`.
    fn space_free(&self, dir: &Path) -> io::Result<u64>;

    /// Fills `bytes` with randomness (a simulated disk gives the same for the same seed).
    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()>;
}

/// An open file. Dropping it closes it.
pub trait FileHandle: Send + Sync + 'static {
    /// Reads at an offset until `bytes` is full or the file ends; returns how many bytes it read.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at an offset, growing the file if need be.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written, and the size, durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Writes all of `bytes` at an offset and makes them durable. Through a handle of
    /// [`OpenMode::WriteDirect`] that is one request to the disk, and memory, offset and length must
    /// be multiples of [`DIRECT_ALIGN_BYTES`]: [`io::ErrorKind::InvalidInput`] if they are not.
    fn write_durable(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_at(bytes, offset)?;
        self.sync_data()
    }

    /// The size of the file in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Cuts or grows the file (with zeros) to `size` bytes.
    fn set_size(&self, size: u64) -> io::Result<()>;

    /// The whole file as memory, read-only. The mapping lives as long as the bytes or any part of
    /// them. An empty file gives empty bytes.
    fn map(&self) -> io::Result<Bytes>;
}

/// A lock on a file that ends when this is dropped, or with the process.
pub struct FileLock {
    _held: Box<dyn Send + Sync>,
}

impl FileLock {
    /// Wraps whatever holds the lock.
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self { _held: Box::new(held) }
    }
}

impl std::fmt::Debug for FileLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileLock")
    }
}

/// Writes a small file whole: after a crash it is there complete, or as it was before.
pub fn write_whole(files: &dyn Files, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    match files.remove(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = files.open(&temporary, OpenMode::CreateNew)?;
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    files.rename(&temporary, &dir.join(name))?;
    files.sync_dir(dir)
}

/// Reads a small file whole, refusing one of more than `bytes_max`.
pub fn read_whole(files: &dyn Files, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = files.open(path, OpenMode::Read)?;
    let size = usize::try_from(file.size()?).unwrap_or(usize::MAX);
    if size > bytes_max {
        let message = format!("{} has {size} bytes, more than {bytes_max}", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut bytes = vec![0; size];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// A file as a stream, from its start.
pub(crate) struct Sequential {
    handle: Arc<dyn FileHandle>,
    at: u64,
}

impl Sequential {
    pub(crate) fn new(handle: Arc<dyn FileHandle>) -> Self {
        Self { handle, at: 0 }
    }
}

impl Read for Sequential {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.handle.read_at(bytes, self.at)?;
        self.at = self.at.saturating_add(read as u64);
        Ok(read)
    }
}

impl Write for Sequential {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.handle.write_at(bytes, self.at)?;
        self.at = self.at.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a handle of [`OpenMode::WriteDirect`] takes `bytes` at `offset`.
#[must_use]
pub fn is_direct_aligned(bytes: &[u8], offset: u64) -> bool {
    let align = DIRECT_ALIGN_BYTES;
    bytes.as_ptr().addr().is_multiple_of(align)
        && bytes.len().is_multiple_of(align)
        && offset.is_multiple_of(align as u64)
}
