//! The traffic of a soak: callers at a steady pace, each with users of its own.
//!
//! A round of a caller claims a session and releases the one claimed 10,000 rounds before, sends four
//! messages to a user, one of which soon expires, and lets the user that was sent to 2,000 rounds before
//! fetch and acknowledge. So the live set has a constant size, and about a third of the messages waits
//! through a checkpoint and is moved.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use parking_lot::Mutex;
use switchboard_engine::{Status, Store};

use crate::workload::{BODY_BYTES, device, message};

/// Threads that call.
pub(super) const CALLERS: u64 = 8;
/// Time from one round to the next.
const PACE: Duration = Duration::from_millis(5);
const USERS: u64 = 20_000;
const CONNECTED_ROUNDS: u64 = 10_000;
const QUEUED_ROUNDS: u64 = 2_000;
const MESSAGES: u64 = 4;
const SHORT_TTL_MS: u64 = 5_000;

/// One thread's part.
pub(super) struct Caller {
    number: u64,
    body: Bytes,
    /// Latencies of durable calls since the last second was taken. A lock between this caller and
    /// the watcher.
    latencies: Mutex<Vec<Duration>>,
}

impl Caller {
    pub(super) fn new(number: u64) -> Self {
        let body = Bytes::from(vec![b'x'; BODY_BYTES]);
        Self { number, body, latencies: Mutex::new(Vec::new()) }
    }

    /// The latencies since it was called last.
    pub(super) fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut self.latencies.lock())
    }

    /// Goes round until told to stop; an error if the store refuses or loses something.
    pub(super) fn run(&self, store: &Store, stop: &AtomicBool) -> Result<()> {
        let started = Instant::now();
        let mut due = Duration::ZERO;
        for round in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            self.round(store, round)?;
            due += PACE;
            let now = started.elapsed();
            // After a stall it goes on at its pace and does not make up for it.
            due = due.max(now.saturating_sub(PACE));
            std::thread::sleep(due.saturating_sub(now));
        }
        Ok(())
    }

    fn user(&self, round: u64) -> u64 {
        self.number * USERS + round % USERS
    }

    fn round(&self, store: &Store, round: u64) -> Result<()> {
        let user = device(self.user(round));
        self.timed(|| Ok(store.claim(&user, 1, round)?))?;
        if let Some(before) = round.checked_sub(CONNECTED_ROUNDS) {
            let user = device(self.user(before));
            let ended = self.timed(|| Ok(store.release(&user, 0)?))?;
            ensure!(ended, "a session was gone before its release");
        }
        self.send(store, round)?;
        if let Some(before) = round.checked_sub(QUEUED_ROUNDS) {
            self.receive(store, before)?;
        }
        Ok(())
    }

    fn send(&self, store: &Store, round: u64) -> Result<()> {
        let to = self.user(round);
        let first = (self.number << 40) + round * MESSAGES;
        let mut batch: Vec<_> =
            (first..first + MESSAGES).map(|n| message(n, to, &self.body)).collect();
        batch[0].ttl_ms = SHORT_TTL_MS;
        let answers = self.timed(|| Ok(store.enqueue(&batch)?))?;
        ensure!(answers.iter().all(|answer| answer.status == Status::Ok), "a message was refused");
        Ok(())
    }

    fn receive(&self, store: &Store, sent: u64) -> Result<()> {
        let user = device(self.user(sent));
        let page = store.fetch(&user, 0, MESSAGES as usize)?;
        ensure!(page.messages.len() as u64 >= MESSAGES - 1, "messages are missing");
        ensure!(page.messages.iter().all(|message| message.body == self.body), "a body is wrong");
        self.timed(|| Ok(store.ack(&user, page.tail)?))?;
        Ok(())
    }

    fn timed<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let answer = call()?;
        self.latencies.lock().push(started.elapsed());
        Ok(answer)
    }
}
