//! Preparing a data directory from a backup, while no node has it open.
//!
//! ```text
//!  backup ─ part by part ─▶ Shard::restore in DIR.restoring ─▶ sync ─▶ rename to DIR
//!           (checked)        + a vote for the term it stands at
//! ```
//! Every group becomes one of a single voter, the node that will be started on the directory, under a
//! raised generation and a new cluster id. Log ids go on from where the backup stands: a vote for its
//! term is written, so that no later entry has a lower one. The directory gets its name when all is
//! durable, so what was cut short is never started.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::Membership;
use switchboard_engine::backup::{BackupError, BackupReader, Manifest, Part};
use switchboard_engine::fs::{Files, RealFiles};
use switchboard_engine::log::{AppendError, Log, LogOpenError, LogOptions, Record};
use switchboard_engine::{
    GroupId, ImportError, Restoration, Shard, ShardOpenError, ShardOptions, ShardStats,
};

use crate::codec;
use crate::types::{NodeId, RaftVote};

/// Why a backup is not sound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It cannot be read, or is damaged.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The state of a group in it cannot be loaded.
    #[error("the state of group {group}: {source}")]
    Group {
        /// Which group.
        group: GroupId,
        /// What is wrong with it.
        source: Box<ImportError>,
    },
    /// A group's state is not the one that the backup says.
    #[error("the state of group {group} stands elsewhere than the backup says")]
    OtherState {
        /// Which group.
        group: GroupId,
    },
}

/// Why a directory was not prepared. Nothing has its name then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// There is something already.
    #[error("{} is not empty: a backup is restored into a directory of its own", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The directory cannot be made, read, synced or renamed.
    #[error("{}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The backup is not sound.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A log cannot be made.
    #[error(transparent)]
    Log(#[from] LogOpenError),
    /// A group cannot be opened.
    #[error(transparent)]
    Shard(#[from] ShardOpenError),
    /// The log cannot be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Where a backup is restored to.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The data directory to make; it must be missing or empty.
    pub data_dir: PathBuf,
    /// The node that will be started on it.
    pub node_id: NodeId,
    /// The generation of all positions from now on; none: one above the highest in the backup.
    pub generation: Option<u8>,
}

/// What a part of a backup holds.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Which group, at which entry.
    pub part: Part,
    /// What is in it.
    pub stats: ShardStats,
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the backup says of itself.
    pub manifest: Manifest,
    /// The id of the new cluster.
    pub cluster_id: [u8; 16],
    /// The generation of all positions from now on.
    pub generation: u8,
    /// Every group.
    pub parts: Vec<Verified>,
}

/// Reads a backup whole: structure, checksums, and the state of every group. `told` hears how many bytes
/// have been read, after each group.
///
/// # Errors
/// See [`VerifyError`]; damage is named with its offset.
pub fn verify(
    input: &mut dyn Read,
    mut told: impl FnMut(u64),
) -> Result<(Manifest, Vec<Verified>), VerifyError> {
    let mut backup = BackupReader::new(input)?;
    let mut parts = Vec::new();
    while let Some(mut reader) = backup.next_part()? {
        let part = reader.part();
        let read = Shard::verify_export(part.group, &mut reader);
        if let Some(failure) = reader.take_failure() {
            return Err(failure.into());
        }
        let (header, stats) =
            read.map_err(|source| VerifyError::Group { group: part.group, source: source.into() })?;
        if header.at != Some(part.at) || header.generation != part.generation {
            return Err(VerifyError::OtherState { group: part.group });
        }
        told(reader.at());
        reader.finish()?;
        parts.push(Verified { part, stats });
    }
    Ok((backup.manifest().clone(), parts))
}

