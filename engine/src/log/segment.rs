//! Segments: the files of the log, and who holds them.
//!
//! ```text
//!  prepared ──header synced──▶ active ──no room──▶ sealed ──no entry needed──▶ retired
//!      ▲        (written)                 (read, mapped)                          │
//!      └── renamed to the next sequence, when nobody holds it and no map of it is alive
//! ```
//!
//! A [`SegmentFile`] is shared by counting references: by the index, by reads under way, by pinned
//! entries, and by the map of the file, parts of which callers may hold as `Bytes`. A retired file
//! is written again only by whoever has become its sole owner ([`Arc::try_unwrap`]).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::error::{Fault, ReadError};
use super::record::{Found, HEAD_BYTES, Kind, PayloadKind};
use crate::fs::FileHandle;
use crate::{GroupId, LogId};

/// Name of the file in which a segment is prepared.
pub(super) const SPARE_NAME: &str = "spare.tmp";
const SUFFIX: &str = ".log";

/// The file name of a segment.
pub(super) fn file_name(sequence: u64) -> String {
    format!("{sequence:016}{SUFFIX}")
}

/// The sequence in a file name, if it is that of a segment.
pub(super) fn sequence_of(name: &str) -> Option<u64> {
    let sequence = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (file_name(sequence) == name).then_some(sequence)
}

/// A segment's file; whoever owns the last reference may write it anew.
pub(super) struct SegmentFile {
    pub(super) sequence: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn FileHandle>,
    pub(super) bytes: u64,
}

impl SegmentFile {
    pub(super) fn new(
        dir: &Path,
        sequence: u64,
        file: Arc<dyn FileHandle>,
        bytes: u64,
    ) -> SegmentFile {
        SegmentFile { sequence, path: dir.join(file_name(sequence)), file, bytes }
    }
}

/// A segment with a header: it can be read.
pub(super) struct Segment {
    pub(super) file: Arc<SegmentFile>,
    sealed: AtomicBool,
    map: OnceLock<Bytes>,
}

/// A map that keeps its file from being written.
struct HeldMap {
    // Declared first, so dropped first: the file is free only when it is unmapped.
    map: Bytes,
    _file: Arc<SegmentFile>,
}

impl AsRef<[u8]> for HeldMap {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

/// Where a record stands in its segment, and what it must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordPlace {
    pub(super) group: GroupId,
    pub(super) id: LogId,
    pub(super) offset: u32,
    pub(super) len: u32,
}

impl Segment {
    pub(super) fn new(file: SegmentFile, sealed: bool) -> Arc<Self> {
        Arc::new(Self {
            file: Arc::new(file),
            sealed: AtomicBool::new(sealed),
            map: OnceLock::new(),
        })
    }

    /// Nothing will be written to it any more: from now on it is read through a map.
    pub(super) fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// Bytes of the file: shared with the map if it is sealed, else copied.
    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Bytes, ReadError> {
        let corrupt = |what| self.corrupt(offset, what);
        let start = usize::try_from(offset).map_err(|_| corrupt("beyond memory"))?;
        let end = start.checked_add(len).ok_or_else(|| corrupt("beyond memory"))?;
        if self.sealed.load(Ordering::Acquire) {
            let map = self.map()?;
            if end > map.len() {
                return Err(corrupt("the file is cut off"));
            }
            return Ok(map.slice(start..end));
        }
        let mut bytes = vec![0; len];
        let read = self.file.file.read_at(&mut bytes, offset);
        match read.map_err(|e| Fault::new("read", &self.file.path, e))? {
            read if read == len => Ok(bytes.into()),
            _ => Err(corrupt("the file is cut off")),
        }
    }

    fn map(&self) -> Result<&Bytes, ReadError> {
        if let Some(map) = self.map.get() {
            return Ok(map);
        }
        let map = self.file.file.map().map_err(|e| Fault::new("map", &self.file.path, e))?;
        // No circle: the map holds the file, not the segment that holds the map.
        let held = Bytes::from_owner(HeldMap { map, _file: self.file.clone() });
        // Two readers may map at once; the map of the slower is dropped.
        Ok(self.map.get_or_init(|| held))
    }

    /// The payload of an entry's record, after checking its CRC and that it is the right one.
    pub(super) fn read_entry(&self, at: RecordPlace) -> Result<(PayloadKind, Bytes), ReadError> {
        let offset = u64::from(at.offset);
        let bytes = self.read(offset, HEAD_BYTES.saturating_add(at.len as usize))?;
        let (found, _) = Found::first(&bytes)
            .map_err(|_| self.corrupt(offset, "the CRC of an entry is wrong"))?;
        let head = found.head;
        let right = (head.len, head.group, head.id) == (at.len, at.group, at.id);
        match PayloadKind::of(head.detail) {
            Some(kind) if right && Kind::of(head.kind) == Some(Kind::Entry) => {
                Ok((kind, bytes.slice(HEAD_BYTES..)))
            }
            _ => Err(self.corrupt(offset, "another record than the index says")),
        }
    }

    pub(super) fn corrupt(&self, offset: u64, what: &'static str) -> ReadError {
        ReadError::Corrupt { file: self.file.path.clone(), offset, what }
    }
}
