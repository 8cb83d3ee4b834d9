//! Reads entries: the place is looked up under the lock, the bytes are read outside of it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::error::ReadError;
use super::index::Source;
use super::record::{HEAD_BYTES, payload_parts};
use super::segment::{RecordPlace, Segment};
use super::shared::Shared;
use crate::{EntryPayload, GroupId, LogId};

pub(super) fn read(
    shared: &Shared,
    group: GroupId,
    range: Range<u64>,
    bytes_max: usize,
) -> Result<Vec<(LogId, EntryPayload)>, ReadError> {
    let mut sources: Vec<(LogId, Source)> = Vec::new();
    {
        let index = shared.index.read();
        let there = index.group(group).map(|group| group.indexes()).unwrap_or_default();
        let mut bytes = 0_usize;
        for at in range.start.max(there.start)..range.end.min(there.end) {
            let source = index.source(group, at);
            let (log_id, len, source) = source.ok_or(ReadError::NoEntry { group, index: at })?;
            bytes = bytes.saturating_add(len);
            if bytes > bytes_max && !sources.is_empty() {
                break;
            }
            sources.push((log_id, source));
        }
    }
    let payload = |(log_id, source)| match source {
        Source::Memory(payload) => Ok((log_id, payload)),
        Source::Segment(segment, place) => {
            let (kind, bytes) = segment.read_entry(place)?;
            Ok((log_id, kind.with(bytes)))
        }
    };
    sources.into_iter().map(payload).collect()
}

pub(super) fn pin(shared: &Shared, group: GroupId, index: u64) -> Result<PinnedEntry, ReadError> {
    let source = shared.index.read().source(group, index);
    let (log_id, len, source) = source.ok_or(ReadError::NoEntry { group, index })?;
    Ok(PinnedEntry { log_id, len, source, checked: AtomicBool::new(false) })
}

/// One entry whose payload stays readable while this lives. It may hold a segment of the log, so it
/// is for reading soon, not for keeping.
pub struct PinnedEntry {
    log_id: LogId,
    len: usize,
    source: Source,
    /// The CRC of the record was found right through this pin.
    checked: AtomicBool,
}

impl PinnedEntry {
    /// The log id of the entry.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.log_id
    }

    /// Bytes of its payload.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.len
    }

    /// The whole payload.
    pub fn payload(&self) -> Result<EntryPayload, ReadError> {
        match &self.source {
            Source::Memory(payload) => Ok(payload.clone()),
            Source::Segment(segment, place) => {
                let (kind, bytes) = segment.read_entry(*place)?;
                Ok(kind.with(bytes))
            }
        }
    }

    /// A part of the payload. The first call reads all of it to check the CRC of the record; use
    /// [`PinnedEntry::part`] if you have one of the part.
    pub fn payload_at(&self, offset: usize, len: usize) -> Result<Bytes, ReadError> {
        self.check_bounds(offset, len)?;
        match &self.source {
            Source::Memory(payload) => Ok(slice(payload, offset, len)),
            Source::Segment(segment, place) if self.checked.load(Ordering::Relaxed) => {
                read_part(segment, place, offset, len)
            }
            Source::Segment(segment, place) => {
                let (_, bytes) = segment.read_entry(*place)?;
                self.checked.store(true, Ordering::Relaxed);
                Ok(bytes.slice(offset..offset.saturating_add(len)))
            }
        }
    }

    /// A part of the payload whose CRC-32 (IEEE) the caller knows; nothing else is read.
    pub fn part(&self, offset: usize, len: usize, crc: u32) -> Result<Bytes, ReadError> {
        self.check_bounds(offset, len)?;
        match &self.source {
            Source::Memory(payload) => Ok(slice(payload, offset, len)),
            Source::Segment(segment, place) => {
                let bytes = read_part(segment, place, offset, len)?;
                if crc32fast::hash(&bytes) != crc {
                    let at = u64::from(place.offset).saturating_add((HEAD_BYTES + offset) as u64);
                    return Err(segment.corrupt(at, "the CRC of a part of an entry is wrong"));
                }
                Ok(bytes)
            }
        }
    }

    fn check_bounds(&self, offset: usize, len: usize) -> Result<(), ReadError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(ReadError::OutOfBounds { offset, len, bytes: self.len }),
        }
    }
}

impl std::fmt::Debug for PinnedEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PinnedEntry({}, {} bytes)", self.log_id, self.len)
    }
}

fn slice(payload: &EntryPayload, offset: usize, len: usize) -> Bytes {
    payload_parts(payload).1.slice(offset..offset.saturating_add(len))
}

fn read_part(
    segment: &Arc<Segment>,
    place: &RecordPlace,
    offset: usize,
    len: usize,
) -> Result<Bytes, ReadError> {
    let at = u64::from(place.offset).saturating_add((HEAD_BYTES + offset) as u64);
    segment.read(at, len)
}
