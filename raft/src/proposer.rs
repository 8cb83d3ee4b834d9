//! Group commit at the proposal: one proposer a group, which puts everything that waits into one
//! entry while the entry before is under way.
//!
//! ```text
//!  propose ─┐                      ┌─ one entry under way ─┐
//!  propose ─┼─▶ queue (bounded) ──▶│ stamp, encode, hand   │──▶ answers, command by command
//!  propose ─┘   order of the calls │ over, wait for commit │
//!                                  └───────────────────────┘
//! ```
//! An entry costs openraft and its followers about the same whatever it carries, so batches that
//! grow with the load are what makes a group fast; nothing waits on a timer.
//!
//! Invariants:
//! - The order of [`Proposer::propose`] calls is the order in the log.
//! - One entry at a time is between hand-over and commit. The next one is handed over at the
//!   commit, not at the answers, so that applying overlaps with the next write. No caller waits for a commit
//!   without bound: see `COMMIT_WAIT_MAX`.
//! - A refusal because the leader is fresh (its lease is not confirmed yet) is tried again here
//!   and nowhere else, with the same bytes.
//! - A proposal that spans several entries ends at its first part that fails: a later part is
//!   never applied behind a failed one.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use switchboard_engine::command::ENTRY_HEAD_BYTES;
use switchboard_engine::{Command, EntryBuilder, Reply};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use self::size::command_bytes;
use self::waiting::{Filled, Waiting, answer, fill};
use crate::error::{OverloadReason, Overloaded, ProposeError};
use crate::limits;
use crate::log_time::LogTime;
use crate::types::NodeId;

mod size;
#[cfg(test)]
mod tests;
mod waiting;

/// What became of an entry that was handed over.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Applied; one reply a command.
    Applied(Vec<Reply>),
    /// Refused before it was appended, because the leader has no lease yet.
    LeaseExpired,
    /// Refused before it was appended.
    NotLeader(Option<NodeId>),
    /// Refused because the group is stopped.
    Stopped,
    /// Lost sight of after it was handed over.
    Unknown,
}

pub(crate) type Committed = Pin<Box<dyn Future<Output = Result<(), ()>> + Send>>;

/// An entry on its way: first its commit, then its outcome. A refusal has no commit.
pub(crate) struct UnderWay {
    /// Resolves at the commit; an error means that only the outcome says more.
    pub(crate) committed: Committed,
    /// Resolves with the outcome.
    pub(crate) outcome: Pin<Box<dyn Future<Output = Outcome> + Send>>,
}

/// Where entries go: openraft, or a test's stand-in that holds them back and refuses them.
pub(crate) trait Sink: Send + Sync + 'static {
    /// Hands an entry over; entries are appended in the order of the calls.
    fn hand_over(&self, entry: Bytes) -> impl Future<Output = UnderWay> + Send;
}

/// Bounds of what may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) items_max: usize,
    pub(crate) bytes_max: usize,
}

/// Counters of a group's proposer since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProposerStats {
    /// Entries handed over and not refused.
    pub entries: u64,
    /// Commands in them.
    pub commands: u64,
    /// Their encoded bytes.
    pub bytes: u64,
    /// Times an entry was tried again because the leader's lease was not confirmed.
    pub lease_retries: u64,
    /// Proposals refused because too much waited.
    pub overloaded: u64,
    /// Commands waiting right now.
    pub waiting_items: usize,
    /// Bytes waiting right now.
    pub waiting_bytes: usize,
}

/// The replies of a proposal, to come.
///
/// Dropping it does not take the proposal back.
#[derive(Debug)]
pub struct Proposed {
    replies: oneshot::Receiver<Result<Vec<Reply>, ProposeError>>,
}

impl Future for Proposed {
    type Output = Result<Vec<Reply>, ProposeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A sender that was dropped went down with a proposer that had taken the commands.
        Pin::new(&mut self.replies)
            .poll(cx)
            .map(|received| received.unwrap_or(Err(ProposeError::OutcomeUnknown)))
    }
}

/// The queue in front of a group's entries. The task that empties it is [`Proposer::run`].
pub(crate) struct Proposer {
    /// Guards the queue and its sums; held to push one proposal or to fill one entry.
    queue: Mutex<Queue>,
    wake: Notify,
    bounds: Bounds,
    log_time: Arc<LogTime>,
    counters: Counters,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    items: usize,
    bytes: usize,
    closed: bool,
}

