//! The queue of one device: an index of messages in order of seq.
//!
//! `next_expiry_ms` is a lower bound of the earliest expiry, so that whoever touches the mailbox knows
//! whether to look. It may be too low after removals; that costs a look, never a wrong count.

use std::collections::VecDeque;

use super::message::Message;
use crate::{MessageKind, command::Rules, limits::MAILBOX_RECEIPTS_DIVISOR};

/// How much of one kind waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Load {
    fn add(&mut self, message: &Message) {
        self.messages += 1;
        self.bytes += message.body_len() as u64;
    }

    fn subtract(&mut self, message: &Message) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(message.body_len() as u64);
    }

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

/// The messages that wait for one device.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    queue: VecDeque<Message>,
    content: Load,
    receipts: Load,
    next_expiry_ms: u64,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            content: Load::default(),
            receipts: Load::default(),
            next_expiry_ms: u64::MAX,
        }
    }
}

impl Mailbox {
    pub(crate) fn with_capacity(messages: usize) -> Self {
        Self { queue: VecDeque::with_capacity(messages), ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// All that waits, expired or not.
    pub(crate) fn load(&self) -> Load {
        self.content.plus(self.receipts)
    }

    pub(crate) fn tail(&self) -> u64 {
        self.queue.back().map_or(0, |m| m.seq)
    }

    /// The highest seq that has not expired.
    pub(crate) fn live_tail(&self, now_ms: u64) -> u64 {
        self.queue.iter().rev().find(|m| !m.is_expired(now_ms)).map_or(0, |m| m.seq)
    }

    pub(crate) fn next_expiry_ms(&self) -> u64 {
        self.next_expiry_ms
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Message> {
        self.queue.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Message> {
        self.queue.iter_mut()
    }

    /// The messages after `seq`, in order.
    pub(crate) fn after(&self, seq: u64) -> impl Iterator<Item = &Message> {
        let from = self.queue.partition_point(|m| m.seq <= seq);
        self.queue.range(from..)
    }

    pub(crate) fn get(&self, seq: u64) -> Option<&Message> {
        self.queue.get(self.queue.binary_search_by_key(&seq, |m| m.seq).ok()?)
    }

    /// Nothing at or below this seq waits. 0 when the mailbox is empty: it has no record then.
    pub(crate) fn ack_floor(&self) -> u64 {
        self.queue.front().map_or(0, |m| m.seq.saturating_sub(1))
    }

    /// Whether one more message of this kind and size is within the limits.
    pub(crate) fn has_room(&self, kind: MessageKind, body_len: usize, rules: &Rules) -> bool {
        let (load, share) = match kind {
            MessageKind::Content => (self.content, 1),
            MessageKind::Receipt => (self.receipts, MAILBOX_RECEIPTS_DIVISOR),
        };
        load.messages < u64::from(rules.mailbox_messages_max / share)
            && load.bytes.saturating_add(body_len as u64)
                <= rules.mailbox_bytes_max / u64::from(share)
    }

    /// Appends; the caller sees to it that seqs ascend.
    pub(crate) fn push(&mut self, message: Message) {
        debug_assert!(self.tail() < message.seq);
        self.load_of(message.kind()).add(&message);
        self.next_expiry_ms = self.next_expiry_ms.min(message.expires_at_ms);
        self.queue.push_back(message);
    }

    fn load_of(&mut self, kind: MessageKind) -> &mut Load {
        match kind {
            MessageKind::Content => &mut self.content,
            MessageKind::Receipt => &mut self.receipts,
        }
    }

    /// Drops what has expired.
    pub(crate) fn drop_expired(&mut self, now_ms: u64) {
        if self.next_expiry_ms > now_ms {
            return;
        }
        self.retain(|m| !m.is_expired(now_ms));
    }

    /// Drops messages up to `up_to_seq` and those in `seqs`; returns how many. `seqs` need not be
    /// sorted, and may name what is not there.
    pub(crate) fn ack(&mut self, up_to_seq: u64, seqs: &[u64]) -> u32 {
        let before = self.queue.len();
        while let Some(front) = self.queue.front().filter(|m| m.seq <= up_to_seq).copied() {
            self.load_of(front.kind()).subtract(&front);
            self.queue.pop_front();
        }
        let mut named: Vec<u64> = seqs.iter().copied().filter(|seq| *seq > up_to_seq).collect();
        if !named.is_empty() && !self.queue.is_empty() {
            named.sort_unstable();
            self.retain(|m| named.binary_search(&m.seq).is_err());
        }
        self.shrink();
        u32::try_from(before - self.queue.len()).unwrap_or(u32::MAX)
    }

    /// Drops everything; returns what that was.
    pub(crate) fn clear(&mut self) -> Load {
        std::mem::take(self).load()
    }

    fn retain(&mut self, keep: impl Fn(&Message) -> bool) {
        let mut kept = Self::default();
        self.queue.retain(|message| {
            let stays = keep(message);
            if stays {
                kept.load_of(message.kind()).add(message);
                kept.next_expiry_ms = kept.next_expiry_ms.min(message.expires_at_ms);
            }
            stays
        });
        self.content = kept.content;
        self.receipts = kept.receipts;
        self.next_expiry_ms = kept.next_expiry_ms;
        self.shrink();
    }

    /// Gives back memory that a long queue no longer needs.
    fn shrink(&mut self) {
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
            self.next_expiry_ms = u64::MAX;
        } else if self.queue.capacity() > 64 && self.queue.len() * 4 < self.queue.capacity() {
            self.queue.shrink_to(self.queue.len() * 2);
        }
    }
}
