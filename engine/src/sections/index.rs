//! Sections of a file that is in memory as a whole, found first and checked later, in any order and by
//! several threads.

use bytes::Bytes;

use super::{END, Envelope, HEAD_BYTES, SectionError, VERSION, crc};
use crate::limits::SECTION_BYTES_MAX;

/// One section: where it begins, and what its head says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) at: usize,
    pub(crate) kind: u8,
    len: u32,
    crc: u32,
}

/// The sections of a file, in order, without the end. Their payloads have not been looked at.
pub(crate) struct SectionIndex {
    bytes: Bytes,
    pub(crate) found: Vec<Found>,
}

impl SectionIndex {
    /// Walks over the heads up to the end, which must be the file's.
    pub(crate) fn new(bytes: Bytes, envelope: Envelope) -> Result<Self, SectionError> {
        let Envelope { magic, what } = envelope;
        let head = bytes.first_chunk::<9>().ok_or(cut_off(0))?;
        let [found @ .., version] = *head;
        if found != magic {
            return Err(SectionError::Magic { what });
        }
        if version != VERSION {
            return Err(SectionError::Version { what, found: version });
        }
        let (mut at, mut found) = (head.len(), Vec::new());
        loop {
            let section = Found::read(&bytes, at)?;
            if section.kind != END {
                at += HEAD_BYTES + section.len as usize;
                found.push(section);
                continue;
            }
            let index = Self { bytes, found };
            let count = u32::try_from(index.found.len()).unwrap_or(u32::MAX);
            if index.payload(&section)? != count.to_le_bytes()[..] {
                return Err(damaged(at, "the number of sections is wrong"));
            }
            if index.bytes.len() != at + HEAD_BYTES + section.len as usize {
                return Err(damaged(at, "bytes follow the end"));
            }
            return Ok(index);
        }
    }

    /// The payload of a section, its CRC checked.
    pub(crate) fn payload(&self, section: &Found) -> Result<Bytes, SectionError> {
        let Found { at, kind, len, crc: expected } = *section;
        let start = at + HEAD_BYTES;
        let payload = self.bytes.slice(start..start + len as usize);
        if crc(kind, len, &payload) != expected {
            return Err(damaged(at, "the CRC is wrong"));
        }
        Ok(payload)
    }
}

impl Found {
    fn read(bytes: &Bytes, at: usize) -> Result<Self, SectionError> {
        let rest = bytes.get(at..).unwrap_or(&[]);
        let head = rest.first_chunk::<HEAD_BYTES>().ok_or(cut_off(at))?;
        let [kind, l0, l1, l2, l3, c0, c1, c2, c3] = *head;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        if len as usize > SECTION_BYTES_MAX {
            return Err(damaged(at, "a section beyond its limit"));
        }
        if rest.len() < HEAD_BYTES + len as usize {
            return Err(cut_off(at));
        }
        Ok(Self { at, kind, len, crc: u32::from_le_bytes([c0, c1, c2, c3]) })
    }
}

fn cut_off(at: usize) -> SectionError {
    damaged(at, "cut off")
}

fn damaged(at: usize, reason: &'static str) -> SectionError {
    SectionError::Damaged { at: at as u64, reason }
}
