//! A file or stream of checksummed sections: the envelope of checkpoints and exports.
//!
//! ```text
//! bytes 0-7    magic, which names the kind of file
//! byte 8       format version, 1
//! then         sections, one after the other:
//!   byte 0       kind
//!   bytes 1-4    length of the payload, n
//!   bytes 5-8    CRC-32 (IEEE) of kind, length and payload
//!   then n       payload
//! at the end   a section of kind 255 whose payload is the number of sections before it (u32)
//! ```
//! All integers are little-endian. Without its end a file is not whole, so a file that was cut off is
//! never taken for a shorter one.

mod index;

use std::io::{self, Read, Write};

use bytes::Bytes;
use thiserror::Error;

pub(crate) use index::{Found, SectionIndex};

use crate::limits::SECTION_BYTES_MAX;

const VERSION: u8 = 1;
const END: u8 = 255;
const HEAD_BYTES: usize = 9;

/// Why sections cannot be read.
#[derive(Debug, Error)]
pub enum SectionError {
    /// The bytes cannot be had at all.
    #[error("reading failed at byte {at}: {source}")]
    Io {
        /// How far it got.
        at: u64,
        /// The system's answer.
        source: io::Error,
    },
    /// It is another kind of file.
    #[error("byte 0 to 7: this is no {what}")]
    Magic {
        /// What it should be.
        what: &'static str,
    },
    /// It was written by a later build.
    #[error("byte 8: format version {found} of a {what}; this build reads up to {VERSION}")]
    Version {
        /// What it is.
        what: &'static str,
        /// The version in the bytes.
        found: u8,
    },
    /// A section is not as it was written.
    #[error("damaged at byte {at}: {reason}")]
    Damaged {
        /// Where the section begins.
        at: u64,
        /// How it shows.
        reason: &'static str,
    },
}

/// Which kind of file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope {
    pub(crate) magic: [u8; 8],
    pub(crate) what: &'static str,
}

/// Writes sections.
pub(crate) struct SectionWriter<'a> {
    out: &'a mut dyn Write,
    sections: u32,
}

impl<'a> SectionWriter<'a> {
    pub(crate) fn new(out: &'a mut dyn Write, envelope: Envelope) -> io::Result<Self> {
        out.write_all(&envelope.magic)?;
        out.write_all(&[VERSION])?;
        Ok(Self { out, sections: 0 })
    }

    /// Writes one section; a payload beyond the limit is refused.
    pub(crate) fn section(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        if payload.len() > SECTION_BYTES_MAX {
            return Err(io::Error::other("a section beyond its limit"));
        }
        let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
        self.out.write_all(&[kind])?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(&crc(kind, len, payload).to_le_bytes())?;
        self.out.write_all(payload)?;
        self.sections = self.sections.checked_add(1).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(())
    }

    /// Writes a payload of any length as several sections of the same kind.
    pub(crate) fn split(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        payload.chunks(SECTION_BYTES_MAX).try_for_each(|part| self.section(kind, part))
    }

    /// Writes the end.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let count = self.sections.to_le_bytes();
        self.section(END, &count)?;
        self.out.flush()
    }
}

/// Reads sections.
pub(crate) struct SectionReader<'a> {
    input: &'a mut dyn Read,
    at: u64,
    sections: u32,
}

impl<'a> SectionReader<'a> {
    pub(crate) fn new(input: &'a mut dyn Read, envelope: Envelope) -> Result<Self, SectionError> {
        let mut reader = Self { input, at: 0, sections: 0 };
        let Envelope { magic, what } = envelope;
        let head: [u8; 9] = reader.array()?;
        let [found @ .., version] = head;
        if found != magic {
            return Err(SectionError::Magic { what });
        }
        if version != VERSION {
            return Err(SectionError::Version { what, found: version });
        }
        reader.at = head.len() as u64;
        Ok(reader)
    }

    /// Where the next section begins.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The next section; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u8, Bytes)>, SectionError> {
        let at = self.at;
        let damaged = |reason| SectionError::Damaged { at, reason };
        let [kind, l0, l1, l2, l3, c0, c1, c2, c3]: [u8; HEAD_BYTES] = self.array()?;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        if len as usize > SECTION_BYTES_MAX {
            return Err(damaged("a section beyond its limit"));
        }
        // Grows as bytes come, so that a wrong length allocates no more than there is.
        let mut payload = Vec::new();
        let read = (&mut *self.input).take(u64::from(len)).read_to_end(&mut payload);
        read.map_err(|source| SectionError::Io { at, source })?;
        if payload.len() != len as usize {
            return Err(damaged("cut off"));
        }
        if crc(kind, len, &payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(damaged("the CRC is wrong"));
        }
        self.at = at.saturating_add((HEAD_BYTES + payload.len()) as u64);
        if kind != END {
            self.sections = self.sections.saturating_add(1);
            return Ok(Some((kind, payload.into())));
        }
        if payload != self.sections.to_le_bytes() {
            return Err(damaged("the number of sections is wrong"));
        }
        Ok(None)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SectionError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                SectionError::Damaged { at: self.at, reason: "cut off" }
            }
            _ => SectionError::Io { at: self.at, source },
        })?;
        Ok(bytes)
    }
}

fn crc(kind: u8, len: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(&len.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVELOPE: Envelope = Envelope { magic: *b"SBTEST01", what: "test" };

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = SectionWriter::new(&mut bytes, ENVELOPE).expect("memory");
        writer.section(1, b"one").expect("memory");
        writer.section(2, b"").expect("memory");
        writer.finish().expect("memory");
        bytes
    }

    fn read(mut bytes: &[u8]) -> Result<Vec<(u8, Bytes)>, SectionError> {
        let mut reader = SectionReader::new(&mut bytes, ENVELOPE)?;
        let mut sections = Vec::new();
        while let Some(section) = reader.next()? {
            sections.push(section);
        }
        Ok(sections)
    }

    #[test]
    fn what_was_written_reads_back() {
        let sections = read(&written()).expect("whole");
        assert_eq!(sections, [(1, Bytes::from_static(b"one")), (2, Bytes::new())]);
    }

    #[test]
    fn no_cut_and_no_flipped_bit_goes_unnoticed() {
        let whole = written();
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "cut at {end}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn version_one_is_these_bytes() {
        let hex: String = written().iter().map(|byte| format!("{byte:02x}")).collect();
        let ends = "ff0400000060fb6e4602000000";
        assert!(hex.starts_with("534254455354303101010300000"), "{hex}");
        assert_eq!(hex.len(), (9 + 12 + 9 + 13) * 2);
        assert_eq!(&hex[hex.len() - ends.len()..][..10], &ends[..10]);
    }
}
