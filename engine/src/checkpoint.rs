//! The state of a group in a file, and back.
//!
//! ```text
//! DIR/checkpoints/GROUP-INDEX.ckpt     sections (see `sections`), magic "SBCKPT01"
//!   kind 1   header: log ids, log time, generation, dedup key, rules, membership   once, first
//!   kind 7   counts: how many users there are                                      once
//!   kind 2   users, with the places of their messages                              any number
//!   kind 6   dedup index: slices, and the id files that have their ids             once
//!   kind 4   meta state (meta group only)                                          at most once
//! ```
//! A checkpoint is written under another name, synced and renamed, so a file with its name is whole.
//! INDEX is the log index it stands at, 16 hexadecimal digits. Message records are not in it: they lie
//! in old files, and message ids in id files; both are durable before the checkpoint that names them.

mod loading;

use std::{
    io::{self, BufWriter},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use thiserror::Error;

pub(crate) use loading::Loading;

use crate::{
    DecodeError, GroupId, LogId,
    fs::{Files, OpenMode, Sequential},
    id_files::{IdFiles, Run},
    limits::OLD_WRITE_BYTES,
    planted::{self, Bug},
    sections::{Envelope, SectionError, SectionIndex, SectionWriter},
    state::{
        Header, Live, MetaState, Remembered, State, encode_counts, encode_dedup, encode_index,
        encode_meta,
    },
};

pub(crate) const HEADER: u8 = 1;
pub(crate) const USERS: u8 = 2;
pub(crate) const DEDUP: u8 = 3;
pub(crate) const META: u8 = 4;
const DEDUP_INDEX: u8 = 6;
const COUNTS: u8 = 7;

pub(crate) const ENVELOPE: Envelope = Envelope { magic: *b"SBCKPT01", what: "checkpoint" };
pub(crate) const SUFFIX: &str = ".ckpt";
const TEMPORARY: &str = ".ckpt.tmp";

/// What is known of the newest checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointMeta {
    /// The entry it stands at.
    pub at: LogId,
    /// The membership as of that entry, and where it stood.
    pub membership: Option<(LogId, Bytes)>,
}

/// Why a checkpoint or an export cannot be loaded.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Sections(#[from] SectionError),
    #[error("the section at byte {at} is not valid: {source}")]
    Content { at: u64, source: DecodeError },
    #[error("the section at byte {at} is out of place: {reason}")]
    Order { at: u64, reason: &'static str },
    #[error("the id file {path} that it names cannot be loaded: {source}")]
    Ids { path: PathBuf, source: Box<LoadError> },
}

/// The checkpoints of one group.
#[derive(Clone)]
pub(crate) struct Checkpoints {
    files: Arc<dyn Files>,
    dir: PathBuf,
    group: GroupId,
}

impl std::fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checkpoints({}, group {})", self.dir.display(), self.group)
    }
}

/// Removes all checkpoints of a group, also one that was not finished.
pub(crate) fn forget(files: &Arc<dyn Files>, data_dir: &Path, group: GroupId) -> io::Result<()> {
    let dir = data_dir.join("checkpoints");
    let names = match files.list(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names?,
    };
    let (prefix, temporary) = (format!("{group}-"), format!("{group}{TEMPORARY}"));
    let of_group = |name: &&String| name.starts_with(&prefix) || **name == temporary;
    let mut removed = false;
    for name in names.iter().filter(of_group) {
        files.remove(&dir.join(name))?;
        removed = true;
    }
    if removed { files.sync_dir(&dir) } else { Ok(()) }
}

impl Checkpoints {
    /// Opens the directory, which is made if it is missing.
    pub(crate) fn open(files: Arc<dyn Files>, data_dir: &Path, group: GroupId) -> io::Result<Self> {
        let dir = data_dir.join("checkpoints");
        files.create_dir_all(&dir)?;
        Ok(Self { files, dir, group })
    }

    fn name(&self, index: u64) -> String {
        format!("{}-{index:016x}{SUFFIX}", self.group)
    }

    /// The file of a checkpoint.
    pub(crate) fn path(&self, index: u64) -> PathBuf {
        self.dir.join(self.name(index))
    }

