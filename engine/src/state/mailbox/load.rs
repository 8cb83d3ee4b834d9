//! How much waits, kind by kind.

use crate::{MessageKind, state::message::Message};

/// How much of one kind, or of all, waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Load {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, bytes: self.bytes + other.bytes }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// What waits, kind by kind; 24 bytes, for there is one in every mailbox with messages. A mailbox holds
/// fewer than 2^32 of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loads {
    content_bytes: u64,
    receipt_bytes: u64,
    content: u32,
    receipts: u32,
}

impl Loads {
    pub(super) fn of_one(message: &Message) -> Self {
        let mut loads = Self::default();
        loads.add(message);
        loads
    }

    pub(super) fn of_kind(&self, kind: MessageKind) -> Load {
        let (messages, bytes) = match kind {
            MessageKind::Content => (self.content, self.content_bytes),
            MessageKind::Receipt => (self.receipts, self.receipt_bytes),
        };
        Load { messages: u64::from(messages), bytes }
    }

    pub(super) fn all(&self) -> Load {
        self.of_kind(MessageKind::Content).plus(self.of_kind(MessageKind::Receipt))
    }

    fn of_kind_mut(&mut self, kind: MessageKind) -> (&mut u32, &mut u64) {
        match kind {
            MessageKind::Content => (&mut self.content, &mut self.content_bytes),
            MessageKind::Receipt => (&mut self.receipts, &mut self.receipt_bytes),
        }
    }

    pub(super) fn add(&mut self, message: &Message) {
        let (messages, bytes) = self.of_kind_mut(message.kind());
        *messages = messages.saturating_add(1);
        *bytes += message.body_len() as u64;
    }

    pub(super) fn subtract(&mut self, message: &Message) {
        let (messages, bytes) = self.of_kind_mut(message.kind());
        *messages = messages.saturating_sub(1);
        *bytes = bytes.saturating_sub(message.body_len() as u64);
    }
}
