//! What memory holds of a queued message: 48 bytes, and never its body.

use crate::{
    MessageKind, Position,
    command::RecordRef,
    limits::{BODY_BYTES_MAX, RECORD_HEAD_BYTES_MAX},
};

/// The file number of a message whose record still lies in its log entry.
const YOUNG: u32 = 0;
/// The file number of a message that had expired when its checkpoint was written.
const GONE: u32 = u32::MAX;

const BODY_BITS: u32 = 17;
const HEAD_BITS: u32 = 7;
const KIND_BIT: u32 = BODY_BITS + HEAD_BITS;

const _: () = {
    assert!(BODY_BYTES_MAX < 1 << BODY_BITS);
    assert!(RECORD_HEAD_BYTES_MAX < 1 << HEAD_BITS);
    assert!(size_of::<Message>() == 48);
};

/// Where a message record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the payload of the log entry with this index.
    Young {
        /// Index of the entry in the group's log.
        index: u64,
        /// Bytes from the start of its payload.
        offset: u32,
    },
    /// In an old file.
    Old {
        /// Its number.
        file: u32,
        /// Bytes from its start.
        offset: u32,
    },
    /// Nowhere: it had expired before it could be moved, and nobody reads it any more.
    Gone,
}

/// One queued message. Size matters here; see the fields' accessors for their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) seq: u64,
    pub(crate) prev_seq: u64,
    pub(crate) expires_at_ms: u64,
    pub(crate) ttl_ms: u32,
    pub(crate) crc: u32,
    file: u32,
    offset: u32,
    /// Body length 17 bits, head length 7 bits, kind 1 bit.
    shape: u32,
}

impl Message {
    /// A message whose record lies in the entry that its seq names.
    pub(crate) fn young(
        seq: Position,
        prev_seq: u64,
        expires_at_ms: u64,
        ttl_ms: u32,
        kind: MessageKind,
        record: RecordRef,
        body_len: usize,
    ) -> Self {
        let head_len = usize::try_from(record.len).unwrap_or(0).saturating_sub(body_len);
        Self {
            seq: seq.get(),
            prev_seq,
            expires_at_ms,
            ttl_ms,
            crc: record.crc,
            file: YOUNG,
            offset: record.offset,
            shape: shape_of(kind, head_len, body_len),
        }
    }

    /// Puts a message together again from what a file says.
    pub(crate) fn from_parts(
        seqs: (u64, u64),
        times: (u64, u32),
        crc: u32,
        shape: u32,
        place: Place,
    ) -> Option<Self> {
        if shape >> (KIND_BIT + 1) != 0 {
            return None;
        }
        let (file, offset) = Self::pack(place)?;
        Some(Self {
            seq: seqs.0,
            prev_seq: seqs.1,
            expires_at_ms: times.0,
            ttl_ms: times.1,
            crc,
            file,
            offset,
            shape,
        })
    }

    fn pack(place: Place) -> Option<(u32, u32)> {
        match place {
            Place::Young { offset, .. } => Some((YOUNG, offset)),
            Place::Old { file: YOUNG | GONE, .. } => None,
            Place::Old { file, offset } => Some((file, offset)),
            Place::Gone => Some((GONE, 0)),
        }
    }

    pub(crate) fn place(&self) -> Place {
        match self.file {
            YOUNG => {
                // A young record lies in the entry whose position the seq is.
                Place::Young { index: Position::clamped(self.seq).index(), offset: self.offset }
            }
            GONE => Place::Gone,
            file => Place::Old { file, offset: self.offset },
        }
    }

    /// Points somewhere else; a file number that means something special leaves it as it is.
    pub(crate) fn set_place(&mut self, place: Place) {
        if let Some((file, offset)) = Self::pack(place) {
            self.file = file;
            self.offset = offset;
        }
    }

    pub(crate) fn kind(&self) -> MessageKind {
        if (self.shape >> KIND_BIT) & 1 == 0 { MessageKind::Content } else { MessageKind::Receipt }
    }

    pub(crate) fn body_len(&self) -> usize {
        (self.shape & ((1 << BODY_BITS) - 1)) as usize
    }

    pub(crate) fn record_len(&self) -> usize {
        self.body_len() + ((self.shape >> BODY_BITS) & ((1 << HEAD_BITS) - 1)) as usize
    }

    pub(crate) fn shape(&self) -> u32 {
        self.shape
    }

    pub(crate) fn enqueued_at_ms(&self) -> u64 {
        self.expires_at_ms.saturating_sub(u64::from(self.ttl_ms))
    }

    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms <= now_ms
    }
}

/// Lengths beyond their limits were refused before; here they are cut to their bits.
fn shape_of(kind: MessageKind, head_len: usize, body_len: usize) -> u32 {
    let body = u32::try_from(body_len).unwrap_or(u32::MAX) & ((1 << BODY_BITS) - 1);
    let head = u32::try_from(head_len).unwrap_or(u32::MAX) & ((1 << HEAD_BITS) - 1);
    body | (head << BODY_BITS) | (u32::from(kind.to_u8()) << KIND_BIT)
}