    /// The indexes of all checkpoints of the group, ascending.
    pub(crate) fn indexes(&self) -> io::Result<Vec<u64>> {
        let prefix = format!("{}-", self.group);
        let index = |name: &String| {
            let digits = name.strip_prefix(&prefix)?.strip_suffix(SUFFIX)?;
            u64::from_str_radix(digits, 16).ok()
        };
        let mut indexes: Vec<u64> = self.files.list(&self.dir)?.iter().filter_map(index).collect();
        indexes.sort_unstable();
        Ok(indexes)
    }

    /// Writes a checkpoint out of the sections that `content` writes; it is durable when this returns,
    /// and what it names must be when `content` does.
    pub(crate) fn write<T, E: From<io::Error>>(
        &self,
        index: u64,
        content: impl FnOnce(&mut SectionWriter<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let temporary = self.dir.join(format!("{}{TEMPORARY}", self.group));
        match self.files.remove(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        let handle = self.files.open(&temporary, OpenMode::CreateNew)?;
        let sequential = Sequential::new(handle.clone());
        let mut out = BufWriter::with_capacity(OLD_WRITE_BYTES, sequential);
        let mut sections = SectionWriter::new(&mut out, ENVELOPE)?;
        let written = content(&mut sections)?;
        sections.finish()?;
        handle.sync_data()?;
        self.files.rename(&temporary, &self.path(index))?;
        if !planted::is(Bug::CheckpointNameNotSynced) {
            self.files.sync_dir(&self.dir)?;
        }
        Ok(written)
    }

    /// Loads a checkpoint with the ids that it names; says also what waits in old files.
    pub(crate) fn load(&self, index: u64, id_files: &IdFiles) -> Result<(State, Live), LoadError> {
        let opened = self.files.open(&self.path(index), OpenMode::Read);
        let map = opened.and_then(|file| file.map());
        let map = map.map_err(|source| SectionError::Io { at: 0, source })?;
        loading::load(&SectionIndex::new(map, ENVELOPE)?, self.group, id_files)
    }

    /// Removes what a checkpoint that failed has left; the next one would do that as well.
    pub(crate) fn remove_unfinished(&self) {
        let _ = self.files.remove(&self.dir.join(format!("{}{TEMPORARY}", self.group)));
    }

    /// Makes the names of checkpoints durable. A process that was killed may have named one without
    /// syncing that: it is seen, and what only an older one names must stay until it cannot vanish.
    pub(crate) fn secure(&self) -> io::Result<()> {
        self.files.sync_dir(&self.dir)
    }

    /// Removes the checkpoints of the group below an index.
    pub(crate) fn remove_below(&self, index: u64) -> io::Result<()> {
        for older in self.indexes()?.into_iter().filter(|found| *found < index) {
            self.files.remove(&self.path(older))?;
        }
        Ok(())
    }
}

/// Writes the header's section.
pub(crate) fn write_header(sections: &mut SectionWriter<'_>, header: &Header) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    header.encode(&mut bytes);
    sections.section(HEADER, &bytes)
}

/// Writes how many users there are, so that a load can tell that it has all of them.
pub(crate) fn write_counts(sections: &mut SectionWriter<'_>, users: u64) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    encode_counts(&mut bytes, users);
    sections.section(COUNTS, &bytes)
}

/// Writes the dedup table whole.
pub(crate) fn write_dedup(
    sections: &mut SectionWriter<'_>,
    remembered: &Remembered,
) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    encode_dedup(&mut bytes, remembered);
    sections.split(DEDUP, &bytes)
}

/// Writes the dedup table but for its ids, which stand in `files`.
pub(crate) fn write_dedup_index(
    sections: &mut SectionWriter<'_>,
    remembered: &Remembered,
    files: &[Run],
) -> io::Result<()> {
    let numbers: Vec<u64> = files.iter().map(|run| run.number).collect();
    let mut bytes = BytesMut::new();
    encode_index(&mut bytes, remembered, &numbers);
    sections.section(DEDUP_INDEX, &bytes)
}

/// Writes the meta state, if there is any.
pub(crate) fn write_meta(sections: &mut SectionWriter<'_>, meta: &MetaState) -> io::Result<()> {
    if *meta == MetaState::default() {
        return Ok(());
    }
    let mut bytes = BytesMut::new();
    encode_meta(&mut bytes, meta);
    sections.section(META, &bytes)
}