#[derive(Default)]
struct Counters {
    entries: AtomicU64,
    commands: AtomicU64,
    bytes: AtomicU64,
    lease_retries: AtomicU64,
    overloaded: AtomicU64,
    /// How long the last entry took from hand-over to commit.
    round_us: AtomicU64,
}

impl Proposer {
    pub(crate) fn new(log_time: Arc<LogTime>, bounds: Bounds) -> Self {
        Self {
            queue: Mutex::default(),
            wake: Notify::new(),
            bounds,
            log_time,
            counters: Counters::default(),
        }
    }

    /// Takes commands, in order, or nothing at all.
    ///
    /// Returns at once; the order of calls is the order in the log.
    pub(crate) fn propose(&self, commands: Vec<Command>) -> Result<Proposed, Overloaded> {
        let (sender, replies) = oneshot::channel();
        let bytes: usize = commands.iter().map(command_bytes).sum();
        let items = commands.len();
        if items == 0 {
            // Nothing to wait for: an entry without commands would cost a sync and say nothing.
            let _ = sender.send(Ok(Vec::new()));
            return Ok(Proposed { replies });
        }
        let refused = commands.iter().map(Command::check).enumerate();
        if let Some((index, status)) =
            refused.filter_map(|(at, check)| Some((at, check.err()?))).next()
        {
            let _ = sender.send(Err(ProposeError::Refused { index, status }));
            return Ok(Proposed { replies });
        }
        let mut queue = self.queue.lock();
        if queue.closed {
            let _ = sender.send(Err(ProposeError::Stopped));
            return Ok(Proposed { replies });
        }
        // An empty queue takes anything, or a proposal beyond the bounds could never be made.
        let full = queue.items + items > self.bounds.items_max
            || queue.bytes + bytes > self.bounds.bytes_max;
        if full && queue.items > 0 {
            self.counters.overloaded.fetch_add(1, Ordering::Relaxed);
            return Err(self.overloaded(&queue));
        }
        queue.items += items;
        queue.bytes += bytes;
        queue.waiting.push_back(Waiting::new(commands, sender));
        drop(queue);
        self.wake.notify_one();
        Ok(Proposed { replies })
    }

