//! Checks what applications saw against what was sent: each message once, whole, to the right user,
//! in the order sent, with its receipts.
//!
//! It is a pure state machine: events in, counts out, time given as a number. Messages are known by
//! id; their bodies only as hashes, so that a body that arrives under another id is a mismatch.
//!
//! Order is checked between each sender and recipient over all their conversations, which is what
//! the system promises and more than order within a conversation: messages get an ordinal per pair
//! when they are handed to the sender's device, and an ordinal may never be shown after a higher one.
//!
//! The invariant of a message: `handed over ≤ accepted`, `handed over ≤ shown ≤ delivered receipt`,
//! `shown < read receipt`; a *read* receipt implies *delivered*, because the two may be merged.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_128;

use crate::limits::FAULT_EXAMPLES_MAX;

/// The id of a message on the wire.
pub(crate) type MessageId = [u8; 16];

/// A message that will be sent, as the plan knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// Index of the sending user.
    pub(crate) from: usize,
    /// Index of the receiving user.
    pub(crate) to: usize,
    /// From [`body_hash`].
    pub(crate) body: u128,
    /// Whether the recipient reads it.
    pub(crate) read: bool,
}

/// What a body is compared by.
pub(crate) fn body_hash(body: &[u8]) -> u128 {
    xxh3_128(body)
}

/// The state of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// The recipient's device has acknowledged the message.
    Delivered,
    /// Its application says it was read.
    Read,
}

/// Everything that can go wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Refused for good; it was never sent.
    Refused,
    /// Handed over, but never accepted.
    Unaccepted,
    /// Accepted, but never shown to its recipient.
    Lost,
    /// Shown after a later message of the same sender and recipient.
    OutOfOrder,
    /// Shown again.
    ShownTwice,
    /// Shown with another body, or under another sender's name.
    BodyMismatch,
    /// Shown to somebody it was not sent to.
    Misdelivered,
    /// Shown, but no *delivered* receipt came.
    DeliveredMissing,
    /// Read, but no *read* receipt came.
    ReadMissing,
    /// A receipt for a message that its sender did not get delivered or read, or from another user.
    ReceiptWrong,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    expected: Expected,
    ordinal: u32,
    handed_over_us: Option<u64>,
    accepted: bool,
    refused: bool,
    shown: bool,
    delivered_receipt: bool,
    read_receipt: bool,
}

/// The counts so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages given to their sender's device.
    pub(crate) handed_over: u64,
    /// Messages that are durable.
    pub(crate) accepted: u64,
    /// Messages refused for good.
    pub(crate) refused: u64,
    /// Messages shown to their recipient.
    pub(crate) delivered: u64,
    /// Messages with a *delivered* (or *read*) receipt.
    pub(crate) receipts_delivered: u64,
    /// Messages with a *read* receipt.
    pub(crate) receipts_read: u64,
    /// Deliveries and receipts with ids of no message of this replay: left over from something else.
    pub(crate) strangers: u64,
}

/// What showing a message means for the one who shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Position of the message in the plan.
    pub(crate) index: usize,
    /// Whether to mark it as read.
    pub(crate) read: bool,
    /// Time since it was handed over.
    pub(crate) after_us: u64,
}

/// How often something went wrong, with examples in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FaultTally {
    /// How many times.
    pub(crate) count: u64,
    /// The first few.
    pub(crate) examples: Vec<String>,
}

/// Holds every message of a replay.
#[derive(Debug)]
pub(crate) struct Checker {
    entries: Vec<Entry>,
    by_id: HashMap<MessageId, usize>,
    handed_over_per_pair: HashMap<(usize, usize), u32>,
    shown_per_pair: HashMap<(usize, usize), u32>,
    counts: Counts,
    faults: HashMap<Fault, FaultTally>,
    reads_expected: u64,
}

impl Checker {
    /// A checker of these messages; an index below is a position in `expected`.
    pub(crate) fn new(expected: Vec<Expected>) -> Checker {
        let reads_expected = expected.iter().map(|message| u64::from(message.read)).sum();
        let entry = |expected| Entry {
            expected,
            ordinal: 0,
            handed_over_us: None,
            accepted: false,
            refused: false,
            shown: false,
            delivered_receipt: false,
            read_receipt: false,
        };
        Checker {
            by_id: HashMap::with_capacity(expected.len()),
            entries: expected.into_iter().map(entry).collect(),
            handed_over_per_pair: HashMap::new(),
            shown_per_pair: HashMap::new(),
            counts: Counts::default(),
            faults: HashMap::new(),
            reads_expected,
        }
    }

