//! Frames: what one write and one sync puts on disk.
//!
//! ```text
//! offset size
//!      0    4  magic "SBLF"
//!      4    1  version, 1
//!      5    1  kind: 1 records, 2 segment header
//!      6    2  zero
//!      8    8  sequence of the segment
//!     16    8  offset of this frame in the segment
//!     24    8  segment  of the position up to which all is durable (exclusive),
//!     32    8  offset   known when this frame was made
//!     40    4  bytes of records
//!     44    4  number of records
//!     48    4  CRC of the frame before (its bytes 60..64); in a segment header, of the last frame of
//!              the segment before; 0 in the first segment
//!     52    4  CRC-32 of the records' first 8 bytes (length, CRC), one after the other
//!     56    4  zero
//!     60    4  CRC-32 of bytes 0..60, starting from the CRC-32 of the disk id
//!     64       records, then zeros up to a multiple of 4096
//! ```
//!
//! So a frame is bound to its disk, segment and place, to the frame before it and, through the CRCs
//! of its records, to every byte of them. The header has a CRC of its own because a torn frame's
//! header still says truthfully what was durable before it. That the CRC starts from the disk id,
//! which no client ever sees, keeps a message from passing for a frame header.

use super::buffer::FrameBuffer;
use super::limits::BLOCK_BYTES;
use super::record::field;

/// Bytes of a frame before its records.
pub(super) const FRAME_HEAD_BYTES: usize = 64;
/// The version of the format that this build writes, and the newest that it reads.
pub(super) const VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"SBLF";

/// A place in the log: a segment and an offset in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPlace {
    /// Sequence of the segment.
    pub segment: u64,
    /// Offset in bytes.
    pub offset: u64,
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FrameKind {
    Records = 1,
    SegmentHeader = 2,
}

/// The header of a frame, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) kind: FrameKind,
    /// Where the frame stands.
    pub(super) place: LogPlace,
    /// Everything before this is durable.
    pub(super) durable: LogPlace,
    pub(super) records_bytes: u32,
    pub(super) records: u32,
    /// CRC of the frame before.
    pub(super) previous: u32,
    pub(super) records_crc: u32,
}

/// What stands where a frame might begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// A header with the right CRC, and that CRC.
    Head(FrameHead, u32),
    /// A header of a newer version with the right CRC.
    NewerVersion(u8),
    /// It begins like a frame of this segment, but the CRC is wrong.
    Torn,
    /// Nothing, or something of another segment.
    Other,
}

impl FrameHead {
    /// Bytes from this frame's begin to the next.
    pub(super) fn total_bytes(&self) -> u64 {
        frame_bytes(u64::from(self.records_bytes))
    }

    /// The header's bytes and its CRC.
    pub(super) fn encode(&self, seed: u32) -> ([u8; FRAME_HEAD_BYTES], u32) {
        let mut out = [0; FRAME_HEAD_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(4, &[VERSION, self.kind as u8]);
        put(8, &self.place.segment.to_le_bytes());
        put(16, &self.place.offset.to_le_bytes());
        put(24, &self.durable.segment.to_le_bytes());
        put(32, &self.durable.offset.to_le_bytes());
        put(40, &self.records_bytes.to_le_bytes());
        put(44, &self.records.to_le_bytes());
        put(48, &self.previous.to_le_bytes());
        put(52, &self.records_crc.to_le_bytes());
        let crc = seeded_crc(seed, &out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        (out, crc)
    }

    /// Looks for the header of a frame of segment `segment` at the start of `bytes`.
    pub(super) fn look(bytes: &[u8], segment: u64, seed: u32) -> Looked {
        let Some(head) = bytes.first_chunk::<FRAME_HEAD_BYTES>() else { return Looked::Other };
        let u32_at = |at: usize| u32::from_le_bytes(field(head, at));
        let u64_at = |at: usize| u64::from_le_bytes(field(head, at));
        if field(head, 0) != MAGIC || u64_at(8) != segment {
            return Looked::Other;
        }
        let crc = u32_at(60);
        if seeded_crc(seed, head.get(..60).unwrap_or_default()) != crc {
            return Looked::Torn;
        }
        let [version, kind] = field(head, 4);
        if version > VERSION {
            return Looked::NewerVersion(version);
        }
        let kind = match kind {
            1 => FrameKind::Records,
            2 => FrameKind::SegmentHeader,
            _ => return Looked::Torn,
        };
        let head = Self {
            kind,
            place: LogPlace { segment: u64_at(8), offset: u64_at(16) },
            durable: LogPlace { segment: u64_at(24), offset: u64_at(32) },
            records_bytes: u32_at(40),
            records: u32_at(44),
            previous: u32_at(48),
            records_crc: u32_at(52),
        };
        Looked::Head(head, crc)
    }
}

/// Bytes of a frame with so many bytes of records.
pub(super) fn frame_bytes(records_bytes: u64) -> u64 {
    (FRAME_HEAD_BYTES as u64).saturating_add(records_bytes).next_multiple_of(BLOCK_BYTES)
}

/// What the CRC of every frame header of a disk starts from.
pub(super) fn seed_of(disk_id: &[u8; 16]) -> u32 {
    crc32fast::hash(disk_id)
}

fn seeded_crc(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// Collects records into a frame.
pub(super) struct FrameBuilder<'a> {
    out: &'a mut FrameBuffer,
    records: u32,
    crc: crc32fast::Hasher,
}

impl<'a> FrameBuilder<'a> {
    /// Starts over in a buffer, for a frame with about so many bytes of records.
    pub(super) fn new(out: &'a mut FrameBuffer, records_bytes: u64) -> Self {
        out.clear(usize::try_from(frame_bytes(records_bytes)).unwrap_or(usize::MAX));
        out.resize(FRAME_HEAD_BYTES);
        Self { out, records: 0, crc: crc32fast::Hasher::new() }
    }

    /// Adds a record; returns its offset within the frame.
    pub(super) fn push(&mut self, head: &[u8], payload: &[u8]) -> usize {
        let at = self.out.len();
        self.crc.update(head.get(..8).unwrap_or(head));
        self.out.extend(head);
        self.out.extend(payload);
        self.records += 1;
        at
    }

    /// Writes the header and the padding; returns the frame's CRC. The buffer then is the frame.
    pub(super) fn finish(
        self,
        kind: FrameKind,
        place: LogPlace,
        durable: LogPlace,
        previous: u32,
        seed: u32,
    ) -> u32 {
        let bytes = self.out.len() - FRAME_HEAD_BYTES;
        let head = FrameHead {
            kind,
            place,
            durable,
            // A frame is bounded far below 4 GiB by `frame_bytes_max`.
            records_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            records: self.records,
            previous,
            records_crc: self.crc.finalize(),
        };
        let (encoded, crc) = head.encode(seed);
        if let Some(begin) = self.out.bytes_mut().first_chunk_mut() {
            *begin = encoded;
        }
        self.out.resize(self.out.len().next_multiple_of(BLOCK_BYTES as usize));
        self.out.align();
        crc
    }
}
