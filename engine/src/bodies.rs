//! Message records that outlived the log: the old generation.
//!
//! A checkpoint moves what still waits out of the log into *old files*, one series for each day on
//! which messages expire, so that whole files go when their day has passed.
//!
//! ```text
//! DIR/bodies/GROUP/NUMBER.old
//! bytes 0-7    magic "SBOLD001"
//! byte 8       format version, 1
//! bytes 9-15   zero
//! bytes 16-19  group
//! bytes 20-23  day of expiry, days since 1970-01-01
//! then         records: length u32, CRC-32 u32, message record
//! ```
//! A file is written once, by one checkpoint, and synced with its directory before that checkpoint names
//! it. From then on it is only read, through a map. The index keeps number, offset and CRC of each
//! record, and every read checks that CRC.
//!
//! Invariant: the files that the newest durable checkpoint names exist, whole.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{BufMut, Bytes, BytesMut};
use foldhash::fast::FixedState;
use parking_lot::Mutex;
use thiserror::Error;

use crate::{
    GroupId,
    fs::{FileHandle, Files, OpenMode},
    limits::{DAY_MS, OLD_FILE_BYTES_MAX, OLD_FILES_MAX, OLD_WRITE_BYTES, RECORD_BYTES_MAX},
    planted::{self, Bug},
    state::{Live, Place},
};

const MAGIC: &[u8; 8] = b"SBOLD001";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 24;
const RECORD_HEAD_BYTES: usize = 8;
pub(crate) const SUFFIX: &str = ".old";

/// A failure on an old file.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// A record is not what the index says.
    #[error("{path} is damaged at byte {offset}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// How it shows.
        reason: &'static str,
    },
    /// There are as many files as can be numbered or held.
    #[error("{dir} holds too many files")]
    TooMany {
        /// The directory.
        dir: PathBuf,
    },
}

/// The old files of one group.
pub(crate) struct OldFiles {
    files: Arc<dyn Files>,
    dir: PathBuf,
    group: GroupId,
    /// Maps of files that were read, and the next number. A lock, held to look one up or to open one.
    open: Mutex<Open>,
}

struct Open {
    maps: HashMap<u32, Bytes, FixedState>,
    next: u32,
}

impl OldFiles {
    /// Opens the directory, which is made if it is missing.
    pub(crate) fn open(
        files: Arc<dyn Files>,
        data_dir: &Path,
        group: GroupId,
    ) -> Result<Self, BodyError> {
        let dir = data_dir.join("bodies").join(group.to_string());
        files.create_dir_all(&dir).map_err(|e| failed("make", &dir, e))?;
        let numbers = numbers(&*files, &dir)?;
        let next = numbers.last().map_or(1, |last| last.saturating_add(1));
        let open = Mutex::new(Open { maps: HashMap::default(), next });
        Ok(Self { files, dir, group, open })
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:010}{SUFFIX}"))
    }

    /// The bytes of a whole file. They stay readable when the file is removed.
    pub(crate) fn map(&self, number: u32) -> Result<Bytes, BodyError> {
        if let Some(map) = self.open.lock().maps.get(&number) {
            return Ok(map.clone());
        }
        let path = self.path(number);
        let file = self.files.open(&path, OpenMode::Read).map_err(|e| failed("open", &path, e))?;
        let map = file.map().map_err(|e| failed("map", &path, e))?;
        let header = header(self.group, 0);
        // All but the day must be as expected.
        if map.get(..HEADER_BYTES - 4) != Some(&header[..HEADER_BYTES - 4]) {
            let reason = "this is no file of old messages of this group and version";
            return Err(BodyError::Damaged { path, offset: 0, reason });
        }
        self.open.lock().maps.insert(number, map.clone());
        Ok(map)
    }

    /// One record out of a map of `number`, its CRC checked.
    pub(crate) fn record(
        &self,
        map: &Bytes,
        number: u32,
        offset: u32,
        len: usize,
        crc: u32,
    ) -> Result<Bytes, BodyError> {
        let damaged = |reason| BodyError::Damaged {
            path: self.path(number),
            offset: u64::from(offset),
            reason,
        };
        let start = offset as usize;
        let end = start.checked_add(len).filter(|end| *end <= map.len());
        let record = map.slice(start..end.ok_or_else(|| damaged("the file is too short"))?);
        if crc32fast::hash(&record) != crc {
            return Err(damaged("the CRC of a message is wrong"));
        }
        Ok(record)
    }

    /// Begins the files of one checkpoint.
    pub(crate) fn mover(&self) -> Mover<'_> {
        Mover { old: self, days: BTreeMap::new(), written: Vec::new() }
    }

    /// The size of every file, by number.
    pub(crate) fn sizes(&self) -> Result<BTreeMap<u32, u64>, BodyError> {
        let mut sizes = BTreeMap::new();
        for number in numbers(&*self.files, &self.dir)? {
            let path = self.path(number);
            let file = self.files.open(&path, OpenMode::Read);
            let size = file.and_then(|file| file.size()).map_err(|e| failed("open", &path, e))?;
            sizes.insert(number, size);
        }
        Ok(sizes)
    }

    /// Removes every file that is not in `live`.
    pub(crate) fn retain(&self, live: &Live) -> Result<(), BodyError> {
        let mut removed = false;
        for number in numbers(&*self.files, &self.dir)? {
            if live.has(number) {
                continue;
            }
            let path = self.path(number);
            self.files.remove(&path).map_err(|e| failed("remove", &path, e))?;
            self.open.lock().maps.remove(&number);
            removed = true;
        }
        if removed {
            self.files.sync_dir(&self.dir).map_err(|e| failed("sync", &self.dir, e))?;
        }
        Ok(())
    }

    fn create(&self, day: u32) -> Result<Writing, BodyError> {
        let number = {
            let mut open = self.open.lock();
            let number = open.next;
            // The two ends of the range mean something else in the index.
            if number >= u32::MAX - 1 || numbers(&*self.files, &self.dir)?.len() >= OLD_FILES_MAX {
                return Err(BodyError::TooMany { dir: self.dir.clone() });
            }
            open.next = number + 1;
            number
        };
        let path = self.path(number);
        let created = self.files.open(&path, OpenMode::CreateNew);
        let file = created.map_err(|e| failed("create", &path, e))?;
        let waiting = BytesMut::from(&header(self.group, day)[..]);
        Ok(Writing { number, path, file, waiting, size: 0 })
    }
}