/// Makes a data directory of a backup that [`verify`] has found sound. `open` opens the backup from its
/// start. Blocks.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore(
    mut open: impl FnMut() -> io::Result<Box<dyn Read>>,
    options: &RestoreOptions,
    mut told: impl FnMut(u64),
) -> Result<Restored, RestoreError> {
    let dir = &options.data_dir;
    let at = |path: &Path, source| RestoreError::Directory { path: path.to_owned(), source };
    check_empty(dir)?;
    let (_, parts) = verify(&mut open().map_err(|e| at(dir, e))?, &mut told)?;
    let highest = parts.iter().map(|verified| verified.part.generation).max().unwrap_or(0);
    let generation = options.generation.unwrap_or_else(|| highest.saturating_add(1));
    let staged = staged(dir);
    match std::fs::remove_dir_all(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&staged, error)),
        _ => {}
    }
    std::fs::create_dir_all(&staged).map_err(|error| at(&staged, error))?;
    let mut cluster_id = [0; 16];
    RealFiles.fill_random(&mut cluster_id).map_err(|error| at(&staged, error))?;
    let second_life = SecondLife { node_id: options.node_id, generation, cluster_id };
    let mut input = open().map_err(|error| at(dir, error))?;
    let manifest = second_life.fill(&mut input, &staged, &mut told).inspect_err(|_| {
        // It is of no use, and the next attempt would remove it.
        let _ = std::fs::remove_dir_all(&staged);
    })?;
    finish(&staged, dir).map_err(|error| at(dir, error))?;
    Ok(Restored { manifest, cluster_id, generation, parts })
}

fn check_empty(dir: &Path) -> Result<(), RestoreError> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(RestoreError::NotEmpty { path: dir.to_owned() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(RestoreError::Directory { path: dir.to_owned(), source }),
    }
}

/// Where the directory is filled before it gets its name.
fn staged(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    dir.with_file_name(name)
}

fn finish(staged: &Path, dir: &Path) -> io::Result<()> {
    std::fs::File::open(staged)?.sync_all()?;
    std::fs::rename(staged, dir)?;
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => std::fs::File::open(".")?.sync_all(),
    }
}

/// What all groups have in common from now on.
struct SecondLife {
    node_id: NodeId,
    generation: u8,
    cluster_id: [u8; 16],
}

impl SecondLife {
    fn fill(
        &self,
        input: &mut dyn Read,
        dir: &Path,
        told: &mut dyn FnMut(u64),
    ) -> Result<Manifest, RestoreError> {
        let files: Arc<dyn Files> = Arc::new(RealFiles);
        let log = Log::open(files.clone(), dir, LogOptions::default())?;
        let mut backup = BackupReader::new(input).map_err(VerifyError::from)?;
        while let Some(mut reader) = backup.next_part().map_err(VerifyError::from)? {
            let part = reader.part();
            let options = ShardOptions::default();
            let shard = Shard::open(log.clone(), files.clone(), dir, part.group, options)?;
            let restored = shard.restore(&mut reader, &self.of_group());
            if let Some(failure) = reader.take_failure() {
                return Err(VerifyError::from(failure).into());
            }
            restored.map_err(|source| VerifyError::Group {
                group: part.group,
                source: source.into(),
            })?;
            told(reader.at());
            reader.finish().map_err(VerifyError::from)?;
            let vote = RaftVote::new(part.at.term, self.node_id);
            let bytes = codec::encode_vote(&vote);
            // The log goes on behind the checkpoint, as after the installation of a snapshot.
            let begin = Record::Purge { group: part.group, upto: part.at };
            log.append_wait(vec![Record::Vote { group: part.group, bytes }, begin])?;
        }
        let manifest = backup.manifest().clone();
        log.flush()?;
        Ok(manifest)
    }

    fn of_group(&self) -> Restoration {
        let voters = BTreeSet::from([self.node_id]);
        let membership = Membership::new_with_defaults(vec![voters], []);
        Restoration {
            generation: self.generation,
            membership: codec::encode_membership(&membership),
            cluster_id: self.cluster_id,
        }
    }
}
