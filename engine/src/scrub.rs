//! Verifies a whole data directory offline: every segment, frame and record of the log, every
//! checkpoint, file of message ids and old file. Takes no lock and changes nothing.
//!
//! ```text
//! list ──▶ files, the largest first ──▶ threads: each checks a file alone ──▶ faults, by file
//!                                   └─▶ one of them: recovery of the log, read-only
//! ```
//! What one file says about another (that a checkpoint's old files are there) is checked when the
//! directory is opened; this finds the bytes that are no longer what was written. A file that a
//! checkpoint was writing when its process died counts as damaged here, until the next start has
//! removed it.
//!
//! ```
//! use switchboard_engine::{Options, Store, fs::RealFiles, scrub};
//!
//! let dir = tempfile::tempdir()?;
//! drop(Store::open(dir.path(), Options::default())?);
//! let report = scrub::scrub(&RealFiles, dir.path(), 2, &|_| {})?;
//! assert!(report.faults.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use crate::fs::{FileHandle, Files, OpenMode, Sequential};
use crate::limits::OLD_WRITE_BYTES;
use crate::log::{Fault, LogOpenError, inspect};
use crate::sections::{Envelope, SectionError, SectionReader};
use crate::{GroupId, bodies, checkpoint, id_files};

/// What a scrub has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Files that were read.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// What is wrong, by file and offset.
    pub faults: Vec<ScrubFault>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScrubFault {
    /// In which file.
    pub file: PathBuf,
    /// Where, in bytes.
    pub offset: u64,
    /// What.
    pub what: String,
}

/// A file to check.
struct Task {
    path: PathBuf,
    bytes: u64,
    kind: Kind,
}

enum Kind {
    Segment(u64),
    Sections(Envelope),
    Old(GroupId),
}

/// Bytes that a scrub of a directory reads.
pub fn bytes(files: &dyn Files, dir: &Path) -> Result<u64, Fault> {
    Ok(tasks(files, dir)?.iter().map(|task| task.bytes).sum())
}

