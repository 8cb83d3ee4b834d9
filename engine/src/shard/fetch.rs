//! Pages of a mailbox, bodies included.

use std::sync::Arc;

use bytes::Bytes;

use super::{FetchError, Shard};
use crate::{
    DeviceId, MessageKind,
    command::RecordHead,
    limits::{FETCH_BYTES_MAX, FETCH_MESSAGES_MAX},
    log::PinnedEntry,
    state::{Message, Place},
};

/// A message as it waits in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Chosen by the sending device.
    pub message_id: [u8; 16],
    /// The sender.
    pub from: DeviceId,
    /// Its position in the mailbox.
    pub seq: u64,
    /// The message before it when it was enqueued; 0: the mailbox was empty.
    pub prev_seq: u64,
    /// Log time, Unix milliseconds.
    pub enqueued_at_ms: u64,
    /// Log time, Unix milliseconds.
    pub expires_at_ms: u64,
    /// Content or receipt.
    pub kind: MessageKind,
    /// Opaque. May share the memory of a map of its file: do not keep it for long.
    pub body: Bytes,
}

/// Some of what waits for a device, in order of seq.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Neither expired nor acknowledged.
    pub messages: Vec<StoredMessage>,
    /// More waits after the last one.
    pub more: bool,
    /// The highest seq waiting; 0: nothing waits.
    pub tail: u64,
}

/// The bytes around a message record, kept readable.
pub(super) enum Pin {
    Young(PinnedEntry),
    Old(Bytes),
}

impl Shard {
    /// Reads messages with a seq above `after_seq`: at most `messages_max` (no more than 1,024) and
    /// `bytes_max` of bodies (no more than 4 MiB), but at least one if any waits. May read a disk.
    ///
    /// # Errors
    /// See [`FetchError`]: no message is left out silently.
    pub fn fetch(
        &self,
        device: &DeviceId,
        after_seq: u64,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Page, FetchError> {
        let messages_max = messages_max.min(FETCH_MESSAGES_MAX);
        let bytes_max = bytes_max.min(FETCH_BYTES_MAX);
        let slice = loop {
            let state = self.state();
            let pin = |message: &Message| self.pin(message);
            match state.slice(device, after_seq, messages_max, bytes_max, pin) {
                Ok(slice) => break slice,
                // An import has swapped the state meanwhile, and what the old one pointed at may be
                // gone. Imports are rare, so this ends.
                Err(_) if !Arc::ptr_eq(&state, &self.state()) => {}
                Err(error) => return Err(error),
            }
        };
        let read = |(message, pin): (Message, Pin)| self.read(&message, &pin);
        let messages = slice.messages.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page { messages, more: slice.more, tail: slice.tail })
    }

    /// Keeps a message's record readable, whatever a checkpoint does meanwhile.
    pub(super) fn pin(&self, message: &Message) -> Result<Pin, FetchError> {
        match message.place() {
            Place::Young { index, .. } => Ok(Pin::Young(self.log.pin_entry(self.group, index)?)),
            Place::Old { file, .. } => Ok(Pin::Old(self.old.map(file)?)),
            Place::Gone => Err(FetchError::Gone { seq: message.seq }),
        }
    }

    /// The record of a pinned message, its CRC checked.
    pub(super) fn record(&self, message: &Message, pin: &Pin) -> Result<Bytes, FetchError> {
        let (len, crc) = (message.record_len(), message.crc);
        match (pin, message.place()) {
            (Pin::Young(entry), Place::Young { offset, .. }) => {
                Ok(entry.part(offset as usize, len, crc)?)
            }
            (Pin::Old(map), Place::Old { file, offset }) => {
                Ok(self.old.record(map, file, offset, len, crc)?)
            }
            // A pin is made from the message that it is used with.
            _ => Err(FetchError::Gone { seq: message.seq }),
        }
    }

    fn read(&self, message: &Message, pin: &Pin) -> Result<StoredMessage, FetchError> {
        let record = self.record(message, pin)?;
        let split = RecordHead::split(record);
        let (head, body) =
            split.map_err(|source| FetchError::Record { seq: message.seq, source })?;
        Ok(StoredMessage {
            message_id: head.message_id,
            from: head.from,
            seq: message.seq,
            prev_seq: message.prev_seq(),
            enqueued_at_ms: message.enqueued_at_ms(),
            expires_at_ms: message.expires_at_ms(),
            kind: head.kind,
            body,
        })
    }
}
