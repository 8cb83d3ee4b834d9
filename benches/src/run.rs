//! What a run of the report was asked for, and where it may write.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// One run: how much, where, and its voice.
#[derive(Debug)]
pub struct Run {
    is_quick: bool,
    dir: PathBuf,
    started: Instant,
}

/// A file system that keeps its files in memory: a sync costs nothing there.
const TMPFS_MAGIC: i64 = 0x0102_1994;

impl Run {
    /// A run that keeps its files under `dir`, which must be on a disk. A quick one does a
    /// twentieth of the work, to see that everything runs; its figures say little.
    pub fn new(dir: PathBuf, is_quick: bool) -> Result<Self> {
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let kind = rustix::fs::statfs(&dir)?.f_type;
        let shown = dir.display();
        ensure!(i128::from(kind) != i128::from(TMPFS_MAGIC), "{shown} is in memory: give --dir");
        Ok(Self { is_quick, dir, started: Instant::now() })
    }

    /// Whether it is a quick one.
    pub fn is_quick(&self) -> bool {
        self.is_quick
    }

    /// `full`, or a twentieth of it in a quick run.
    pub fn scaled(&self, full: u64) -> u64 {
        if self.is_quick { full / 20 } else { full }
    }

    /// A directory of its own that is removed with the value.
    pub fn scratch(&self) -> Result<TempDir> {
        scratch_in(&self.dir)
    }

    /// Where scratch directories are made.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Says what is being done, on standard error.
    pub fn say(&self, text: impl std::fmt::Display) {
        eprintln!("{:6.1} s  {text}", self.started.elapsed().as_secs_f64());
    }
}

/// A directory of its own under `dir`.
pub fn scratch_in(dir: &Path) -> Result<TempDir> {
    let made = tempfile::Builder::new().prefix("switchboard-report-").tempdir_in(dir);
    made.with_context(|| format!("cannot make a directory in {}", dir.display()))
}
