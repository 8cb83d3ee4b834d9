//! What waits in a lane and what is under way: pure bookkeeping, no I/O.

use std::collections::{BTreeMap, VecDeque};

use switchboard_api::{limits::ITEMS_PER_BATCH_MAX, v1::ItemStatus};
use tokio::time::Instant;

use super::{Answers, Call, Done};
use crate::limits::{
    COALESCED_BYTES_MAX, ITEM_OVERHEAD_BYTES, LANE_BYTES_MAX, LANE_ITEMS_MAX,
    MESSAGES_UNDER_WAY_MAX,
};

/// The items of one call.
struct Submission<C: Call> {
    class: C::Class,
    items: Vec<C::Item>,
    bytes: usize,
    done: Done<C::Answer>,
}

/// A message that was given to the transport.
struct UnderWay<C: Call> {
    since: Instant,
    items: usize,
    bytes: usize,
    /// The calls in it: how many items, and what becomes of their answers.
    parts: Vec<(usize, Done<C::Answer>)>,
}

/// Invariant: `items` and `bytes` are the sums over `waiting` and `under_way`, and within the
/// limits of a lane.
pub(super) struct Queue<C: Call> {
    waiting: VecDeque<Submission<C>>,
    /// By id; ids ascend, so this is also the order of sending.
    under_way: BTreeMap<u64, UnderWay<C>>,
    items: usize,
    bytes: usize,
    next_id: u64,
}

pub(super) type Answered<C> = (Done<<C as Call>::Answer>, Answers<<C as Call>::Answer>);

impl<C: Call> Queue<C> {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            under_way: BTreeMap::new(),
            items: 0,
            bytes: 0,
            next_id: 1,
        }
    }

    /// Appends a call; gives `done` back when the lane is full.
    pub(super) fn push(
        &mut self,
        class: C::Class,
        items: Vec<C::Item>,
        done: Done<C::Answer>,
    ) -> Result<(), Done<C::Answer>> {
        let bytes: usize = items.iter().map(|item| C::item_bytes(item) + ITEM_OVERHEAD_BYTES).sum();
        if self.items + items.len() > LANE_ITEMS_MAX || self.bytes + bytes > LANE_BYTES_MAX {
            return Err(done);
        }
        self.items += items.len();
        self.bytes += bytes;
        self.waiting.push_back(Submission { class, items, bytes, done });
        Ok(())
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next message: the first call that waits and as many after it as fit. `None` when
    /// nothing waits or too much is under way.
    pub(super) fn take(&mut self, now: Instant) -> Option<C::Request> {
        if self.under_way.len() >= MESSAGES_UNDER_WAY_MAX {
            return None;
        }
        let first = self.waiting.pop_front()?;
        let (class, mut items, mut bytes) = (first.class, first.items, first.bytes);
        let mut parts = vec![(items.len(), first.done)];
        while let Some(next) = self.waiting.front() {
            let fits = next.class == class
                && items.len() + next.items.len() <= ITEMS_PER_BATCH_MAX
                && bytes + next.bytes <= COALESCED_BYTES_MAX;
            if !fits {
                break;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            parts.push((next.items.len(), next.done));
            bytes += next.bytes;
            items.extend(next.items);
        }
        let id = self.next_id;
        self.next_id += 1;
        let under_way = UnderWay { since: now, items: items.len(), bytes, parts };
        self.under_way.insert(id, under_way);
        Some(C::request(id, class, items))
    }

    /// Deals the answers of a message out to its calls. `None`: no such message is under way.
    /// Items without an answer count as UNAVAILABLE.
    pub(super) fn answer(
        &mut self,
        id: u64,
        answers: Answers<C::Answer>,
    ) -> Option<Vec<Answered<C>>> {
        let message = self.under_way.remove(&id)?;
        self.items -= message.items;
        self.bytes -= message.bytes;
        let Answers { answers, staleness_ms } = answers;
        let mut rest = answers.into_iter();
        let dealt = message.parts.into_iter().map(|(count, done)| {
            let mut answers = Vec::with_capacity(count);
            answers.extend(rest.by_ref().take(count));
            answers.resize_with(count, || C::refused(ItemStatus::Unavailable));
            (done, Answers { answers, staleness_ms })
        });
        Some(dealt.collect())
    }

    /// Empties the lane, in the order of handing over.
    pub(super) fn fail_all(&mut self, status: ItemStatus) -> Vec<Answered<C>> {
        self.items = 0;
        self.bytes = 0;
        let sent = std::mem::take(&mut self.under_way).into_values().flat_map(|m| m.parts);
        let waiting = self.waiting.drain(..).map(|call| (call.items.len(), call.done));
        sent.chain(waiting).map(|(count, done)| (done, refused::<C>(count, status))).collect()
    }

    /// When the oldest message that is not answered was given to the transport.
    pub(super) fn oldest_under_way(&self) -> Option<Instant> {
        self.under_way.first_key_value().map(|(_, message)| message.since)
    }
}

pub(super) fn refused<C: Call>(count: usize, status: ItemStatus) -> Answers<C::Answer> {
    Answers { answers: (0..count).map(|_| C::refused(status)).collect(), staleness_ms: 0 }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
