//! The operating system's files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::rand::GetRandomFlags;

use super::{FileHandle, FileLock, Files, OpenMode, is_direct_aligned, map};

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFiles;

struct RealFile {
    file: File,
    /// Opened with O_DIRECT and O_DSYNC: a write is durable when it returns.
    is_direct: bool,
}

impl Files for RealFiles {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut missing: Vec<PathBuf> = Vec::new();
        let mut at = dir;
        while !at.as_os_str().is_empty() && !at.is_dir() {
            missing.push(at.to_path_buf());
            match at.parent() {
                Some(parent) => at = parent,
                None => break,
            }
        }
        for dir in missing.iter().rev() {
            match fs::create_dir(dir) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
            let parent = dir.parent().filter(|p| !p.as_os_str().is_empty());
            self.sync_dir(parent.unwrap_or(Path::new(".")))?;
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn FileHandle>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
            OpenMode::WriteDirect => {
                let flags = OFlags::DIRECT | OFlags::DSYNC;
                options.write(true).custom_flags(flags.bits().cast_signed());
            }
        }
        let is_direct = mode == OpenMode::WriteDirect;
        Ok(Arc::new(RealFile { file: options.open(path)?, is_direct }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<FileLock> {
        // The file is never cut or removed: a lock file that vanishes lets two processes hold
        // "the" lock on two inodes.
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(FileLock::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    fn space_free(&self, dir: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(dir)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += rustix::rand::getrandom(rest, GetRandomFlags::empty())?;
        }
        Ok(())
    }
}

impl FileHandle for RealFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write_durable(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.is_direct {
            self.file.write_all_at(bytes, offset)?;
            return self.file.sync_data();
        }
        if !is_direct_aligned(bytes, offset) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.file.write_all_at(bytes, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }

    fn map(&self) -> io::Result<Bytes> {
        map::map_read_only(&self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::super::DIRECT_ALIGN_BYTES;
    use super::*;

    #[test]
    fn direct_writes_are_seen_through_other_handles_and_must_be_aligned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = RealFiles.open(&path, OpenMode::CreateNew).unwrap();
        file.write_at(&[7; 4 * DIRECT_ALIGN_BYTES], 0).unwrap();
        file.sync_data().unwrap();
        let direct = match RealFiles.open(&path, OpenMode::WriteDirect) {
            // Not every file system has direct writes; the caller is told.
            Err(refused) => return assert_eq!(refused.kind(), io::ErrorKind::InvalidInput),
            Ok(direct) => direct,
        };
        let memory = vec![9; 2 * DIRECT_ALIGN_BYTES];
        let start = memory.as_ptr().align_offset(DIRECT_ALIGN_BYTES);
        let block = &memory[start..start + DIRECT_ALIGN_BYTES];
        for nth in [1, 3, 2] {
            let at = nth * DIRECT_ALIGN_BYTES as u64;
            direct.write_durable(block, at).unwrap();
            let mut read = vec![0; DIRECT_ALIGN_BYTES];
            file.read_at(&mut read, at).unwrap();
            assert_eq!(read, block, "what the page cache held before is gone");
        }
        assert_eq!(file.map().unwrap()[..1], [7]);
        let refused = |bytes, at| direct.write_durable(bytes, at).unwrap_err().kind();
        assert_eq!(refused(block, 512), io::ErrorKind::InvalidInput);
        assert_eq!(refused(&block[..512], 0), io::ErrorKind::InvalidInput);
        let askew = &memory[start + 1..][..DIRECT_ALIGN_BYTES - 1];
        assert_eq!(refused(askew, 0), io::ErrorKind::InvalidInput);
    }
}
