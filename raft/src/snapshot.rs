//! A shard as a file, for a replica that the log no longer reaches.
//!
//! The snapshot that openraft knows of is the engine's checkpoint, which lives in place and costs
//! nothing to name. Only when a follower needs it is the shard written to a file: an export of
//! the state as of *that* moment, bodies included, streamed and checksummed by the engine, never
//! whole in memory. It may hold more than the checkpoint that was named; the file says itself up
//! to which entry, and the receiver goes by the file.
//!
//! A snapshot file is temporary on both sides: its name is unique, and dropping it removes it.
//! What a crash leaves behind is removed when the node opens. A file that could not be sent to its end is kept for
//! the next try, and so is what came of it at the receiver ([`PartialSnapshot`]).

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use switchboard_engine::Shard;
use switchboard_engine::fs::{FileHandle, Files, OpenMode};

use crate::limits::SNAPSHOT_BUFFER_BYTES;
use crate::types::{SnapshotMeta, stored_membership, to_raft};

/// Directory of snapshot files under a node's data directory.
pub(crate) const SNAPSHOT_DIR: &str = "snapshots";

/// Where snapshot files are made.
#[derive(Clone)]
pub(crate) struct SnapshotDir {
    files: Arc<dyn Files>,
    dir: PathBuf,
    next: Arc<AtomicU64>,
}

impl SnapshotDir {
    /// Makes the directory and removes what a crash left in it.
    pub(crate) fn open(files: Arc<dyn Files>, data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join(SNAPSHOT_DIR);
        files.create_dir_all(&dir)?;
        for name in files.list(&dir)? {
            files.remove(&dir.join(name))?;
        }
        Ok(Self { files, dir, next: Arc::default() })
    }

    /// A new file, to be filled by `fill`, which runs on a thread that may block.
    pub(crate) async fn create<F>(&self, fill: F) -> io::Result<SnapshotFile>
    where
        F: FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    {
        let dir = self.clone();
        let task = crate::blocking::run(move || {
            let mut partial = dir.begin()?;
            let mut writer = BufWriter::with_capacity(SNAPSHOT_BUFFER_BYTES, &mut partial.to);
            fill(&mut writer)?;
            writer.flush()?;
            drop(writer);
            Ok(partial.finish())
        });
        task.await.map_err(io::Error::other)?
    }

    /// A new file, to be written by whoever receives it, on threads that may block.
    pub(crate) fn begin(&self) -> io::Result<PartialSnapshot> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (files, path) = (self.files.clone(), self.dir.join(format!("{number:08}.snapshot")));
        let handle = files.open(&path, OpenMode::CreateNew)?;
        let file = SnapshotFile(Arc::new(Temporary { files, path, number }));
        Ok(PartialSnapshot { file, to: Sequential { handle, at: 0 } })
    }
}

/// The beginning of a snapshot that is being received; dropping it removes it.
pub struct PartialSnapshot {
    file: SnapshotFile,
    to: Sequential,
}

impl std::fmt::Debug for PartialSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartialSnapshot").field("file", &self.file).finish_non_exhaustive()
    }
}

impl PartialSnapshot {
    /// Bytes written.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.to.at
    }

    /// Writes at the end; it blocks.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)
    }

    /// The file as it is now, which the sender has said is the whole.
    #[must_use]
    pub fn finish(self) -> SnapshotFile {
        self.file
    }
}

/// A shard in a file, removed with the last of its handles.
#[derive(Clone, Debug)]
pub struct SnapshotFile(Arc<Temporary>);

impl SnapshotFile {
    /// Reads the file from its start.
    pub fn reader(&self) -> io::Result<impl Read + use<>> {
        self.reader_from(0)
    }

    /// Reads the file from a byte on.
    pub fn reader_from(&self, at: u64) -> io::Result<impl Read + use<>> {
        let handle = self.0.files.open(&self.0.path, OpenMode::Read)?;
        Ok(BufReader::with_capacity(SNAPSHOT_BUFFER_BYTES, Sequential { handle, at }))
    }

    /// Tells it from every other one of this life of the node.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.number
    }

    pub(crate) fn bytes(&self) -> io::Result<u64> {
        self.0.files.open(&self.0.path, OpenMode::Read)?.size()
    }

    /// What the file holds, by its own header.
    pub(crate) fn meta(&self) -> io::Result<SnapshotMeta> {
        let header = Shard::read_export_header(&mut self.reader()?).map_err(io::Error::other)?;
        Ok(SnapshotMeta {
            last_log_id: header.at.map(to_raft),
            last_membership: stored_membership(header.membership).map_err(io::Error::other)?,
        })
    }
}

struct Temporary {
    files: Arc<dyn Files>,
    path: PathBuf,
    number: u64,
}

impl std::fmt::Debug for Temporary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.fmt(f)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = self.files.remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a snapshot file stays behind");
        }
    }
}

/// What openraft passes around as a snapshot.
pub(crate) enum SnapshotData {
    /// The shard itself; exported when it has to travel.
    Live { shard: Arc<Shard>, dir: SnapshotDir },
    /// Received from a leader.
    File(SnapshotFile),
}

impl SnapshotData {
    /// The snapshot as a file that can be sent or imported.
    pub(crate) async fn into_file(self) -> io::Result<SnapshotFile> {
        match self {
            Self::File(file) => Ok(file),
            Self::Live { shard, dir } => {
                dir.create(move |writer| shard.export(writer).map_err(io::Error::other)).await
            }
        }
    }
}

/// A file as a stream: reads and writes at a position that moves on.
struct Sequential {
    handle: Arc<dyn FileHandle>,
    at: u64,
}

impl Read for Sequential {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.handle.read_at(bytes, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Write for Sequential {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.handle.write_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
