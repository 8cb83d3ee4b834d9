//! The order of sends per pair of sender and recipient: a state machine without I/O, one per Route
//! stream.
//!
//! Of each pair one batch is unresolved at the store; later sends wait behind it. When a batch
//! comes back with a retryable failure, everything that waits fails with it, and the pair is
//! *marked* with the number of that failure: sends that the gateway wrote before it knew
//! (`failures_seen` below the mark) fail too. Only then does a resend begin the pair anew, so it
//! cannot be overtaken.
//!
//! Invariants: a send is answered exactly once; the items of a pair are given out in the order of
//! the stream, never while earlier ones of the pair are out; marks ascend, and one is dropped as
//! soon as a request shows that the gateway has seen it, because every later request has, too.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use switchboard_api::v1::{
    DeviceRef, ItemStatus, enqueue_request, message::Kind, route_request::Send,
    route_response::Result as Answer,
};

use crate::limits::{CALL_BYTES_MAX, MARKS_MAX, PAIR_BATCH_BYTES_MAX, PAIR_BATCH_ITEMS_MAX};

/// Sender and recipient. The recipient is the user: a send to all devices and one to a single
/// device meet in one mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pair {
    from_user: Bytes,
    from_device: u32,
    to_user: Bytes,
}

impl Pair {
    fn of(from: &DeviceRef, to: &DeviceRef) -> Self {
        Self { from_user: from.user.clone(), from_device: from.device, to_user: to.user.clone() }
    }
}

/// A send on its way.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// As the gateway numbered it.
    pub(crate) id: u64,
    pub(crate) pair: Pair,
    pub(crate) item: enqueue_request::Item,
    /// The sender's own devices get a copy.
    pub(crate) to_own_devices: bool,
}

impl Outgoing {
    pub(crate) fn sender(&self) -> &[u8] {
        &self.pair.from_user
    }

    pub(crate) fn recipient(&self) -> &[u8] {
        &self.pair.to_user
    }
}

/// What is to be done after an input.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// Each a call to the store, or several, as long as the items of a pair stay in one.
    pub(crate) calls: Vec<Vec<Outgoing>>,
    /// For the gateway.
    pub(crate) answers: Vec<Answer>,
}

/// How the store answered one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: ItemStatus,
    pub(crate) at_ms: u64,
}

impl Outcome {
    /// Whether it is stored, now or before.
    pub(crate) fn is_durable(&self) -> bool {
        matches!(self.status, ItemStatus::Ok | ItemStatus::Duplicate)
    }
}

/// Whether sending the same again may succeed.
pub(crate) fn is_retryable(status: ItemStatus) -> bool {
    matches!(status, ItemStatus::Overloaded | ItemStatus::Unavailable)
}

/// The pairs of one stream.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    /// Pairs with a batch at the store, and what waits behind it.
    busy: HashMap<Pair, VecDeque<Outgoing>>,
    /// Pairs that failed, with the number of the last failure.
    marks: HashMap<Pair, u64>,
    /// The same by number.
    by_mark: BTreeMap<u64, Pair>,
    /// How many sends were answered retryably.
    failures: u64,
    items: usize,
    bytes: usize,
}

impl Pairs {
    /// How many sends were answered OVERLOADED or UNAVAILABLE so far.
    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    /// Sends that are not answered.
    pub(crate) fn items(&self) -> usize {
        self.items
    }

    /// Bytes of their bodies.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether so many failures are unknown to the gateway that the stream is of no use any more.
    pub(crate) fn has_too_many_marks(&self) -> bool {
        self.marks.len() > MARKS_MAX
    }

    /// Takes the valid sends of one request; those that need not wait are one call.
    pub(crate) fn accept(&mut self, sends: Vec<Send>, failures_seen: u64) -> Step {
        while let Some(entry) = self.by_mark.first_entry() {
            if *entry.key() > failures_seen {
                break;
            }
            self.marks.remove(&entry.remove());
        }
        let mut step = Step::default();
        let mut call: Vec<Outgoing> = Vec::with_capacity(sends.len());
        // Pairs that got a batch by this very request: further items join it.
        let mut begun: HashSet<Pair> = HashSet::new();
        for send in sends {
            let Some(outgoing) = outgoing(send) else { continue };
            if self.marks.contains_key(&outgoing.pair) {
                self.fail(outgoing.id, &outgoing.pair, &mut step.answers);
                continue;
            }
            self.items += 1;
            self.bytes += outgoing.item.body.len();
            if begun.contains(&outgoing.pair) {
                call.push(outgoing);
            } else if let Some(waiting) = self.busy.get_mut(&outgoing.pair) {
                waiting.push_back(outgoing);
            } else {
                self.busy.insert(outgoing.pair.clone(), VecDeque::new());
                begun.insert(outgoing.pair.clone());
                call.push(outgoing);
            }
        }
        if !call.is_empty() {
            step.calls.push(call);
        }
        step
    }

