//! What is delivered on one connection, when, and in which order, as a pure state machine.
//!
//! ```text
//!   claim, pushes, tails, pages, acks, room, time ─▶ ┌──────────┐ ─▶ Deliver, Fetch, Drained,
//!                                                    │ Delivery │    Acknowledged
//!                                                    └──────────┘
//!   0 ── settled ── out (written, not acknowledged) ── high ── waits in the mailbox ── heard
//! ```
//! It does no I/O and reads no clock. The mailbox at the store is the truth; a push only saves a
//! fetch. Invariants:
//! - `high` is the highest seq written on this connection, or passed over because nothing that
//!   waits lies at or below it. It only rises, and nothing at or below it is written but again.
//! - A push is written only if `prev_seq ≤ high < seq`: then nothing lies between. Any other makes
//!   a fetch, which goes on from `high`.
//! - `out` is ascending, holds at most `window` entries, all at or below `high`.
//! - While `heard > high`, a fetch is under way, or is made as soon as window and room allow.

mod ahead;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;
use switchboard_api::v1::{DeviceRef, Message, message::Kind};

use self::ahead::Ahead;
use crate::{
    limits::{
        PAGE_BYTES_MAX, PAGE_MESSAGES_MAX, RESEND_MAX, RESEND_MIN, RETRY_MAX, RETRY_MIN,
        WRITE_QUEUE_BYTES_MAX,
    },
    pacing::Pacing,
};

/// What a claim answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claimed {
    pub(crate) epoch: u64,
    /// The highest seq waiting; 0: nothing waits.
    pub(crate) tail: u64,
}

/// What is known of a message once its body has been written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    pub(crate) kind: Kind,
    pub(crate) from: DeviceRef,
    pub(crate) message_id: [u8; 16],
}

impl Entry {
    /// Copies, since slices of the message would keep the whole page in memory.
    fn of(message: &Message) -> Self {
        let from = message.from.as_ref().map(|from| DeviceRef {
            user: Bytes::copy_from_slice(&from.user),
            device: from.device,
        });
        Self {
            seq: message.seq,
            kind: message.kind(),
            from: from.unwrap_or_default(),
            message_id: message.message_id.as_ref().try_into().unwrap_or_default(),
        }
    }
}

/// A request for messages of this device's mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FetchOrder {
    pub(crate) id: u64,
    pub(crate) after_seq: u64,
    pub(crate) messages_max: u32,
    pub(crate) bytes_max: u32,
    pub(crate) min_position: u64,
}

/// The answer to one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    pub(crate) messages: Vec<Message>,
    pub(crate) more: bool,
    pub(crate) tail: u64,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Write this message or receipt to the device.
    Deliver(Message),
    /// Ask the store.
    Fetch(FetchOrder),
    /// Tell the device that what waited when it connected is through.
    Drained,
    /// The device has these: settle them.
    Acknowledged(Vec<Entry>),
}

/// What is left of a delivery in which nothing is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rest {
    epoch: u64,
    high: u64,
    fetches: u64,
    window: u32,
}

impl Rest {
    pub(crate) fn epoch(self) -> u64 {
        self.epoch
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// From `high` on; `heard` as it was when it was asked.
    Forward { heard: u64 },
    /// What is out already.
    Again,
}

#[derive(Debug, Clone, Copy)]
struct UnderWay {
    order: FetchOrder,
    purpose: Purpose,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Delivery {
    epoch: u64,
    window: usize,
    high: u64,
    /// The highest seq known to have been stored.
    heard: u64,
    claimed_tail: u64,
    drained: bool,
    out: VecDeque<Entry>,
    ahead: Ahead,
    /// Bytes queued for the device.
    queued: usize,
    /// How many more entries may be acknowledged and not settled.
    settle_room: usize,
    fetch: Option<UnderWay>,
    fetches: u64,
    /// After a failed fetch.
    fetch_at: Option<Instant>,
    fetch_pacing: Pacing,
    /// When what is out is sent again.
    again_at: Option<Instant>,
    again_pacing: Pacing,
}

impl Delivery {
    pub(crate) fn new(claimed: Claimed, window: u32, seed: u64) -> Self {
        Self {
            epoch: claimed.epoch,
            window: usize::try_from(window.max(1)).unwrap_or(1),
            high: 0,
            heard: claimed.tail,
            claimed_tail: claimed.tail,
            drained: false,
            out: VecDeque::new(),
            ahead: Ahead::default(),
            queued: 0,
            settle_room: usize::MAX,
            fetch: None,
            fetches: 0,
            fetch_at: None,
            fetch_pacing: Pacing::new(RETRY_MIN, RETRY_MAX, seed),
            again_at: None,
            again_pacing: Pacing::new(RESEND_MIN, RESEND_MAX, seed.rotate_left(32)),
        }
    }

