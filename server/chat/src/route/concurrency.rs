//! How many items may be at the store at once: a limit that follows the latency measured.
//!
//! ```text
//!                      in flight < limit ───▶ to the store ─▶ answered: latency, refused or not
//!                     │                     ▲                          │
//!   sends of a call ─┼─ waiting < 4 limit ─┘ in order                 │
//!                     │                                                │
//!                      else ─▶ OVERLOADED, at once        limit ◀─────┘  one decision a window
//! ```
//! Additive increase, multiplicative decrease (Chiu and Jain 1989) on a latency target: while calls
//! are answered within the target the limit grows, but only if it was used; when they take longer,
//! or the store refuses, it shrinks in proportion. So when the store falls behind, what is at it
//! stays near the target times what it can do, whatever is offered. A few times as much waits here,
//! because a burst that is sent back costs more than one that waits a moment; as the store slows
//! down this shrinks as well, so the wait stays bounded in time. The rest is told to come back.
//! Receipts and copies finish what was let in before: they go first and are never told so.
//!
//! Invariants: `ITEMS_MIN ≤ limit ≤ ITEMS_MAX`; a call goes in whole or not at all, and always when
//! nothing is in flight, so whatever waits is let in by an answer to come; a decision counts only
//! calls that began after the one before it, so that no call is held against the limit twice.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{STORE_ITEMS_INITIAL, STORE_ITEMS_MAX, STORE_ITEMS_MIN, STORE_WINDOW};

/// Growth a window while latency is between half the target and the target, items.
const STEP: f64 = 32.0;
/// While latency is below half the target, the limit grows by this share of itself.
const GROWTH: f64 = 1.0 / 8.0;
/// The harshest and the gentlest decrease of one window.
const DECREASE: (f64, f64) = (0.5, 0.9);
/// How many times the limit may wait.
const WAITING_LIMITS: usize = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct Concurrency {
    target: Duration,
    limit: f64,
    in_flight: usize,
    waiting: usize,
    window: Window,
}

/// What a call is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Go to the store.
    Go,
    /// Wait for [`Concurrency::next`], behind those that wait already.
    Wait,
    /// Too much waits.
    Refused,
}

/// What was seen since the last decision.
#[derive(Debug)]
struct Window {
    began: Instant,
    items: u64,
    /// Of all items together.
    latency: Duration,
    in_flight_max: usize,
    refused: bool,
}

impl Window {
    fn new(began: Instant) -> Self {
        Self { began, items: 0, latency: Duration::ZERO, in_flight_max: 0, refused: false }
    }
}

impl Concurrency {
    pub(crate) fn new(target: Duration, now: Instant) -> Self {
        let limit = STORE_ITEMS_INITIAL as f64;
        Self { target, limit, in_flight: 0, waiting: 0, window: Window::new(now) }
    }

    /// A call of so many items came.
    pub(crate) fn enter(&mut self, items: usize) -> Entry {
        let limit = self.limit();
        if self.in_flight < limit && self.waiting == 0 {
            self.begin(items);
            return Entry::Go;
        }
        self.window.in_flight_max = self.window.in_flight_max.max(self.in_flight);
        if self.waiting >= WAITING_LIMITS * limit {
            return Entry::Refused;
        }
        self.waiting += items;
        Entry::Wait
    }

    /// Whether the call that waits the longest, of so many items, may go to the store now.
    pub(crate) fn next(&mut self, items: usize) -> bool {
        let goes = self.pass(items);
        if goes {
            self.waiting = self.waiting.saturating_sub(items);
        }
        goes
    }

    /// Whether a call that is not among those that wait may go to the store now, before them.
    pub(crate) fn pass(&mut self, items: usize) -> bool {
        let goes = self.in_flight < self.limit();
        if goes {
            self.begin(items);
        }
        goes
    }

    fn begin(&mut self, items: usize) {
        self.in_flight += items;
        self.window.in_flight_max = self.window.in_flight_max.max(self.in_flight);
    }

    /// A call that was let in at `began` was answered; `refused` when the store was too busy.
    pub(crate) fn end(&mut self, items: usize, began: Instant, refused: bool, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(items);
        if began < self.window.began || items == 0 {
            return;
        }
        let window = &mut self.window;
        let count = u32::try_from(items).unwrap_or(u32::MAX);
        window.items += u64::from(count);
        window.latency += now.saturating_duration_since(began).saturating_mul(count);
        window.refused |= refused;
        if now.saturating_duration_since(window.began) >= STORE_WINDOW {
            self.decide(now);
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit as usize
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn decide(&mut self, now: Instant) {
        let window = std::mem::replace(&mut self.window, Window::new(now));
        let mean = window.latency.as_secs_f64() / window.items.max(1) as f64;
        let target = self.target.as_secs_f64();
        if window.refused || mean > target {
            let (harshest, gentlest) = DECREASE;
            let share = if window.refused { harshest } else { target / mean };
            self.limit *= share.clamp(harshest, gentlest);
        } else if 2 * window.in_flight_max >= self.limit() {
            self.limit += if 2.0 * mean < target { self.limit * GROWTH } else { STEP };
        }
        self.limit = self.limit.clamp(STORE_ITEMS_MIN as f64, STORE_ITEMS_MAX as f64);
    }
}

#[cfg(test)]
#[path = "concurrency_tests.rs"]
mod tests;
