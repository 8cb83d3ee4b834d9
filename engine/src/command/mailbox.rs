//! Commands about mailboxes, and the message record inside an enqueue.
//!
//! The last field of an encoded [`Enqueue`] is the *message record*: all that a reader of the message
//! needs besides the index in memory, in one piece.
//!
//! ```text
//! byte 0       kind: 0 content, 1 receipt
//! bytes 1-16   message id
//! then         sender's device, a varint
//! then u8      length of the sender's user id, u
//! then u       sender's user id
//! to the end   body
//! ```
//! While the message is young the index points at the record inside the log entry; a checkpoint copies
//! the same bytes into an old file. One CRC covers it on both ways.

use bytes::{BufMut, Bytes, BytesMut};

use super::session::{get_device, get_user, put_device};
use crate::{
    codec::{DecodeError, Reader, put_medium, put_short, put_varint, varint_len},
    device::DeviceId,
    limits::{ACK_SEQS_MAX, MESSAGE_ID_BYTES, REASON_BYTES_MAX, RECORD_BYTES_MAX},
};

/// What kind of message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// Written by a user's application.
    Content,
    /// Made by a gateway or chat; counted apart.
    Receipt,
}

impl MessageKind {
    pub(crate) fn to_u8(self) -> u8 {
        match self {
            Self::Content => 0,
            Self::Receipt => 1,
        }
    }

    pub(crate) fn from_u8(tag: u8, at: usize) -> Result<Self, DecodeError> {
        match tag {
            0 => Ok(Self::Content),
            1 => Ok(Self::Receipt),
            tag => Err(DecodeError::Tag { what: "message kind", tag, at }),
        }
    }
}

/// Stores a message for one device, or for all devices that the user has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueue {
    /// The recipient.
    pub to_user: Bytes,
    /// Its device; 0: all of them.
    pub to_device: u16,
    /// Chosen by the sending device; with the sender the key of idempotency.
    pub message_id: [u8; MESSAGE_ID_BYTES],
    /// The sender.
    pub from: DeviceId,
    /// Time to live; 0: the default; more than the maximum: the maximum.
    pub ttl_ms: u64,
    /// Content or receipt.
    pub kind: MessageKind,
    /// Opaque; at most 64 KiB.
    pub body: Bytes,
}

/// Removes messages from a device's mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Whose mailbox.
    pub device: DeviceId,
    /// The epoch of the device's session; 0: no fence.
    pub epoch: u64,
    /// All messages up to and including this seq; more than the tail means the tail.
    pub up_to_seq: u64,
    /// And these, at most 1,024.
    pub seqs: Vec<u64>,
}

/// Empties a device's mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Whose mailbox.
    pub device: DeviceId,
    /// For the audit log, at most 256 bytes.
    pub reason: Bytes,
}

/// Where a message record lies in the payload of its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef {
    /// Bytes from the start of the payload.
    pub offset: u32,
    /// Its length.
    pub len: u32,
    /// CRC-32 (IEEE) of it.
    pub crc: u32,
}

/// A message record taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// Content or receipt.
    pub kind: MessageKind,
    /// The message's id.
    pub message_id: [u8; MESSAGE_ID_BYTES],
    /// Its sender.
    pub from: DeviceId,
}

impl RecordHead {
    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.kind.to_u8());
        out.put_slice(&self.message_id);
        put_device(out, &self.from);
    }

    /// Splits a message record into head and body; both share its memory.
    pub fn split(record: Bytes) -> Result<(Self, Bytes), DecodeError> {
        let mut reader = Reader::new(record);
        let head = Self::decode(&mut reader)?;
        let body = reader.bytes(reader.left())?;
        Ok((head, body))
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let at = reader.at();
        Ok(Self {
            kind: MessageKind::from_u8(reader.u8()?, at)?,
            message_id: reader.array()?,
            from: get_device(reader)?,
        })
    }

    fn encoded_len(&self) -> usize {
        1 + MESSAGE_ID_BYTES + varint_len(u64::from(self.from.device)) + 1 + self.from.user.len()
    }
}

impl Enqueue {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let head =
            RecordHead { kind: self.kind, message_id: self.message_id, from: self.from.clone() };
        put_varint(out, u64::from(self.to_device));
        put_short(out, &self.to_user);
        put_varint(out, self.ttl_ms);
        put_varint(out, head.encoded_len().saturating_add(self.body.len()) as u64);
        head.encode(out);
        out.put_slice(&self.body);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<(Self, RecordRef), DecodeError> {
        let to_device = reader.varint16("device")?;
        let to_user = get_user(reader)?;
        let ttl_ms = reader.varint()?;
        let len = reader.varcount(1)?;
        let offset = reader.at();
        let range = DecodeError::Range { what: "message record", at: offset };
        if len > RECORD_BYTES_MAX {
            return Err(range);
        }
        let record = reader.bytes(len)?;
        let found = RecordRef {
            offset: u32::try_from(offset).map_err(|_| range)?,
            len: u32::try_from(len).unwrap_or(u32::MAX),
            crc: crc32fast::hash(&record),
        };
        let (head, body) = RecordHead::split(record)?;
        let RecordHead { kind, message_id, from } = head;
        Ok((Self { to_user, to_device, message_id, from, ttl_ms, kind, body }, found))
    }
}

impl Ack {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_device(out, &self.device);
        put_varint(out, self.epoch);
        put_varint(out, self.up_to_seq);
        put_varint(out, self.seqs.len() as u64);
        for seq in &self.seqs {
            put_varint(out, *seq);
        }
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let device = get_device(reader)?;
        let epoch = reader.varint()?;
        let up_to_seq = reader.varint()?;
        let count = reader.varcount(1)?;
        if count > ACK_SEQS_MAX {
            return Err(DecodeError::Range { what: "number of seqs", at: reader.at() });
        }
        let seqs = (0..count).map(|_| reader.varint()).collect::<Result<_, _>>()?;
        Ok(Self { device, epoch, up_to_seq, seqs })
    }
}

impl Purge {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_device(out, &self.device);
        put_medium(out, &self.reason);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let device = get_device(reader)?;
        Ok(Self { device, reason: reader.medium("reason", REASON_BYTES_MAX)? })
    }
}