    /// What is left of it if there is nothing to deliver and nothing waits for the device or the
    /// store.
    pub(crate) fn rest(&self) -> Option<Rest> {
        let idle = self.drained
            && self.out.is_empty()
            && self.fetch.is_none()
            && self.heard <= self.high
            && self.ahead.is_behind(self.high);
        let window = u32::try_from(self.window).unwrap_or(u32::MAX);
        idle.then_some(Rest { epoch: self.epoch, high: self.high, fetches: self.fetches, window })
    }

    /// Goes on from there.
    pub(crate) fn resume(rest: Rest, seed: u64) -> Self {
        let claimed = Claimed { epoch: rest.epoch, tail: rest.high };
        Self {
            high: rest.high,
            drained: true,
            fetches: rest.fetches,
            ..Self::new(claimed, rest.window, seed)
        }
    }

    /// The highest seq that was written or passed over.
    pub(crate) fn high(&self) -> u64 {
        self.high
    }

    /// The lowest seq that was written and is not acknowledged.
    pub(crate) fn first_out(&self) -> Option<u64> {
        self.out.front().map(|entry| entry.seq)
    }

    /// Written and not acknowledged.
    pub(crate) fn out_len(&self) -> usize {
        self.out.len()
    }

    /// How much the connection can take now.
    pub(crate) fn set_room(&mut self, queued: usize, settle_room: usize) {
        self.queued = queued;
        self.settle_room = settle_room;
    }

    /// A chat pushed a message for this connection's epoch.
    pub(crate) fn push(&mut self, message: Message, now: Instant, actions: &mut Vec<Action>) {
        self.heard = self.heard.max(message.seq);
        let fits = message.prev_seq <= self.high && self.high < message.seq;
        if fits && self.has_room() {
            self.take(message, now, actions);
        }
    }

    /// Something was stored at this seq, or so a comparison of tails says.
    pub(crate) fn heard(&mut self, seq: u64) {
        self.heard = self.heard.max(seq);
    }

    /// A fetch was answered.
    pub(crate) fn page(&mut self, id: u64, page: Page, now: Instant, actions: &mut Vec<Action>) {
        let Some(UnderWay { order, purpose }) = self.fetch.filter(|f| f.order.id == id) else {
            return;
        };
        self.fetch = None;
        self.fetch_at = None;
        self.fetch_pacing.reset();
        match purpose {
            Purpose::Forward { heard } => self.forward(page, heard, now, actions),
            Purpose::Again => self.again(&order, page, actions),
        }
    }

    /// A fetch failed.
    pub(crate) fn page_failed(&mut self, id: u64, now: Instant) {
        if self.fetch.is_some_and(|fetch| fetch.order.id == id) {
            self.fetch = None;
            self.fetch_at = Some(now + self.fetch_pacing.next(RETRY_MIN));
        }
    }

    /// The device acknowledged.
    pub(crate) fn acked(
        &mut self,
        up_to_seq: u64,
        seqs: &[u64],
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let before = self.out.len();
        let mut acknowledged = Vec::new();
        while self.out.front().is_some_and(|entry| entry.seq <= up_to_seq) {
            acknowledged.extend(self.out.pop_front());
        }
        for seq in seqs {
            if let Ok(at) = self.out.binary_search_by_key(seq, |entry| entry.seq) {
                acknowledged.extend(self.out.remove(at));
            }
        }
        // "Everything" means what is known to wait now, not what will ever come.
        self.ahead.add(up_to_seq.min(self.heard), seqs, self.high);
        if self.out.len() < before {
            self.again_pacing.reset();
            self.again_at = None;
        }
        self.set_again(now);
        if !acknowledged.is_empty() {
            actions.push(Action::Acknowledged(acknowledged));
        }
    }

