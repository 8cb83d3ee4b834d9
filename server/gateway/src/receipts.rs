//! Receipts of one connection on their way to a chat, as a pure state machine: sent, and sent again
//! until they are durable or refused for good. They need no order.

use std::{collections::BTreeMap, time::Instant};

use switchboard_api::{device::v1::receipt::State, v1::DeviceRef};

use crate::{
    limits::{RETRY_MAX, RETRY_MIN},
    outcome::{Outcome, Verdict},
    pacing::Pacing,
};

/// What happens when the receipts are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// These seqs may be acknowledged at the store.
    Settle(Vec<u64>),
    /// The device is told `ReadAccepted`.
    Read,
}

/// Receipts by this device for one other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) to: (bytes::Bytes, u32),
    pub(crate) state: State,
    pub(crate) message_ids: Vec<[u8; 16]>,
    pub(crate) at_ms: u64,
    pub(crate) purpose: Purpose,
}

impl Batch {
    pub(crate) fn new(
        to: &DeviceRef,
        state: State,
        message_ids: Vec<[u8; 16]>,
        at_ms: u64,
        purpose: Purpose,
    ) -> Self {
        Self { to: (to.user.clone(), to.device), state, message_ids, at_ms, purpose }
    }
}

/// How a batch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) purpose: Purpose,
    pub(crate) message_ids: Vec<[u8; 16]>,
    /// Refused for good, with the reason.
    pub(crate) refused: Option<Outcome>,
}

#[derive(Debug)]
pub(crate) struct Receipts {
    under_way: BTreeMap<u64, Batch>,
    /// To be sent again at their time.
    waiting: Vec<(Instant, Batch)>,
    /// To be sent now.
    fresh: Vec<Batch>,
    reads: usize,
    pacing: Pacing,
}

impl Receipts {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            under_way: BTreeMap::new(),
            waiting: Vec::new(),
            fresh: Vec::new(),
            reads: 0,
            pacing: Pacing::new(RETRY_MIN, RETRY_MAX, seed),
        }
    }

    pub(crate) fn push(&mut self, batch: Batch) {
        self.reads += usize::from(batch.purpose == Purpose::Read);
        self.fresh.push(batch);
    }

    /// Whether none is under way or waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.waiting.is_empty() && self.fresh.is_empty()
    }

    /// Batches of reads that are not durable yet.
    pub(crate) fn reads(&self) -> usize {
        self.reads
    }

    /// The next batch to send; `id` is taken from the connection's count.
    pub(crate) fn next(&mut self, ids: &mut u64, now: Instant) -> Option<(u64, Batch)> {
        let due = self.waiting.iter().position(|(at, _)| *at <= now);
        let batch = due.map(|at| self.waiting.swap_remove(at).1).or_else(|| self.fresh.pop())?;
        *ids += 1;
        self.under_way.insert(*ids, batch.clone());
        Some((*ids, batch))
    }

    /// A batch was answered.
    pub(crate) fn answered(&mut self, id: u64, outcome: Outcome, now: Instant) -> Option<Done> {
        let batch = self.under_way.remove(&id)?;
        let verdict = outcome.verdict();
        if verdict == Verdict::Retry {
            let pause = self.pacing.next(outcome.retry_after());
            self.waiting.push((now + pause, batch));
            return None;
        }
        self.pacing.reset();
        self.reads -= usize::from(batch.purpose == Purpose::Read);
        let Batch { purpose, message_ids, .. } = batch;
        let refused = (verdict == Verdict::Refused).then_some(outcome);
        Some(Done { purpose, message_ids, refused })
    }

    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.waiting.iter().map(|(at, _)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use switchboard_api::v1::ItemStatus;

    use super::*;

    #[test]
    fn receipts_are_repeated_until_they_are_durable() {
        let now = Instant::now();
        let (mut receipts, mut ids) = (Receipts::new(3), 0);
        let to = DeviceRef { user: "alice".into(), device: 1 };
        receipts.push(Batch::new(&to, State::Read, vec![[1; 16]], 5, Purpose::Read));
        assert_eq!(receipts.next(&mut ids, now).unwrap().0, 1);
        let later = Outcome { status: ItemStatus::Unavailable, at_ms: 0, retry_after_ms: 90 };
        assert_eq!(receipts.answered(1, later, now), None);
        assert_eq!(receipts.next(&mut ids, now), None);
        let at = receipts.wake_at().unwrap();
        assert!(at >= now + Duration::from_millis(90));
        assert_eq!(receipts.next(&mut ids, at).unwrap().0, 2);
        let durable = Outcome { status: ItemStatus::Duplicate, at_ms: 0, retry_after_ms: 0 };
        assert_eq!(receipts.answered(1, durable, at), None);
        assert_eq!(receipts.answered(2, durable, at).unwrap().refused, None);
        assert_eq!(receipts.reads(), 0);
    }
}