    /// Takes the outcomes of a call, one per item; the call has all that is out of each of its pairs.
    pub(crate) fn resolve(&mut self, call: Vec<Outgoing>, outcomes: &[Outcome]) -> Step {
        let mut step = Step::default();
        // The pairs of the call in the order in which they stand in it, and whether they failed.
        let mut pairs: Vec<(Pair, bool)> = Vec::new();
        let mut places: HashMap<Pair, usize> = HashMap::new();
        let missing = Outcome { status: ItemStatus::Unavailable, at_ms: 0 };
        for (at, sent) in call.into_iter().enumerate() {
            let Outcome { status, at_ms } = outcomes.get(at).copied().unwrap_or(missing);
            self.items -= 1;
            self.bytes -= sent.item.body.len();
            let place = *places.entry(sent.pair.clone()).or_insert(pairs.len());
            if place == pairs.len() {
                pairs.push((sent.pair.clone(), false));
            }
            if is_retryable(status) {
                self.fail_with(status, sent.id, &sent.pair, &mut step.answers);
                if let Some((_, failed)) = pairs.get_mut(place) {
                    *failed = true;
                }
            } else {
                let (id, status) = (sent.id, status.into());
                step.answers.push(Answer { id, status, at_ms, retry_after_ms: 0 });
            }
        }
        for (pair, failed) in pairs {
            if failed {
                self.fail_waiting(&pair, &mut step.answers);
            } else {
                self.go_on(&pair, &mut step.calls);
            }
        }
        step
    }

    fn fail_waiting(&mut self, pair: &Pair, answers: &mut Vec<Answer>) {
        for waiting in self.busy.remove(pair).unwrap_or_default() {
            self.items -= 1;
            self.bytes -= waiting.item.body.len();
            self.fail(waiting.id, pair, answers);
        }
    }

    /// The pair's batch is resolved: what waits, up to a bound, is its next.
    fn go_on(&mut self, pair: &Pair, calls: &mut Vec<Vec<Outgoing>>) {
        let Some(waiting) = self.busy.get_mut(pair) else { return };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < PAIR_BATCH_ITEMS_MAX && bytes < PAIR_BATCH_BYTES_MAX {
            let Some(next) = waiting.pop_front() else { break };
            bytes += next.item.body.len();
            batch.push(next);
        }
        if batch.is_empty() {
            self.busy.remove(pair);
            return;
        }
        match calls.last_mut() {
            Some(call) if fits(call, &batch, bytes) => call.extend(batch),
            _ => calls.push(batch),
        }
    }

    fn fail(&mut self, id: u64, pair: &Pair, answers: &mut Vec<Answer>) {
        self.fail_with(ItemStatus::Unavailable, id, pair, answers);
    }

    fn fail_with(&mut self, status: ItemStatus, id: u64, pair: &Pair, answers: &mut Vec<Answer>) {
        self.failures += 1;
        if let Some(before) = self.marks.insert(pair.clone(), self.failures) {
            self.by_mark.remove(&before);
        }
        self.by_mark.insert(self.failures, pair.clone());
        answers.push(Answer { id, status: status.into(), at_ms: 0, retry_after_ms: 0 });
    }
}

fn fits(call: &[Outgoing], batch: &[Outgoing], bytes: usize) -> bool {
    let held: usize = call.iter().map(|outgoing| outgoing.item.body.len()).sum();
    call.len() + batch.len() <= switchboard_api::limits::ITEMS_PER_BATCH_MAX
        && held + bytes <= CALL_BYTES_MAX
}

/// `None` for a send without sender or recipient, which validation has refused before.
fn outgoing(send: Send) -> Option<Outgoing> {
    let pair = Pair::of(send.from.as_ref()?, send.to.as_ref()?);
    let item = enqueue_request::Item {
        to: send.to,
        message_id: send.message_id,
        from: send.from,
        ttl_ms: send.ttl_ms,
        kind: Kind::Content.into(),
        body: send.body,
    };
    Some(Outgoing { id: send.id, pair, item, to_own_devices: send.to_own_devices })
}

#[cfg(test)]
#[path = "pairs_tests.rs"]
mod tests;
