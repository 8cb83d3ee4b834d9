//! Group commit without a thread of its own: whoever finds nobody committing commits for all.
//!
//! One lock and one condition guard the queue. The thread that leads takes what waits, up to one entry,
//! syncs it with the lock free, applies it and hands out the answers; once it has its own it steps down,
//! and any thread that still waits leads next. So nobody works for others for ever.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use foldhash::fast::FixedState;
use parking_lot::{Condvar, Mutex};

use super::{GROUP, StoreError};
use crate::{
    Clock, Command, EntryBuilder, EntryPayload, LogId, PushError, Reply, Shard,
    log::{AppendError, Log, Record, Space, SpaceLevel},
};

/// Everything that is written by one process is written in one term.
const TERM: u64 = 1;
/// While space is short, a checkpoint is due after this part of the usual bytes of log.
const SHORT_OF_SPACE_SHARE: u64 = 8;

pub(super) struct Commits {
    log: Log,
    clock: Arc<dyn Clock>,
    checkpoint_bytes: u64,
    reserve_bytes: u64,
    is_checkpointing: AtomicBool,
    /// After a checkpoint that found no space: the bytes of log with which to try again.
    not_before_bytes: AtomicU64,
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    /// What waits, with the number of the call that it belongs to.
    waiting: VecDeque<(u64, Command)>,
    answers: HashMap<u64, Answer, FixedState>,
    next_call: u64,
    is_led: bool,
    /// Set by a failure that leaves the outcome of an entry open.
    is_closed: bool,
    last: Option<LogId>,
}

/// What is known of a call so far.
#[derive(Default)]
struct Answer {
    replies: Vec<Reply>,
    /// Part of it was refused, and with it the rest.
    refused: Option<AppendError>,
}

/// One entry's worth of the queue.
struct Batch {
    /// The entry before it.
    before: Option<LogId>,
    at: LogId,
    payload: EntryPayload,
    calls: Vec<u64>,
}

impl std::fmt::Debug for Commits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Commits")
    }
}

impl Commits {
    pub(super) fn new(
        log: Log,
        last: Option<LogId>,
        clock: Arc<dyn Clock>,
        checkpoint_bytes: u64,
        reserve_bytes: u64,
    ) -> Self {
        let queue = Queue {
            waiting: VecDeque::new(),
            answers: HashMap::default(),
            next_call: 0,
            is_led: false,
            is_closed: false,
            last,
        };
        Self {
            log,
            clock,
            checkpoint_bytes,
            reserve_bytes,
            is_checkpointing: AtomicBool::new(false),
            not_before_bytes: AtomicU64::new(0),
            queue: Mutex::new(queue),
            changed: Condvar::new(),
        }
    }

    /// Makes commands durable and applies them, in order; a reply for each. Each must have passed
    /// [`Command::check`].
    pub(super) fn commit(
        &self,
        shard: &Shard,
        commands: Vec<Command>,
    ) -> Result<Vec<Reply>, StoreError> {
        let expected = commands.len();
        if expected == 0 {
            return Ok(Vec::new());
        }
        let mut queue = self.queue.lock();
        let call = queue.next_call;
        queue.next_call += 1;
        queue.waiting.extend(commands.into_iter().map(|command| (call, command)));
        let replies = loop {
            if let Some(answer) = queue.take_answer(call, expected) {
                break answer?;
            }
            if queue.is_closed {
                queue.answers.remove(&call);
                return Err(StoreError::Closed);
            }
            if queue.is_led {
                self.changed.wait(&mut queue);
                continue;
            }
            queue.is_led = true;
            let batch = queue.next_batch(self.clock.unix_ms());
            drop(queue);
            let outcome = self.write(shard, &batch);
            queue = self.queue.lock();
            queue.is_led = false;
            let settled = queue.settle(&batch, outcome);
            self.changed.notify_all();
            settled?;
        };
        drop(queue);
        self.checkpoint_if_due(shard)?;
        Ok(replies)
    }

    fn write(&self, shard: &Shard, batch: &Batch) -> Result<Vec<Reply>, StoreError> {
        let Batch { at, payload, .. } = batch;
        let entry = Record::Entry { group: GROUP, log_id: *at, payload: payload.clone() };
        self.log.append_wait(vec![entry, Record::Committed { group: GROUP, log_id: *at }])?;
        Ok(shard.apply(*at, payload)?)
    }

