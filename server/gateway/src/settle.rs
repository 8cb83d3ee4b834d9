//! From a device's acknowledgement to the removal at the store, receipts first, as a pure state
//! machine.
//!
//! ```text
//!   Acknowledged ─▶ [ receipt under way ] ─▶ [ ready ] ─▶ [ ack under way ] ─▶ gone
//!        RECEIPTs and own copies yield none ──▶──┘
//! ```
//! Invariants: a message is acknowledged at the store only after its *delivered* receipt is durable
//! (or was refused for good), so a crash in between repeats the delivery and never loses the
//! receipt. `up_to_seq` of an ack covers no message that is out or whose receipt is under way.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use switchboard_api::{
    own_copy,
    v1::{DeviceRef, ItemStatus, ack_request, message::Kind},
};

use crate::{
    delivery::Entry,
    limits::{RETRY_MAX, RETRY_MIN, SETTLING_MAX},
    pacing::Pacing,
};
use switchboard_api::limits::{ACK_SEQS_MAX, RECEIPT_IDS_MAX};

/// Receipts to make durable for one sending device, and what waits for them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Due {
    pub(crate) to: DeviceRef,
    pub(crate) message_ids: Vec<[u8; 16]>,
    pub(crate) seqs: Vec<u64>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Settle {
    device: DeviceRef,
    epoch: u64,
    /// Their receipt is under way.
    receipted: BTreeSet<u64>,
    ready: BTreeSet<u64>,
    /// In the ack that is under way.
    acking: Option<(u64, Vec<u64>)>,
    acks: u64,
    retry_at: Option<Instant>,
    pacing: Pacing,
}

/// What an answered ack means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Go on.
    Continue,
    /// The device has claimed elsewhere.
    Fenced,
}

impl Settle {
    pub(crate) fn new(device: DeviceRef, epoch: u64, seed: u64) -> Self {
        Self {
            device,
            epoch,
            receipted: BTreeSet::new(),
            ready: BTreeSet::new(),
            acking: None,
            acks: 0,
            retry_at: None,
            pacing: Pacing::new(RETRY_MIN, RETRY_MAX, seed),
        }
    }

    /// Goes on where nothing was left to settle; `acks` were counted by then.
    pub(crate) fn resume(device: DeviceRef, epoch: u64, acks: u64, seed: u64) -> Self {
        Self { acks, ..Self::new(device, epoch, seed) }
    }

    /// Acks made so far.
    pub(crate) fn acks(&self) -> u64 {
        self.acks
    }

    /// Whose acknowledgements these are.
    pub(crate) fn device(&self) -> &DeviceRef {
        &self.device
    }

