//! The clock on a node's wall, and the time that passes for everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use switchboard_engine::Clock;

/// Unix time at which every simulation begins.
pub const START_MS: u64 = 1_700_000_000_000;

/// Simulated milliseconds since the beginning, shared by everything in a world.
#[derive(Clone, Debug, Default)]
pub struct Time(Arc<AtomicU64>);

impl Time {
    pub fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn advance(&self, by_ms: u64) {
        self.0.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// What a right clock shows.
    pub fn true_unix_ms(&self) -> u64 {
        START_MS + self.now_ms()
    }
}

/// A node's clock: right but for its error. It survives restarts of the process.
#[derive(Clone, Debug)]
pub struct NodeClock {
    time: Time,
    error_ms: Arc<AtomicI64>,
}

impl NodeClock {
    pub fn new(time: Time) -> Self {
        Self { time, error_ms: Arc::default() }
    }

    pub fn set_error_ms(&self, error_ms: i64) {
        self.error_ms.store(error_ms, Ordering::Relaxed);
    }

    pub fn error_ms(&self) -> i64 {
        self.error_ms.load(Ordering::Relaxed)
    }
}

impl Clock for NodeClock {
    fn unix_ms(&self) -> u64 {
        self.time.true_unix_ms().saturating_add_signed(self.error_ms())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.time.now_ms())
    }
}