    /// The call that finds the log long enough takes the checkpoint; others go on meanwhile.
    fn checkpoint_if_due(&self, shard: &Shard) -> Result<(), StoreError> {
        let retained = self.log.retained_bytes(GROUP);
        // Where space is short, it is the log that can be made shorter.
        let share = self.checkpoint_bytes / SHORT_OF_SPACE_SHARE;
        let is_due = retained >= self.not_before_bytes.load(Ordering::Acquire)
            && (retained >= self.checkpoint_bytes
                || (retained >= share && self.check_space().is_err()));
        if !is_due || self.is_checkpointing.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let taken = shard.checkpoint();
        // What the call wanted is done. One that found no space for a checkpoint leaves it to others.
        let not_before = match &taken {
            Err(error) if error.is_disk_full() => retained.saturating_add(share),
            _ => 0,
        };
        self.not_before_bytes.store(not_before, Ordering::Release);
        self.is_checkpointing.store(false, Ordering::Release);
        match taken {
            Err(error) if !error.is_disk_full() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Refuses while less than the reserve is free: that is for what makes room.
    pub(super) fn check_space(&self) -> Result<(), AppendError> {
        let Space { free_bytes, level, .. } = self.log.space();
        let needed_bytes = self.reserve_bytes;
        match level {
            SpaceLevel::Ample => Ok(()),
            _ => Err(AppendError::DiskFull { needed_bytes, free_bytes }),
        }
    }
}

impl Queue {
    /// Takes as much as one entry holds; at least one command, since none is larger than an entry.
    fn next_batch(&mut self, now_ms: u64) -> Batch {
        let mut builder = EntryBuilder::new(now_ms);
        let mut calls = Vec::new();
        while let Some((call, command)) = self.waiting.front() {
            match builder.push(command) {
                Ok(()) => calls.push(*call),
                Err(PushError::Full) => break,
                Err(PushError::Refused(_)) => debug_assert!(false, "checked by every caller"),
            }
            self.waiting.pop_front();
        }
        let before = self.last;
        let at = LogId::new(TERM, before.map_or(1, |last| last.index.saturating_add(1)));
        self.last = Some(at);
        Batch { before, at, payload: EntryPayload::Commands(builder.finish()), calls }
    }

    fn take_answer(
        &mut self,
        call: u64,
        expected: usize,
    ) -> Option<Result<Vec<Reply>, StoreError>> {
        let is_whole = |a: &Answer| a.refused.is_some() || a.replies.len() == expected;
        self.answers.get(&call).filter(|answer| is_whole(answer))?;
        let Answer { replies, refused } = self.answers.remove(&call)?;
        Some(refused.map_or(Ok(replies), |error| Err(error.into())))
    }

    /// Hands out what came of an entry; an error when nobody can know.
    fn settle(
        &mut self,
        batch: &Batch,
        outcome: Result<Vec<Reply>, StoreError>,
    ) -> Result<(), StoreError> {
        match outcome {
            Ok(replies) => {
                for (call, reply) in batch.calls.iter().zip(replies) {
                    self.answers.entry(*call).or_default().replies.push(reply);
                }
                Ok(())
            }
            Err(StoreError::Append(error)) if changed_nothing(&error) => {
                // The entry's place is free again.
                self.last = batch.before;
                for call in &batch.calls {
                    self.answers.entry(*call).or_default().refused = Some(error.clone());
                }
                let answers = &self.answers;
                let is_open = |call: &u64| answers.get(call).is_none_or(|a| a.refused.is_none());
                self.waiting.retain(|(call, _)| is_open(call));
                Ok(())
            }
            Err(error) => {
                self.is_closed = true;
                Err(error)
            }
        }
    }
}

/// Whether the log is as it was before a failed append.
fn changed_nothing(error: &AppendError) -> bool {
    match error {
        AppendError::DiskFull { .. }
        | AppendError::QueueFull { .. }
        | AppendError::TooLarge { .. }
        | AppendError::TooManyGroups { .. }
        | AppendError::OutOfOrder { .. } => true,
        AppendError::Poisoned(_) | AppendError::Closed | AppendError::Stalled => false,
    }
}
