//! The message ids that checkpoints remember, each written once.
//!
//! A shard remembers up to a million ids, and few of them are new when the next checkpoint comes. So the
//! ids are not in checkpoints: the one that first covers them writes them into an *id file*, later ones
//! name it for as long as anything in it is remembered.
//!
//! ```text
//! DIR/ids/GROUP/NUMBER.ids     sections (see `sections`), magic "SBIDS001"
//!   kind 1   header: group u32, ordinal of the first id u64, number of ids u64     once, first
//!   kind 2   ids: keyed hash 16 bytes, distance of its seq from that before,       any number
//!            varint (from 0 in each section)
//! ```
//! NUMBER has sixteen decimal digits, and no number is used again while any file is there.
//!
//! Invariant: the files that the newest durable checkpoint names exist, whole, and their ids follow one
//! another without a gap. So a file is synced with its directory before the checkpoint that names it is
//! there, and removed when a newer one is durable that does not.

use std::{
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;

use crate::{
    DecodeError, GroupId,
    checkpoint::LoadError,
    codec::Reader,
    fs::{Files, OpenMode, Sequential},
    limits::{ID_FILE_SECTION_IDS, ID_FILES_MAX, OLD_WRITE_BYTES},
    planted::{self, Bug},
    sections::{Envelope, SectionError, SectionReader, SectionWriter},
    state::{DedupEntry, DedupIndex, Remembered, decode_ids, encode_ids},
};

const HEADER: u8 = 1;
const IDS: u8 = 2;
pub(crate) const ENVELOPE: Envelope = Envelope { magic: *b"SBIDS001", what: "file of message ids" };
pub(crate) const SUFFIX: &str = ".ids";

/// One file: which ids it has, by ordinal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) number: u64,
    first: u64,
    end: u64,
}

/// The id files of one group.
pub(crate) struct IdFiles {
    files: Arc<dyn Files>,
    dir: PathBuf,
    group: GroupId,
    /// A lock, for who writes a checkpoint; nobody else asks.
    known: Mutex<Known>,
}

struct Known {
    /// What the newest checkpoint names.
    named: Vec<Run>,
    next: u64,
}

impl std::fmt::Debug for IdFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IdFiles({})", self.dir.display())
    }
}

