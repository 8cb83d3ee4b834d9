//! Time as a value that is handed in.
//!
//! `apply` never reads a clock: time reaches it as the stamp of an entry. Whoever makes stamps or
//! counts leases takes a [`Clock`], so that a test or a simulation can hold time in its hand. This is
//! the only file of the engine that asks the operating system for the time.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A source of time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Unix time in milliseconds. May jump, in either direction.
    fn unix_ms(&self) -> u64;

    /// Time since some fixed moment in the past. Never goes back.
    fn monotonic(&self) -> Duration;
}

/// The clocks of the operating system.
///
/// Monotonic time goes on while the machine sleeps (`CLOCK_BOOTTIME`), so that a machine that wakes up
/// does not look like one whose Unix time has leapt.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The clocks of the operating system.
    pub fn new() -> Self {
        Self
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the system's clocks")]
    fn unix_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A clock set before 1970 reads as 0; stamps never go back, so nothing breaks.
        since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
    }
}

/// A clock that stands still until it is moved.
///
/// ```
/// use std::time::Duration;
/// use switchboard_engine::{Clock, ManualClock};
/// let clock = ManualClock::at_unix_ms(1_000);
/// clock.advance(Duration::from_millis(5));
/// assert_eq!((clock.unix_ms(), clock.monotonic()), (1_005, Duration::from_millis(5)));
/// ```
#[derive(Debug, Default)]
pub struct ManualClock {
    unix_ms: AtomicU64,
    monotonic_ns: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `unix_ms`, with monotonic time 0.
    pub fn at_unix_ms(unix_ms: u64) -> Self {
        Self { unix_ms: AtomicU64::new(unix_ms), monotonic_ns: AtomicU64::new(0) }
    }

    /// Moves both clocks forward. Unix time moves by whole milliseconds.
    pub fn advance(&self, by: Duration) {
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.monotonic_ns.fetch_add(ns, Ordering::SeqCst);
        self.unix_ms.fetch_add(ns / 1_000_000, Ordering::SeqCst);
    }

    /// Sets Unix time alone, as an operator or NTP would: also backwards.
    pub fn set_unix_ms(&self, unix_ms: u64) {
        self.unix_ms.store(unix_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn unix_ms(&self) -> u64 {
        self.unix_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.monotonic_ns.load(Ordering::SeqCst))
    }
}