    /// Ends [`Self::run`] after the entry under way; what waits is answered `Stopped`.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.wake.notify_one();
    }

    pub(crate) fn stats(&self) -> ProposerStats {
        let queue = self.queue.lock();
        ProposerStats {
            entries: self.counters.entries.load(Ordering::Relaxed),
            commands: self.counters.commands.load(Ordering::Relaxed),
            bytes: self.counters.bytes.load(Ordering::Relaxed),
            lease_retries: self.counters.lease_retries.load(Ordering::Relaxed),
            overloaded: self.counters.overloaded.load(Ordering::Relaxed),
            waiting_items: queue.items,
            waiting_bytes: queue.bytes,
        }
    }

    /// Proposes what waits until the proposer is closed.
    pub(crate) async fn run<S: Sink>(self: Arc<Self>, sink: S) {
        // What was taken off the queue and is in no entry yet. Entries are filled from here, so
        // that the queue is not locked while bodies are copied.
        let mut taken = VecDeque::new();
        while self.take(&mut taken).await {
            let settled = self.settle().await;
            let room = ENTRY_HEAD_BYTES + self.queue.lock().bytes;
            let builder = EntryBuilder::with_room(self.log_time.stamp(), room);
            let (filled, gone) = fill(&mut taken, builder);
            {
                let mut queue = self.queue.lock();
                queue.items = queue.items.saturating_sub(gone.items);
                queue.bytes = queue.bytes.saturating_sub(gone.bytes);
            }
            match filled {
                Some(filled) if settled => {
                    if let Err(committed) = self.hand_over(&sink, filled).await {
                        self.stand_still(committed, &mut taken).await;
                    }
                }
                Some(filled) => answer(filled.parts, Outcome::NotLeader(None)),
                None => {}
            }
        }
        for waiting in taken {
            waiting.fail(ProposeError::Stopped);
        }
    }

    /// Takes all that waits behind what was taken before; waits while there is neither. False
    /// once the proposer is closed.
    async fn take(&self, taken: &mut VecDeque<Waiting>) -> bool {
        if taken.is_empty() {
            self.wait_for_commands().await;
        }
        // Whoever was woken by the last answers proposes again before this entry is filled. With
        // a fast disk it is this, not the wait for the commit, that makes entries large (measured
        // without a disk, 4 shards and 1,000 callers: 1.5 commands an entry without, 108 with).
        tokio::task::yield_now().await;
        let mut queue = self.queue.lock();
        taken.append(&mut queue.waiting);
        !queue.closed
    }

    async fn wait_for_commands(&self) {
        loop {
            {
                let queue = self.queue.lock();
                if queue.closed || !queue.waiting.is_empty() {
                    return;
                }
            }
            // A call between the look above and this wait has left a permit behind.
            self.wake.notified().await;
        }
    }

    /// Waits until there is a time to stamp with. False if there is none for long: a node that
    /// knows the clocks of no majority leads nothing.
    async fn settle(&self) -> bool {
        let deadline = Instant::now() + limits::LEASE_WAIT_MAX;
        while !self.log_time.is_settled() {
            if Instant::now() >= deadline || self.queue.lock().closed {
                return false;
            }
            tokio::time::sleep(limits::LEASE_RETRY_PAUSE).await;
        }
        true
    }

    /// Hands one entry over, as often as a fresh leader refuses it, and returns at its commit. If that is long in
    /// coming, its callers have been told that they cannot know, and the wait for it goes on elsewhere.
    async fn hand_over<S: Sink>(&self, sink: &S, filled: Filled) -> Result<(), Committed> {
        let started = Instant::now();
        loop {
            let UnderWay { mut committed, outcome } = sink.hand_over(filled.bytes.clone()).await;
            let Ok(commit) = timeout(limits::COMMIT_WAIT_MAX, &mut committed).await else {
                answer(filled.parts, Outcome::Unknown);
                return Err(committed);
            };
            if commit.is_ok() {
                self.count(&filled, started.elapsed());
                // The answers are waited for elsewhere, so that the next entry can be filled.
                tokio::spawn(async move { answer(filled.parts, outcome.await) });
                return Ok(());
            }
            match outcome.await {
                Outcome::LeaseExpired if started.elapsed() < limits::LEASE_WAIT_MAX => {
                    self.counters.lease_retries.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(limits::LEASE_RETRY_PAUSE).await;
                }
                refused => {
                    answer(filled.parts, refused);
                    return Ok(());
                }
            }
        }
    }

    /// Refuses what waits until the entry before it has an end: nothing of it has been handed over, and a caller
    /// with other shards to think of must not wait for a quorum that may never come back.
    async fn stand_still(&self, mut committed: Committed, taken: &mut VecDeque<Waiting>) {
        loop {
            let closed = {
                let mut queue = self.queue.lock();
                taken.append(&mut queue.waiting);
                (queue.items, queue.bytes) = (0, 0);
                queue.closed
            };
            for waiting in taken.drain(..) {
                waiting.fail(ProposeError::NotLeader { leader: None });
            }
            if closed || timeout(limits::STANDSTILL_PAUSE, &mut committed).await.is_ok() {
                return;
            }
        }
    }

    fn count(&self, filled: &Filled, round: Duration) {
        let counters = &self.counters;
        counters.entries.fetch_add(1, Ordering::Relaxed);
        counters.commands.fetch_add(filled.commands as u64, Ordering::Relaxed);
        counters.bytes.fetch_add(filled.bytes.len() as u64, Ordering::Relaxed);
        let round_us = u64::try_from(round.as_micros()).unwrap_or(u64::MAX);
        counters.round_us.store(round_us, Ordering::Relaxed);
    }

    /// Room is expected when as many entries as now wait have taken as long as the last one.
    fn overloaded(&self, queue: &Queue) -> Overloaded {
        let round = Duration::from_micros(self.counters.round_us.load(Ordering::Relaxed));
        let entries = 1 + queue.bytes / limits::ENTRY_BYTES_MAX;
        let retry_after = round
            .saturating_mul(u32::try_from(entries).unwrap_or(u32::MAX))
            .clamp(limits::OVERLOADED_RETRY_MIN, limits::OVERLOADED_RETRY_MAX);
        let reason = OverloadReason::Waiting { items: queue.items, bytes: queue.bytes };
        Overloaded { retry_after, reason }
    }
}