    /// Does what is due. To be called after every other input, and at [`Delivery::wake_at`].
    pub(crate) fn poll(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if !self.drained && self.high >= self.claimed_tail {
            self.drained = true;
            actions.push(Action::Drained);
        }
        if self.fetch.is_some() || self.fetch_at.is_some_and(|at| now < at) {
            return;
        }
        if self.again_at.is_some_and(|at| at <= now) && self.queued < WRITE_QUEUE_BYTES_MAX {
            self.again_at = Some(now + self.again_pacing.next(RESEND_MIN));
            let after = self.first_out().unwrap_or(1) - 1;
            self.order(after, self.out.len(), Purpose::Again, actions);
        } else if self.heard > self.high && self.has_room() {
            let room = (self.window - self.out.len()).min(self.settle_room);
            let purpose = Purpose::Forward { heard: self.heard };
            self.order(self.high, room, purpose, actions);
        }
    }

    /// When [`Delivery::poll`] is due although nothing came.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        if self.fetch.is_some() {
            return None;
        }
        let again = self.again_at.filter(|_| self.queued < WRITE_QUEUE_BYTES_MAX);
        let Some(retry) = self.fetch_at else { return again };
        if self.heard > self.high && self.has_room() {
            return Some(retry);
        }
        again.map(|at| at.max(retry))
    }

    fn has_room(&self) -> bool {
        self.out.len() < self.window && self.queued < WRITE_QUEUE_BYTES_MAX && self.settle_room > 0
    }

    fn order(
        &mut self,
        after_seq: u64,
        messages: usize,
        purpose: Purpose,
        actions: &mut Vec<Action>,
    ) {
        self.fetches += 1;
        let bytes = (WRITE_QUEUE_BYTES_MAX - self.queued.min(WRITE_QUEUE_BYTES_MAX))
            .clamp(1, PAGE_BYTES_MAX);
        let order = FetchOrder {
            id: self.fetches,
            after_seq,
            messages_max: u32::try_from(messages.clamp(1, PAGE_MESSAGES_MAX)).unwrap_or(1),
            bytes_max: u32::try_from(bytes).unwrap_or(1),
            // The claim has been applied, and whatever was heard of.
            min_position: self.epoch.max(self.heard),
        };
        self.fetch = Some(UnderWay { order, purpose });
        self.fetch_at = None;
        actions.push(Action::Fetch(order));
    }

    fn forward(&mut self, page: Page, heard: u64, now: Instant, actions: &mut Vec<Action>) {
        self.heard = self.heard.max(page.tail);
        let mut whole = !page.more;
        for message in page.messages {
            if message.seq <= self.high {
                // A push was faster.
                continue;
            }
            if !self.has_room() {
                whole = false;
                break;
            }
            self.take(message, now, actions);
        }
        if whole {
            // Up to here the page has said everything; what is not in it is gone.
            self.high = self.high.max(heard).max(page.tail);
        }
    }

    fn again(&mut self, order: &FetchOrder, page: Page, actions: &mut Vec<Action>) {
        let last = page.messages.last().map_or(order.after_seq, |message| message.seq);
        let covered = if page.more { last } else { u64::MAX };
        let waiting: Vec<u64> = page.messages.iter().map(|message| message.seq).collect();
        // What was out when it was asked and waits no more has expired or was purged.
        self.out.retain(|entry| {
            entry.seq > covered
                || entry.seq > order.min_position
                || waiting.binary_search(&entry.seq).is_ok()
        });
        for message in page.messages {
            let out = self.out.binary_search_by_key(&message.seq, |entry| entry.seq).is_ok();
            if out && self.queued < WRITE_QUEUE_BYTES_MAX {
                self.queued += message.body.len();
                actions.push(Action::Deliver(message));
            }
        }
        if self.out.is_empty() {
            self.again_at = None;
        }
    }

    /// Writes a message that is next, or passes over one that the device has.
    fn take(&mut self, message: Message, now: Instant, actions: &mut Vec<Action>) {
        debug_assert!(message.seq > self.high);
        self.high = message.seq;
        let entry = Entry::of(&message);
        if self.ahead.covers(message.seq) {
            self.settle_room = self.settle_room.saturating_sub(1);
            match actions.last_mut() {
                Some(Action::Acknowledged(entries)) => entries.push(entry),
                _ => actions.push(Action::Acknowledged(vec![entry])),
            }
            return;
        }
        self.queued += message.body.len();
        self.out.push_back(entry);
        self.set_again(now);
        actions.push(Action::Deliver(message));
    }

    fn set_again(&mut self, now: Instant) {
        if self.out.is_empty() {
            self.again_at = None;
        } else if self.again_at.is_none() {
            self.again_at = Some(now + self.again_pacing.next(RESEND_MIN / 2));
        }
    }
}
