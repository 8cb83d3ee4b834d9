//! What memory holds of a queued message: 40 bytes, and never its body.
//!
//! ```text
//!   seq       64 bits
//!   link      distance to the message before it 56 │ length of the record's head 7 │ kind 1
//!   when      expiry 47 │ length of the body 17
//!   ttl 32 │ CRC of the record 32 │ file 32 │ offset 32
//! ```

use crate::{
    MessageKind, Position,
    command::RecordRef,
    limits::{BODY_BYTES_MAX, EXPIRY_MS_MAX, RECORD_HEAD_BYTES_MAX},
};

/// The file number of a message whose record still lies in its log entry.
const YOUNG: u32 = 0;
/// The file number of a message that had expired when its checkpoint was written.
const GONE: u32 = u32::MAX;

const BODY_BITS: u32 = 17;
const HEAD_BITS: u32 = 7;
const KIND_BIT: u32 = BODY_BITS + HEAD_BITS;
const DISTANCE_BITS: u32 = 56;
const DISTANCE_MAX: u64 = (1 << DISTANCE_BITS) - 1;

const _: () = {
    assert!(BODY_BYTES_MAX < 1 << BODY_BITS);
    assert!(RECORD_HEAD_BYTES_MAX < 1 << HEAD_BITS);
    assert!(DISTANCE_BITS + HEAD_BITS + 1 == u64::BITS);
    assert!(EXPIRY_MS_MAX == u64::MAX >> BODY_BITS);
    assert!(size_of::<Message>() == 40);
};

/// Where a message record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// One queued message. Size matters here; see the accessors for the meaning of what is packed. The default
/// is no message, which has no seq.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) seq: u64,
    link: u64,
    when: u64,
    pub(crate) ttl_ms: u32,
    pub(crate) crc: u32,
    file: u32,
    offset: u32,
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
        let shape = shape_of(kind, head_len, body_len);
        Self::packed((seq.get(), prev_seq), (expires_at_ms, ttl_ms), record.crc, shape)
            .at((YOUNG, record.offset))
    }

    /// Puts a message together again from what a file says.
    pub(crate) fn from_parts(
        seqs: (u64, u64),
        times: (u64, u32),
        crc: u32,
        shape: u32,
        place: Place,
    ) -> Option<Self> {
        let (seq, prev_seq) = seqs;
        let is_valid = shape >> (KIND_BIT + 1) == 0
            && times.0 <= EXPIRY_MS_MAX
            && (prev_seq == 0 || prev_seq < seq && seq - prev_seq <= DISTANCE_MAX);
        let place = Self::pack(place).filter(|_| is_valid)?;
        Some(Self::packed(seqs, times, crc, shape).at(place))
    }

    fn packed(seqs: (u64, u64), times: (u64, u32), crc: u32, shape: u32) -> Self {
        let ((seq, prev_seq), (expires_at_ms, ttl_ms)) = (seqs, times);
        let distance = if prev_seq == 0 { 0 } else { seq.saturating_sub(prev_seq) };
        let (body, head) = (shape & ((1 << BODY_BITS) - 1), shape >> BODY_BITS);
        Self {
            seq,
            link: distance.min(DISTANCE_MAX) | u64::from(head) << DISTANCE_BITS,
            when: expires_at_ms.min(EXPIRY_MS_MAX) << BODY_BITS | u64::from(body),
            ttl_ms,
            crc,
            file: YOUNG,
            offset: 0,
        }
    }

    fn at(mut self, (file, offset): (u32, u32)) -> Self {
        (self.file, self.offset) = (file, offset);
        self
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
        if let Some(place) = Self::pack(place) {
            *self = self.at(place);
        }
    }

    /// The message before it when it was enqueued; 0: the mailbox was empty. One that lies further back
    /// than a generation of positions is wide, which takes a mailbox that waited through a restore, is
    /// given as nearer than it was: a push then does not fit, and the gateway fetches.
    pub(crate) fn prev_seq(&self) -> u64 {
        match self.link & DISTANCE_MAX {
            0 => 0,
            distance => self.seq.saturating_sub(distance),
        }
    }

    pub(crate) fn expires_at_ms(&self) -> u64 {
        self.when >> BODY_BITS
    }

    pub(crate) fn kind(&self) -> MessageKind {
        if self.link >> (u64::BITS - 1) == 0 { MessageKind::Content } else { MessageKind::Receipt }
    }

    pub(crate) fn body_len(&self) -> usize {
        (self.when & ((1 << BODY_BITS) - 1)) as usize
    }

    pub(crate) fn record_len(&self) -> usize {
        self.body_len() + ((self.link >> DISTANCE_BITS) & ((1 << HEAD_BITS) - 1)) as usize
    }

    /// Body length 17 bits, head length 7 bits, kind 1 bit.
    pub(crate) fn shape(&self) -> u32 {
        (self.when as u32 & ((1 << BODY_BITS) - 1))
            | ((self.link >> DISTANCE_BITS) as u32) << BODY_BITS
    }

    pub(crate) fn enqueued_at_ms(&self) -> u64 {
        self.expires_at_ms().saturating_sub(u64::from(self.ttl_ms))
    }

    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms() <= now_ms
    }
}

/// Lengths beyond their limits were refused before; here they are cut to their bits.
fn shape_of(kind: MessageKind, head_len: usize, body_len: usize) -> u32 {
    let body = u32::try_from(body_len).unwrap_or(u32::MAX) & ((1 << BODY_BITS) - 1);
    let head = u32::try_from(head_len).unwrap_or(u32::MAX) & ((1 << HEAD_BITS) - 1);
    body | (head << BODY_BITS) | (u32::from(kind.to_u8()) << KIND_BIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(
            seq in 1_u64..1 << 63,
            distance in 0_u64..=DISTANCE_MAX,
            expires_at_ms in 0..=EXPIRY_MS_MAX,
            (ttl_ms, crc, file, offset) in any::<(u32, u32, u32, u32)>(),
            (head_len, body_len) in (0..=RECORD_HEAD_BYTES_MAX, 0..=BODY_BYTES_MAX),
            is_receipt in any::<bool>(),
        ) {
            let prev_seq = if distance == 0 { 0 } else { seq.saturating_sub(distance) };
            let place = Place::Old { file: file.clamp(1, u32::MAX - 1), offset };
            let kind = if is_receipt { MessageKind::Receipt } else { MessageKind::Content };
            let shape = shape_of(kind, head_len, body_len);
            let times = (expires_at_ms, ttl_ms);
            let message = Message::from_parts((seq, prev_seq), times, crc, shape, place);
            let message = message.expect("in range");
            prop_assert_eq!((message.seq, message.prev_seq()), (seq, prev_seq));
            prop_assert_eq!((message.expires_at_ms(), message.ttl_ms), times);
            prop_assert_eq!((message.crc, message.shape(), message.place()), (crc, shape, place));
            prop_assert_eq!((message.kind(), message.body_len()), (kind, body_len));
            prop_assert_eq!(message.record_len(), head_len + body_len);
        }
    }

    #[test]
    fn a_message_before_the_last_generation_is_named_nearer_than_it_was() {
        let (first, later) = (Position::new(0, 5, 0), Position::new(2, 7, 1));
        let (first, later) = (first.expect("in range"), later.expect("in range"));
        let record = RecordRef { offset: 0, len: 20, crc: 0 };
        let message = Message::young(later, first.get(), 1, 1, MessageKind::Content, record, 0);
        assert!(message.prev_seq() > first.get() && message.prev_seq() < later.get());
    }
}