impl std::fmt::Debug for OldFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OldFiles({})", self.dir.display())
    }
}

/// Writes the files of one checkpoint.
pub(crate) struct Mover<'a> {
    old: &'a OldFiles,
    /// The file that each day's records go to.
    days: BTreeMap<u32, Writing>,
    /// Files that are full.
    written: Vec<Writing>,
}

struct Writing {
    number: u32,
    path: PathBuf,
    file: Arc<dyn FileHandle>,
    waiting: BytesMut,
    size: u64,
}

impl Mover<'_> {
    /// Appends a record to a file of the day on which it expires.
    pub(crate) fn push(
        &mut self,
        expires_at_ms: u64,
        record: &[u8],
        crc: u32,
    ) -> Result<Place, BodyError> {
        let day = u32::try_from(expires_at_ms / DAY_MS).unwrap_or(u32::MAX);
        let mut writing = match self.days.remove(&day) {
            Some(writing) => writing,
            None => self.old.create(day)?,
        };
        let len = u32::try_from(record.len()).unwrap_or(u32::MAX);
        writing.waiting.put_u32_le(len);
        writing.waiting.put_u32_le(crc);
        let offset = writing.size.saturating_add(writing.waiting.len() as u64);
        writing.waiting.put_slice(record);
        let place = Place::Old {
            file: writing.number,
            // Files are far below 4 GiB.
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
        };
        if writing.waiting.len() >= OLD_WRITE_BYTES {
            writing.write()?;
        }
        if writing.size >= OLD_FILE_BYTES_MAX {
            self.written.push(writing);
        } else {
            self.days.insert(day, writing);
        }
        Ok(place)
    }

    /// Makes all files and their names durable.
    pub(crate) fn finish(mut self) -> Result<(), BodyError> {
        self.written.extend(std::mem::take(&mut self.days).into_values());
        for writing in &mut self.written {
            writing.write()?;
            if planted::is(Bug::OldFilesNotSynced) {
                continue;
            }
            writing.file.sync_data().map_err(|e| failed("sync", &writing.path, e))?;
        }
        if !self.written.is_empty() {
            let dir = &self.old.dir;
            self.old.files.sync_dir(dir).map_err(|e| failed("sync", dir, e))?;
        }
        Ok(())
    }
}

impl Writing {
    fn write(&mut self) -> Result<(), BodyError> {
        let bytes = self.waiting.split();
        let written = self.file.write_at(&bytes, self.size);
        written.map_err(|e| failed("write", &self.path, e))?;
        self.size = self.size.saturating_add(bytes.len() as u64);
        Ok(())
    }
}

/// Bytes that a record takes in a file.
pub(crate) fn stored_bytes(record_len: usize) -> u64 {
    (RECORD_HEAD_BYTES + record_len) as u64
}

/// Reads an old file of a group through to its end; gives the first place that is not as it was written.
pub(crate) fn check(input: &mut dyn Read, group: GroupId) -> io::Result<Option<(u64, String)>> {
    let fault = |at: u64, what: &str| Ok(Some((at, what.to_owned())));
    let mut head = Vec::new();
    input.take(HEADER_BYTES as u64).read_to_end(&mut head)?;
    if head.get(..HEADER_BYTES - 4) != Some(&header(group, 0)[..HEADER_BYTES - 4]) {
        return fault(0, "this is no file of old messages of this group and version");
    }
    let mut at = HEADER_BYTES as u64;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        input.take(RECORD_HEAD_BYTES as u64).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let Some(&[l0, l1, l2, l3, c0, c1, c2, c3]) = bytes.first_chunk() else {
            return fault(at, "a message is cut off");
        };
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        if len as usize > RECORD_BYTES_MAX {
            return fault(at, "a message is longer than any may be");
        }
        bytes.clear();
        input.take(u64::from(len)).read_to_end(&mut bytes)?;
        if bytes.len() != len as usize {
            return fault(at, "a message is cut off");
        }
        if crc32fast::hash(&bytes) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return fault(at, "the CRC of a message is wrong");
        }
        at = at.saturating_add(stored_bytes(bytes.len()));
    }
}

fn header(group: GroupId, day: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8] = VERSION;
    header[16..20].copy_from_slice(&group.to_le_bytes());
    header[20..].copy_from_slice(&day.to_le_bytes());
    header
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> BodyError {
    BodyError::Io { doing, path: path.to_owned(), source }
}

/// The numbers of the files in a directory, ascending.
fn numbers(files: &dyn Files, dir: &Path) -> Result<Vec<u32>, BodyError> {
    let names = files.list(dir).map_err(|e| failed("list", dir, e))?;
    let number = |name: &String| name.strip_suffix(SUFFIX)?.parse().ok();
    let mut numbers: Vec<u32> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