/// Reads and checks everything, on so many threads; tells `progress` the bytes of each file that is
/// done.
///
/// # Errors
/// [`Fault`] if the directory or a file of it cannot be read at all.
pub fn scrub(
    files: &dyn Files,
    dir: &Path,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<ScrubReport, Fault> {
    let tasks = tasks(files, dir)?;
    let ends = inspect::segment_ends(files, dir)?;
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Ok(Vec::new()));
    let work = || {
        while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let checked = match task.kind {
                Kind::Segment(sequence) => inspect::check_segment(files, dir, sequence, &ends),
                Kind::Sections(envelope) => check(files, task, |input| sections(input, envelope)),
                Kind::Old(group) => check(files, task, |input| bodies::check(input, group)),
            };
            let fault = |(offset, what)| ScrubFault { file: task.path.clone(), offset, what };
            let mut found = found.lock();
            match (&mut *found, checked) {
                (Ok(found), Ok(faults)) => found.extend(faults.into_iter().map(fault)),
                (found @ Ok(_), Err(error)) => *found = Err(error),
                (Err(_), _) => return,
            }
            drop(found);
            progress(task.bytes);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let mut faults = found.into_inner()?;
    faults.extend(whole_log(files, dir, &faults)?);
    faults.sort();
    let bytes = tasks.iter().map(|task| task.bytes).sum();
    Ok(ScrubReport { files: tasks.len(), bytes, faults })
}

/// What opening the log would refuse, unless that is known already.
fn whole_log(
    files: &dyn Files,
    dir: &Path,
    known: &[ScrubFault],
) -> Result<Option<ScrubFault>, Fault> {
    let fault = |file: &Path, offset, what: String| ScrubFault { file: file.into(), offset, what };
    let refused = match inspect::refusal(files, dir) {
        None => return Ok(None),
        Some(LogOpenError::Fault(error)) => return Err(error),
        Some(refused) => refused,
    };
    let found = match &refused {
        LogOpenError::Corrupt { file, offset, what, .. } => fault(file, *offset, what.clone()),
        LogOpenError::Missing { file, .. } | LogOpenError::Version { file, .. } => {
            fault(file, 0, refused.to_string())
        }
        _ => fault(dir, 0, refused.to_string()),
    };
    let is_known = known.iter().any(|k| (&k.file, k.offset) == (&found.file, found.offset));
    Ok((!is_known).then_some(found))
}

/// Everything that there is to check, the largest first.
fn tasks(files: &dyn Files, dir: &Path) -> Result<Vec<Task>, Fault> {
    let mut found: Vec<(PathBuf, Kind)> = Vec::new();
    for (sequence, name) in inspect::segments(files, dir)? {
        found.push((dir.join(name), Kind::Segment(sequence)));
    }
    let mut groups: BTreeSet<GroupId> = inspect::groups(files, dir)?.into_iter().collect();
    let checkpoints = dir.join("checkpoints");
    for name in names(files, &checkpoints, checkpoint::SUFFIX)? {
        groups.extend(name.split('-').next().and_then(|group| group.parse::<GroupId>().ok()));
        found.push((checkpoints.join(name), Kind::Sections(checkpoint::ENVELOPE)));
    }
    for group in groups {
        let old = dir.join("bodies").join(group.to_string());
        for name in names(files, &old, bodies::SUFFIX)? {
            found.push((old.join(name), Kind::Old(group)));
        }
        let ids = dir.join("ids").join(group.to_string());
        for name in names(files, &ids, id_files::SUFFIX)? {
            found.push((ids.join(name), Kind::Sections(id_files::ENVELOPE)));
        }
    }
    let mut tasks = Vec::with_capacity(found.len());
    for (path, kind) in found {
        let bytes = open(files, &path)?.size().map_err(|e| Fault::new("stat", &path, e))?;
        tasks.push(Task { path, bytes, kind });
    }
    tasks.sort_by_key(|task| std::cmp::Reverse(task.bytes));
    Ok(tasks)
}

/// The names in a directory with an ending; none if there is no such directory.
fn names(files: &dyn Files, dir: &Path, suffix: &str) -> Result<Vec<String>, Fault> {
    match files.list(dir) {
        Ok(names) => Ok(names.into_iter().filter(|name| name.ends_with(suffix)).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Fault::new("list", dir, e)),
    }
}

fn open(files: &dyn Files, path: &Path) -> Result<Arc<dyn FileHandle>, Fault> {
    files.open(path, OpenMode::Read).map_err(|e| Fault::new("open", path, e))
}

/// Checks a file that is read from its begin to its end; it has one fault at most, since what
/// follows one cannot be found.
fn check(
    files: &dyn Files,
    task: &Task,
    verify: impl FnOnce(&mut dyn Read) -> io::Result<Option<(u64, String)>>,
) -> Result<Vec<(u64, String)>, Fault> {
    let handle = open(files, &task.path)?;
    let mut input = BufReader::with_capacity(OLD_WRITE_BYTES, Sequential::new(handle));
    let fault = verify(&mut input).map_err(|e| Fault::new("read", &task.path, e))?;
    Ok(fault.into_iter().collect())
}

fn sections(input: &mut dyn Read, envelope: Envelope) -> io::Result<Option<(u64, String)>> {
    let outcome = SectionReader::new(input, envelope).and_then(|mut reader| {
        while reader.next()?.is_some() {}
        Ok(reader.at())
    });
    let end = match outcome {
        Ok(end) => end,
        Err(SectionError::Io { source, .. }) => return Err(source),
        Err(SectionError::Damaged { at, reason }) => return Ok(Some((at, reason.to_owned()))),
        Err(error) => return Ok(Some((0, error.to_string()))),
    };
    let more = input.read(&mut [0])?;
    Ok((more > 0).then(|| (end, "bytes follow the end".to_owned())))
}

#[cfg(test)]
#[path = "scrub/tests.rs"]
mod tests;
