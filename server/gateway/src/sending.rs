//! A device's sends on their way to a chat, in order, as a pure state machine.
//!
//! ```text
//!   Send ─▶ gate ─▶ pair (by recipient): [ waiting … ] ─▶ [ batch under way ] ─▶ Accepted, Error
//!                                            ▲────────── retryable ──┘
//! ```
//! Invariants:
//! - Of each recipient one batch is under way at a time, so nothing can overtake what failed; what
//!   failed goes back to the front, in its order.
//! - After a send was refused with the wish to try again, later ones to the same recipient are
//!   refused too until the device repeats that one, since they were written before the device knew
//!   and would overtake it. If it does not repeat it for long, the connection ends.
//! - What is pending is never refused, and nothing waits for a repeat of what is durable: the device
//!   hears Accepted of it and repeats it no more.
//! - A pair with sends that wait and none under way is in `ready` or, until its time, in `retrying`; so
//!   what is due is found without looking at all pairs, of which a busy device has many.
//! - What is pending is bounded in number and bytes; beyond that the device is told OVERLOADED.
//! - While a chat has no room, a connection offers little: after OVERLOADED nothing for a pause, then one send
//!   at a time, and one more for each that is durable. What it has no place for is sent back to the device for
//!   about as long as this has lasted. Otherwise all that waits would be offered again and again, and that work
//!   would take the place of what could be done.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use switchboard_api::{
    device::v1::{Error, Send, error::Code},
    v1::ItemStatus,
};

use crate::{
    limits::{
        DURABLE_KNOWN_MAX, GATES_MAX, REFUSED_GRACE, RETRY_MAX, RETRY_MIN, SEND_BYTES_PENDING_MAX,
        SEND_FOLLOWS_AFTER, SEND_RETRY_AFTER, SEND_RETRY_AFTER_MAX, SEND_TRIED_MAX,
        SENDS_PENDING_MAX, SENDS_PENDING_OVERLOADED,
    },
    outcome::{Outcome, Verdict},
    pacing::Pacing,
};

/// What the device is told about a send.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Accepted {
        message_id: Bytes,
        at_ms: u64,
        duplicate: bool,
    },
    Error(Error),
    /// The connection has to end, since order cannot be kept otherwise.
    Close(Code),
}

#[derive(Debug)]
struct UnderWay {
    id: u64,
    send: Send,
    outcome: Option<Outcome>,
}

/// The sends to one user.
#[derive(Debug)]
struct Pair {
    under_way: Vec<UnderWay>,
    waiting: VecDeque<Send>,
    /// Since when nothing has been durable although it was tried.
    failing_since: Option<Instant>,
    pacing: Pacing,
}

/// A send that was refused and is expected again.
#[derive(Debug)]
struct Gate {
    message_id: Bytes,
    code: Code,
    open_at: Instant,
    until: Instant,
}