    /// The message was given to its sender's device under this id.
    pub(crate) fn handed_over(&mut self, index: usize, id: MessageId, now_us: u64) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        let pair = (entry.expected.from, entry.expected.to);
        let ordinal = self.handed_over_per_pair.entry(pair).or_default();
        *ordinal += 1;
        entry.ordinal = *ordinal;
        entry.handed_over_us = Some(now_us);
        self.by_id.insert(id, index);
        self.counts.handed_over += 1;
    }

    /// The message is durable. Returns the time since it was handed over.
    pub(crate) fn accepted(&mut self, index: usize, now_us: u64) -> Option<u64> {
        let entry = self.entries.get_mut(index)?;
        if !entry.accepted {
            entry.accepted = true;
            self.counts.accepted += 1;
        }
        Some(now_us.saturating_sub(entry.handed_over_us?))
    }

    /// The message was refused for good.
    pub(crate) fn refused(&mut self, index: usize, why: &str) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.refused = true;
            self.counts.refused += 1;
            self.fault(Fault::Refused, || format!("message {index}: {why}"));
        }
    }

    /// `user`'s application was given a message. `None` if it is not one of this replay.
    pub(crate) fn shown(
        &mut self,
        user: usize,
        id: &MessageId,
        from: Option<usize>,
        body: &[u8],
        now_us: u64,
    ) -> Option<Shown> {
        let Some(index) = self.by_id.get(id).copied() else {
            self.counts.strangers += 1;
            return None;
        };
        let entry = self.entries.get_mut(index)?;
        let expected = entry.expected;
        let ordinal = entry.ordinal;
        if user != expected.to {
            self.fault(Fault::Misdelivered, || {
                format!("message {index} for user {} came to user {user}", expected.to)
            });
            return None;
        }
        let after_us = now_us.saturating_sub(entry.handed_over_us.unwrap_or(now_us));
        let again = std::mem::replace(&mut entry.shown, true);
        if again {
            self.fault(Fault::ShownTwice, || format!("message {index}"));
        } else {
            self.counts.delivered += 1;
            self.check_order(index, (expected.from, expected.to), ordinal);
        }
        if from != Some(expected.from) || body_hash(body) != expected.body {
            self.fault(Fault::BodyMismatch, || {
                format!("message {index}: {} bytes from user {from:?}", body.len())
            });
        }
        Some(Shown { index, read: expected.read && !again, after_us })
    }

    fn check_order(&mut self, index: usize, pair: (usize, usize), ordinal: u32) {
        let highest = self.shown_per_pair.entry(pair).or_default();
        if ordinal > *highest {
            *highest = ordinal;
            return;
        }
        let highest = *highest;
        self.fault(Fault::OutOfOrder, || {
            format!("message {index} of users {pair:?}: number {ordinal} after number {highest}")
        });
    }

    /// `user`'s device got a receipt by `by`. When it says something new about a message, returns which
    /// and the time since it was handed over.
    pub(crate) fn receipt(
        &mut self,
        user: usize,
        id: &MessageId,
        by: Option<usize>,
        state: Receipt,
        now_us: u64,
    ) -> Option<(usize, u64)> {
        let Some(index) = self.by_id.get(id).copied() else {
            self.counts.strangers += 1;
            return None;
        };
        let entry = self.entries.get_mut(index)?;
        let expected = entry.expected;
        let earned = match state {
            Receipt::Delivered => entry.shown,
            Receipt::Read => entry.shown && expected.read,
        };
        if user != expected.from || by != Some(expected.to) || !earned {
            self.fault(Fault::ReceiptWrong, || {
                format!("{state:?} receipt by user {by:?} for message {index} to user {user}")
            });
            return None;
        }
        let read = state == Receipt::Read && !std::mem::replace(&mut entry.read_receipt, true);
        let delivered = !std::mem::replace(&mut entry.delivered_receipt, true);
        self.counts.receipts_read += u64::from(read);
        self.counts.receipts_delivered += u64::from(delivered);
        let handed_over_us = entry.handed_over_us?;
        (read || delivered).then(|| (index, now_us.saturating_sub(handed_over_us)))
    }

    /// The counts so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// How many messages the plan has.
    pub(crate) fn messages(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Whether nothing more is to come: every message accepted or refused, and all that follows an
    /// accepted one is there.
    pub(crate) fn is_settled(&self) -> bool {
        let counts = &self.counts;
        counts.accepted + counts.refused >= self.messages()
            && counts.delivered >= counts.accepted
            && counts.receipts_delivered >= counts.accepted
            && (counts.receipts_read >= self.reads_expected || counts.refused > 0)
    }

    /// Takes stock once nothing more is awaited: the faults, those of what is missing included.
    pub(crate) fn finish(mut self) -> Vec<(Fault, FaultTally)> {
        for index in 0..self.entries.len() {
            let Some(entry) = self.entries.get(index).copied() else { break };
            if entry.handed_over_us.is_none() || entry.refused {
                continue;
            }
            let who = || {
                let Expected { from, to, .. } = entry.expected;
                format!("message {index} from user {from} to user {to}")
            };
            if !entry.accepted {
                self.fault(Fault::Unaccepted, who);
            } else if !entry.shown {
                self.fault(Fault::Lost, who);
            }
            if entry.shown && !entry.delivered_receipt {
                self.fault(Fault::DeliveredMissing, who);
            }
            if entry.shown && entry.expected.read && !entry.read_receipt {
                self.fault(Fault::ReadMissing, who);
            }
        }
        let mut faults: Vec<_> = self.faults.into_iter().collect();
        faults.sort_by_key(|(fault, _)| *fault);
        faults
    }

    fn fault(&mut self, fault: Fault, example: impl FnOnce() -> String) {
        let tally = self.faults.entry(fault).or_default();
        tally.count += 1;
        if tally.examples.len() < FAULT_EXAMPLES_MAX {
            tally.examples.push(example());
        }
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