    /// How many more entries fit.
    pub(crate) fn room(&self) -> usize {
        SETTLING_MAX.saturating_sub(self.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        let acking = self.acking.as_ref().map_or(0, |(_, seqs)| seqs.len());
        self.receipted.len() + self.ready.len() + acking
    }

    /// The device has these. Returns the receipts to send first.
    pub(crate) fn acknowledged(&mut self, entries: Vec<Entry>) -> Vec<Due> {
        let mut by_sender: HashMap<(bytes::Bytes, u32), Due> = HashMap::new();
        let mut full = Vec::new();
        for entry in entries {
            // Neither a receipt nor a copy for the sender's own devices yields a receipt.
            let is_copy = entry.from.user == self.device.user
                && own_copy::original(&entry.message_id).is_some();
            if entry.kind == Kind::Receipt || is_copy {
                self.ready.insert(entry.seq);
                continue;
            }
            self.receipted.insert(entry.seq);
            let key = (entry.from.user.clone(), entry.from.device);
            let due = by_sender.entry(key.clone()).or_insert_with(|| Due {
                to: entry.from,
                message_ids: Vec::new(),
                seqs: Vec::new(),
            });
            due.message_ids.push(entry.message_id);
            due.seqs.push(entry.seq);
            if due.seqs.len() >= RECEIPT_IDS_MAX {
                full.extend(by_sender.remove(&key));
            }
        }
        full.extend(by_sender.into_values());
        // Hash maps have no order; a fixed one makes runs repeatable.
        full.sort_by_key(|due| due.seqs.first().copied());
        full
    }

    /// The receipts for these are durable, or were refused for good.
    pub(crate) fn receipted(&mut self, seqs: &[u64]) {
        for seq in seqs {
            if self.receipted.remove(seq) {
                self.ready.insert(*seq);
            }
        }
    }

    /// The next ack to send, if one is due: `(id, item)`. `first_out` is the lowest seq that was
    /// delivered and is not acknowledged.
    pub(crate) fn next_ack(
        &mut self,
        first_out: Option<u64>,
        now: Instant,
    ) -> Option<(u64, ack_request::Item)> {
        if self.acking.is_some()
            || self.ready.is_empty()
            || self.retry_at.is_some_and(|at| now < at)
        {
            return None;
        }
        self.retry_at = None;
        let first_open = [first_out, self.receipted.first().copied()].into_iter().flatten().min();
        let covered = first_open.unwrap_or(u64::MAX);
        let up_to_seq = self.ready.range(..covered).next_back().copied().unwrap_or(0);
        let named: Vec<u64> =
            self.ready.range(up_to_seq.saturating_add(1)..).copied().take(ACK_SEQS_MAX).collect();
        let last = named.last().copied().unwrap_or(up_to_seq);
        let rest = self.ready.split_off(&last.saturating_add(1));
        let seqs = std::mem::replace(&mut self.ready, rest).into_iter().collect();
        self.acks += 1;
        self.acking = Some((self.acks, seqs));
        let device = Some(self.device.clone());
        Some((self.acks, ack_request::Item { device, epoch: self.epoch, up_to_seq, seqs: named }))
    }

    /// An ack was answered.
    pub(crate) fn answered(&mut self, id: u64, status: ItemStatus, now: Instant) -> Settled {
        let Some((_, seqs)) = self.acking.take_if(|(under_way, _)| *under_way == id) else {
            return Settled::Continue;
        };
        match status {
            ItemStatus::Fenced => return Settled::Fenced,
            ItemStatus::Overloaded | ItemStatus::Unavailable => {
                self.ready.extend(seqs);
                self.retry_at = Some(now + self.pacing.next(RETRY_MIN));
            }
            // Anything else is final: repeating it would change nothing.
            _ => self.pacing.reset(),
        }
        Settled::Continue
    }

    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.acking.is_none() && !self.ready.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settle() -> Settle {
        Settle::new(DeviceRef { user: "bob".into(), device: 1 }, 7, 1)
    }

    fn entry(seq: u64, kind: Kind, from: &'static str) -> Entry {
        let from = DeviceRef { user: from.into(), device: 1 };
        Entry { seq, kind, from, message_id: [u8::try_from(seq).unwrap(); 16] }
    }

    fn ack(settle: &mut Settle, first_out: Option<u64>) -> Option<(u64, u64, Vec<u64>)> {
        let (id, item) = settle.next_ack(first_out, Instant::now())?;
        assert_eq!(item.epoch, 7);
        Some((id, item.up_to_seq, item.seqs))
    }

    #[test]
    fn nothing_is_acknowledged_before_its_receipt() {
        let mut settle = settle();
        let due = settle.acknowledged(vec![
            entry(10, Kind::Content, "alice"),
            entry(20, Kind::Content, "carol"),
            entry(30, Kind::Content, "alice"),
        ]);
        assert_eq!(due.len(), 2);
        assert_eq!((due[0].seqs.as_slice(), due[1].seqs.as_slice()), (&[10, 30][..], &[20][..]));
        assert_eq!(ack(&mut settle, None), None);
        settle.receipted(&[10, 30]);
        assert_eq!(ack(&mut settle, None), Some((1, 10, vec![30])));
        assert_eq!(ack(&mut settle, None), None);
        assert_eq!(settle.answered(1, ItemStatus::Ok, Instant::now()), Settled::Continue);
        settle.receipted(&[20]);
        assert_eq!(ack(&mut settle, None), Some((2, 20, vec![])));
        settle.answered(2, ItemStatus::Ok, Instant::now());
        assert!(settle.is_empty());
    }

    #[test]
    fn a_receipt_yields_no_receipt() {
        let mut settle = settle();
        assert_eq!(settle.acknowledged(vec![entry(10, Kind::Receipt, "alice")]), []);
        assert_eq!(ack(&mut settle, Some(5)), Some((1, 0, vec![10])));
    }

    #[test]
    fn a_copy_of_what_another_own_device_sent_yields_no_receipt() {
        let mut settle = settle();
        let copy = |from: &'static str| {
            let from = DeviceRef { user: from.into(), device: 2 };
            Entry { seq: 10, kind: Kind::Content, from, message_id: [0xf0; 16] }
        };
        assert_eq!(settle.acknowledged(vec![copy("bob")]), []);
        assert_eq!(settle.acknowledged(vec![copy("alice")]).len(), 1, "an id that looks like one");
    }

    #[test]
    fn what_is_out_is_never_covered() {
        let mut settle = settle();
        settle.acknowledged(vec![
            entry(10, Kind::Receipt, "alice"),
            entry(30, Kind::Receipt, "alice"),
        ]);
        assert_eq!(ack(&mut settle, Some(20)), Some((1, 10, vec![30])));
    }

    #[test]
    fn an_unanswered_ack_is_repeated_and_a_fenced_one_is_told() {
        let now = Instant::now();
        let mut settle = settle();
        settle.acknowledged(vec![entry(10, Kind::Receipt, "alice")]);
        assert!(settle.next_ack(None, now).is_some());
        settle.answered(1, ItemStatus::Unavailable, now);
        assert!(settle.next_ack(None, now).is_none());
        let at = settle.wake_at().unwrap();
        assert!(at > now && at <= now + Duration::from_secs(1));
        assert!(settle.next_ack(None, at).is_some());
        assert_eq!(settle.answered(1, ItemStatus::Fenced, at), Settled::Continue);
        assert_eq!(settle.answered(2, ItemStatus::Fenced, at), Settled::Fenced);
    }
}