impl IdFiles {
    /// Opens the directory, which is made if it is missing.
    pub(crate) fn open(files: Arc<dyn Files>, data_dir: &Path, group: GroupId) -> io::Result<Self> {
        let dir = data_dir.join("ids").join(group.to_string());
        files.create_dir_all(&dir)?;
        let last = numbers(&*files, &dir)?.last().copied();
        let next = last.map_or(1, |last| last.saturating_add(1));
        Ok(Self { files, dir, group, known: Mutex::new(Known { named: Vec::new(), next }) })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016}{SUFFIX}"))
    }

    /// Reads the ids that a checkpoint names.
    pub(crate) fn load(&self, index: DedupIndex) -> Result<Remembered, LoadError> {
        let DedupIndex { mut remembered, files } = index;
        let (mut runs, mut ids) = (Vec::<Run>::new(), Vec::new());
        for number in files {
            let path = self.path(number);
            let load = self.load_one(number, &mut ids).and_then(|run| {
                let follows = runs.last().is_none_or(|before| before.end == run.first);
                let gap = LoadError::Order { at: 0, reason: "its ids do not follow" };
                if follows { Ok(run) } else { Err(gap) }
            });
            let source = |source| LoadError::Ids { path, source: Box::new(source) };
            runs.push(load.map_err(source)?);
        }
        let first = runs.first().map_or(remembered.first, |run| run.first);
        if !remembered.fill(first, ids) {
            let reason = "the files that it names have other ids than it remembers";
            return Err(LoadError::Order { at: 0, reason });
        }
        self.known.lock().named = runs;
        Ok(remembered)
    }

    fn load_one(&self, number: u64, ids: &mut Vec<DedupEntry>) -> Result<Run, LoadError> {
        let opened = self.files.open(&self.path(number), OpenMode::Read);
        let handle = opened.map_err(|source| SectionError::Io { at: 0, source })?;
        let mut input = BufReader::with_capacity(OLD_WRITE_BYTES, Sequential::new(handle));
        let mut sections = SectionReader::new(&mut input, ENVELOPE)?;
        let order = |at, reason| LoadError::Order { at, reason };
        let mut header = None;
        let before = ids.len();
        loop {
            let at = sections.at();
            let Some((kind, payload)) = sections.next()? else { break };
            let content = |source| LoadError::Content { at, source };
            match kind {
                HEADER if header.is_none() => {
                    let (group, run, count) = decode_header(number, payload).map_err(content)?;
                    if group != self.group {
                        return Err(order(at, "it is of another group"));
                    }
                    header = Some((run, count));
                }
                IDS if header.is_some() => {
                    let decoded = decode_ids(payload, |entry| ids.push(entry));
                    decoded.map_err(content)?;
                }
                _ => return Err(order(at, "a kind that may not come here")),
            }
        }
        let (run, count) = header.ok_or(order(sections.at(), "no header came before the end"))?;
        if (ids.len() - before) as u64 != count {
            return Err(order(sections.at(), "the number of ids is wrong"));
        }
        Ok(run)
    }

    /// Writes what is remembered and stands in no file yet; durable when this returns. The answer says
    /// what a checkpoint has to name. `afresh`: whatever there is belongs to another state.
    pub(crate) fn write(&self, remembered: &Remembered, afresh: bool) -> io::Result<Vec<Run>> {
        let (mut runs, number) = {
            let mut known = self.known.lock();
            known.next += 1;
            (known.named.clone(), known.next - 1)
        };
        runs.retain(|run| run.end > remembered.first);
        if afresh || runs.len() >= ID_FILES_MAX {
            runs.clear();
        }
        let first = runs.last().map_or(remembered.first, |run| run.end);
        let run = Run { number, first, end: remembered.ids.next() };
        if run.first < run.end {
            self.write_one(run, remembered)?;
            runs.push(run);
        }
        Ok(runs)
    }

    fn write_one(&self, run: Run, remembered: &Remembered) -> io::Result<()> {
        let handle = self.files.open(&self.path(run.number), OpenMode::CreateNew)?;
        let mut out = BufWriter::with_capacity(OLD_WRITE_BYTES, Sequential::new(handle.clone()));
        let mut sections = SectionWriter::new(&mut out, ENVELOPE)?;
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(self.group);
        bytes.put_u64_le(run.first);
        bytes.put_u64_le(run.end - run.first);
        sections.section(HEADER, &bytes)?;
        let mut ids = remembered.ids.from(run.first).peekable();
        while ids.peek().is_some() {
            bytes.clear();
            encode_ids(&mut bytes, ids.by_ref().take(ID_FILE_SECTION_IDS));
            sections.section(IDS, &bytes)?;
        }
        sections.finish()?;
        if planted::is(Bug::IdFilesNotSynced) {
            return Ok(());
        }
        handle.sync_data()?;
        self.files.sync_dir(&self.dir)
    }

    /// A checkpoint that names these files is durable: others go.
    pub(crate) fn adopt(&self, runs: Vec<Run>) {
        self.known.lock().named = runs;
    }

    /// Removes files that the newest checkpoint does not name.
    pub(crate) fn remove_unused(&self) -> io::Result<()> {
        let named: Vec<u64> = self.known.lock().named.iter().map(|run| run.number).collect();
        let found = numbers(&*self.files, &self.dir)?;
        let unused: Vec<u64> = found.into_iter().filter(|n| !named.contains(n)).collect();
        for number in &unused {
            self.files.remove(&self.path(*number))?;
        }
        if unused.is_empty() { Ok(()) } else { self.files.sync_dir(&self.dir) }
    }
}

fn decode_header(number: u64, payload: Bytes) -> Result<(GroupId, Run, u64), DecodeError> {
    let mut reader = Reader::new(payload);
    let (group, first, count) = (reader.u32()?, reader.u64()?, reader.u64()?);
    reader.finish()?;
    let range = DecodeError::Range { what: "ordinals of ids", at: reader.at() };
    let end = first.checked_add(count).ok_or(range)?;
    Ok((group, Run { number, first, end }, count))
}

/// The numbers of the files in a directory, ascending.
fn numbers(files: &dyn Files, dir: &Path) -> io::Result<Vec<u64>> {
    let names = files.list(dir)?;
    let number = |name: &String| name.strip_suffix(SUFFIX)?.parse().ok();
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