/// What became durable while repeats may be on their way that the device wrote before it knew.
#[derive(Debug)]
struct Durable {
    message_ids: VecDeque<Bytes>,
    until: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Sending {
    pairs: BTreeMap<Bytes, Pair>,
    /// Recipients to whom sends can be handed over now, the longest ready first.
    ready: VecDeque<Bytes>,
    /// Those to whom they can be then.
    retrying: BTreeSet<(Instant, Bytes)>,
    /// Which pair an item under way belongs to.
    users: BTreeMap<u64, Bytes>,
    pending: usize,
    pending_bytes: usize,
    /// By recipient.
    gates: BTreeMap<Bytes, Gate>,
    /// None unless the device has repeated something or was asked to, so most have none.
    durable: Option<Durable>,
    /// Sends that may be under way.
    window: usize,
    /// A chat had no room: nothing is handed over before.
    held_until: Option<Instant>,
    /// For how long, the next time.
    holding: Pacing,
    /// Since when chats have had no room for more than a few.
    overloaded_since: Option<Instant>,
    seed: u64,
}

impl Sending {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            pairs: BTreeMap::new(),
            ready: VecDeque::new(),
            retrying: BTreeSet::new(),
            users: BTreeMap::new(),
            pending: 0,
            pending_bytes: 0,
            gates: BTreeMap::new(),
            durable: None,
            window: SENDS_PENDING_MAX,
            held_until: None,
            holding: Pacing::new(RETRY_MIN, RETRY_MAX, seed),
            overloaded_since: None,
            seed,
        }
    }

    /// Whether nothing waits, is under way, or is expected again.
    pub(crate) fn is_empty(&self) -> bool {
        let nothing_pends = self.pairs.is_empty() && self.users.is_empty();
        nothing_pends && self.gates.is_empty() && self.durable.is_none()
    }

    /// The sends that are waited for before others.
    #[cfg(test)]
    pub(crate) fn expected(&self) -> impl Iterator<Item = &Bytes> {
        self.gates.values().map(|gate| &gate.message_id)
    }

    /// A valid send came. `limited`: the device has used up its rate and is to wait this long.
    pub(crate) fn send(
        &mut self,
        send: Send,
        limited: impl FnOnce() -> Option<Duration>,
        now: Instant,
        answers: &mut Vec<Answer>,
    ) {
        if self.is_pending(&send) {
            // An impatient device; one answer serves both.
            self.expect_repeats(now);
            return;
        }
        if let Some(gate) = self.gates.get(&send.to_user) {
            if gate.message_id != send.message_id {
                let pause = gate.open_at.saturating_duration_since(now).max(SEND_FOLLOWS_AFTER);
                answers.push(if now < gate.until {
                    told(&send, gate.code, pause)
                } else {
                    // The device has given the refused one up, or has not heard of it: on a new
                    // connection it begins with the oldest that it still wants to send.
                    Answer::Close(gate.code)
                });
                return;
            }
            // The one that was waited for goes through the checks like any other.
            self.gates.remove(&send.to_user);
        }
        if let Some(pause) = limited() {
            self.refuse(&send, Code::RateLimited, pause, now, answers);
            return;
        }
        let bytes = self.pending_bytes + send.body.len();
        if self.pending >= self.pending_max() || bytes > SEND_BYTES_PENDING_MAX {
            let pause = self.busy_for(now);
            self.refuse(&send, Code::Overloaded, pause, now, answers);
            return;
        }
        let seed = self.seed;
        let pair = self.pairs.entry(send.to_user.clone()).or_insert_with(|| Pair {
            under_way: Vec::new(),
            waiting: VecDeque::new(),
            failing_since: None,
            pacing: Pacing::new(RETRY_MIN, RETRY_MAX, seed),
        });
        self.pending += 1;
        self.pending_bytes = bytes;
        if pair.under_way.is_empty() && pair.waiting.is_empty() {
            self.ready.push_back(send.to_user.clone());
        }
        pair.waiting.push_back(send);
    }

    fn is_pending(&self, send: &Send) -> bool {
        let Some(pair) = self.pairs.get(&send.to_user) else { return false };
        let mut known = pair.under_way.iter().map(|item| &item.send).chain(&pair.waiting);
        known.any(|known| known.message_id == send.message_id)
    }

    /// The device repeats what it has no answer to: from here on it is remembered what has one.
    fn expect_repeats(&mut self, now: Instant) {
        let until = now + REFUSED_GRACE;
        let empty = || Durable { message_ids: VecDeque::new(), until };
        self.durable.get_or_insert_with(empty).until = until;
    }

    /// How many sends may be pending: while chats have no room no more than soon will be taken.
    fn pending_max(&self) -> usize {
        self.window.saturating_mul(4).clamp(SENDS_PENDING_OVERLOADED, SENDS_PENDING_MAX)
    }

    /// What a device is told to wait: about as long as chats have had no room, and each send its own time.
    fn busy_for(&mut self, now: Instant) -> Duration {
        let since = self.overloaded_since.unwrap_or(now);
        let lasted = now.saturating_duration_since(since);
        self.holding.shortened((2 * lasted).clamp(2 * SEND_RETRY_AFTER, SEND_RETRY_AFTER_MAX))
    }

    /// The sends to hand to a chat now, a batch for each recipient, with ids taken from the
    /// connection's count. A batch is not to be parted: it succeeds in order, or fails from some
    /// place on.
    pub(crate) fn next(
        &mut self,
        ids: &mut u64,
        now: Instant,
        batches: &mut Vec<Vec<(u64, Send)>>,
    ) {
        // What is pending may be repeated until it has its answer, however long that takes.
        let is_answered = self.pairs.is_empty();
        self.durable.take_if(|durable| is_answered && durable.until <= now);
        if self.held_until.is_some_and(|until| now < until) {
            return;
        }
        self.held_until = None;
        while let Some((at, user)) = self.retrying.pop_first() {
            if now < at {
                self.retrying.insert((at, user));
                break;
            }
            self.ready.push_back(user);
        }
        while self.users.len() < self.window
            && let Some(user) = self.ready.pop_front()
        {
            let Some(pair) = self.pairs.get_mut(&user) else { continue };
            // What is left of a pair that has some under way is ready when they are answered.
            let mut batch = Vec::new();
            while self.users.len() < self.window
                && let Some(send) = pair.waiting.pop_front()
            {
                *ids += 1;
                self.users.insert(*ids, user.clone());
                batch.push((*ids, send.clone()));
                pair.under_way.push(UnderWay { id: *ids, send, outcome: None });
            }
            batches.push(batch);
        }
    }

    /// A send was answered; false if this is none of ours.
    pub(crate) fn answered(
        &mut self,
        id: u64,
        outcome: Outcome,
        now: Instant,
        answers: &mut Vec<Answer>,
    ) -> bool {
        let Some(user) = self.users.remove(&id) else { return false };
        self.adapt(outcome, now);
        let Some(pair) = self.pairs.get_mut(&user) else { return true };
        let Some(item) = pair.under_way.iter_mut().find(|item| item.id == id) else {
            return true;
        };
        item.outcome = Some(outcome);
        let message_id = item.send.message_id.clone();
        match outcome.verdict() {
            Verdict::Durable => {
                if let Some(Durable { message_ids, until }) = &mut self.durable {
                    *until = now + REFUSED_GRACE;
                    if message_ids.len() >= DURABLE_KNOWN_MAX {
                        message_ids.pop_front();
                    }
                    message_ids.push_back(Bytes::copy_from_slice(&message_id));
                }
                answers.push(Answer::Accepted {
                    message_id,
                    at_ms: outcome.at_ms,
                    duplicate: outcome.status == ItemStatus::Duplicate,
                });
            }
            Verdict::Refused => answers.push(Answer::Error(Error {
                code: outcome.code().into(),
                message: outcome.reason().to_owned(),
                retry_after_ms: 0,
                message_id,
            })),
            Verdict::Retry => {}
        }
        if pair.under_way.iter().all(|item| item.outcome.is_some()) {
            self.resolve(&user, now, answers);
        }
        true
    }

    /// Offers more or less, by what came of the last send.
    fn adapt(&mut self, outcome: Outcome, now: Instant) {
        match outcome.status {
            ItemStatus::Overloaded => {
                self.window = 1;
                self.overloaded_since.get_or_insert(now);
                let pause = outcome.retry_after();
                self.held_until.get_or_insert_with(|| now + self.holding.next(pause));
            }
            ItemStatus::Ok | ItemStatus::Duplicate => {
                self.window = (self.window + 1).min(SENDS_PENDING_MAX);
                self.overloaded_since =
                    self.overloaded_since.filter(|_| self.window < SENDS_PENDING_OVERLOADED);
                self.holding.reset();
            }
            _ => {}
        }
    }

    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let retrying = self.retrying.first().map(|(at, _)| *at);
        let sending = match self.held_until {
            None => retrying,
            Some(held) if !self.ready.is_empty() => Some(held),
            Some(held) => retrying.map(|at| at.max(held)),
        };
        // Then it may rest.
        let forgetting = self.durable.as_ref().filter(|_| self.pairs.is_empty());
        let forgetting = forgetting.map(|durable| durable.until);
        sending.into_iter().chain(forgetting).min()
    }

    /// A batch has been answered as a whole.
    fn resolve(&mut self, user: &Bytes, now: Instant, answers: &mut Vec<Answer>) {
        let Some(pair) = self.pairs.get_mut(user) else { return };
        let mut pause = Duration::ZERO;
        let mut last = Outcome::UNAVAILABLE;
        let mut again = Vec::new();
        for item in pair.under_way.drain(..) {
            let outcome = item.outcome.unwrap_or(Outcome::UNAVAILABLE);
            if outcome.verdict() == Verdict::Retry {
                pause = pause.max(outcome.retry_after());
                last = outcome;
                again.push(item.send);
            } else {
                self.pending -= 1;
                self.pending_bytes -= item.send.body.len();
                pair.failing_since = None;
                pair.pacing.reset();
            }
        }
        if again.is_empty() {
            if pair.waiting.is_empty() {
                self.pairs.remove(user);
            } else {
                self.ready.push_back(user.clone());
            }
            return;
        }
        for send in again.into_iter().rev() {
            pair.waiting.push_front(send);
        }
        let since = *pair.failing_since.get_or_insert(now);
        if now.saturating_duration_since(since) < SEND_TRIED_MAX {
            let at = now + pair.pacing.next(pause);
            self.retrying.insert((at, user.clone()));
            return;
        }
        let Some(pair) = self.pairs.remove(user) else { return };
        // What is pending is older than anything refused so far: that is what must come first.
        self.gates.remove(user);
        for send in pair.waiting {
            self.pending -= 1;
            self.pending_bytes -= send.body.len();
            let pause = pause.max(self.busy_for(now));
            self.refuse(&send, last.code(), pause, now, answers);
        }
    }

    /// Tells the device to send it again later, and closes the gate until then; not for what is
    /// durable, which overtakes nothing and may never be sent again.
    fn refuse(
        &mut self,
        send: &Send,
        code: Code,
        pause: Duration,
        now: Instant,
        answers: &mut Vec<Answer>,
    ) {
        if self.gates.len() >= GATES_MAX {
            // Which sends are to be waited for cannot be remembered any more.
            answers.push(Answer::Close(code));
            return;
        }
        answers.push(told(send, code, pause));
        let durable = self.durable.as_ref();
        if durable.is_some_and(|known| known.message_ids.contains(&send.message_id)) {
            return;
        }
        self.expect_repeats(now);
        let open_at = now + pause;
        let user = Bytes::copy_from_slice(&send.to_user);
        self.gates.entry(user).or_insert_with(|| Gate {
            message_id: Bytes::copy_from_slice(&send.message_id),
            code,
            open_at,
            until: open_at + REFUSED_GRACE,
        });
    }
}

fn told(send: &Send, code: Code, pause: Duration) -> Answer {
    let message = match code {
        Code::RateLimited => "too many messages; send this one and later ones again",
        Code::Overloaded => "the servers are busy; send this one and later ones again",
        _ => "the servers cannot be reached; send this one and later ones again",
    };
    // Rounded up, so that a device that waits is not early.
    let ms = pause.as_micros().div_ceil(1_000);
    Answer::Error(Error {
        code: code.into(),
        message: message.to_owned(),
        retry_after_ms: u64::try_from(ms).unwrap_or(u64::MAX).max(1),
        message_id: send.message_id.clone(),
    })
}
