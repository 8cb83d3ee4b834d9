//! A backup: the exports of all groups of a cluster in one file, written and read as a stream.
//!
//! ```text
//! sections (see `sections`), magic "SBBACK01"
//!   kind 1   manifest: cluster id (16), shards u32, created at u64 (Unix ms),
//!            name of the build that made it (u16 length, then UTF-8)          once, first
//!   kind 2   part: group u32, term u64, index u64, generation u8             once a group, each followed by
//!   kind 3   bytes of the group's export (see `shard/export`), in order      any number, and
//!   kind 4   end of the part: bytes u64, XXH3-128 of all of them (16)        once
//!   kind 5   whole: parts u32, XXH3-128 over the 16 bytes of every part      once, last
//! ```
//! All integers are little-endian. Each section has its own CRC; the hash of a part covers that no
//! section of it is missing or in another place, and that of the whole that no part is. Each part is the
//! state of its group at one log index. The parts stand at different moments: what is the same
//! moment for all of them is not needed, because no operation touches two groups. The meta group
//! comes last, so that every gateway of which a session speaks is in it.

mod reading;
mod writing;

use bytes::{BufMut, BytesMut};
use thiserror::Error;

pub use reading::{BackupReader, PartReader};
pub use writing::BackupWriter;

use crate::{
    DecodeError, GroupId, LogId, SectionError, codec::Reader, limits::NAME_BYTES_MAX,
    sections::Envelope,
};

const ENVELOPE: Envelope = Envelope { magic: *b"SBBACK01", what: "backup" };
const MANIFEST: u8 = 1;
const PART: u8 = 2;
const BYTES: u8 = 3;
const PART_END: u8 = 4;
const WHOLE: u8 = 5;

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The cluster that was backed up.
    pub cluster_id: [u8; 16],
    /// How many shards it has.
    pub shards: u32,
    /// When the backup began, Unix milliseconds by the clock of who made it.
    pub created_at_ms: u64,
    /// The build that made it, for people.
    pub made_by: String,
}

/// The state of one group in a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which group; 0 is the meta group, shard `s` is `s + 1`.
    pub group: GroupId,
    /// The last entry in it.
    pub at: LogId,
    /// The generation of its positions.
    pub generation: u8,
}

/// Why a backup cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The file is damaged, cut off, of another kind or of a later version.
    #[error(transparent)]
    Sections(#[from] SectionError),
    /// A section's content is not what it should be.
    #[error("the section at byte {at} is not valid: {source}")]
    Content {
        /// Where the section begins.
        at: u64,
        /// Where in it, and how.
        source: DecodeError,
    },
    /// Sections are sound, but do not make a backup.
    #[error("the section at byte {at} is out of place: {reason}")]
    Order {
        /// Where the section begins.
        at: u64,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Manifest {
    fn encode(&self) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_slice(&self.cluster_id);
        out.put_u32_le(self.shards);
        out.put_u64_le(self.created_at_ms);
        crate::codec::put_medium(&mut out, self.made_by.as_bytes());
        out
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            cluster_id: reader.array()?,
            shards: reader.u32()?,
            created_at_ms: reader.u64()?,
            made_by: reader.text("name of the build", NAME_BYTES_MAX)?,
        })
    }
}

impl Part {
    fn encode(&self) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_u32_le(self.group);
        out.put_u64_le(self.at.term);
        out.put_u64_le(self.at.index);
        out.put_u8(self.generation);
        out
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            group: reader.u32()?,
            at: LogId::new(reader.u64()?, reader.u64()?),
            generation: reader.u8()?,
        })
    }
}
