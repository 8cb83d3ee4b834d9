//! What came of calls: counts and latencies, gathered by many workers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use switchboard_api::v1::ItemStatus;

/// Longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;
/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

/// What came of one call.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Items done.
    pub(crate) done: u64,
    /// Items that were not, by the word for why.
    pub(crate) refused: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Counts an item by what the store said of it.
    pub(crate) fn count(&mut self, status: ItemStatus) {
        match status {
            ItemStatus::Ok => self.done += 1,
            other => self.refuse(other.as_str_name(), 1),
        }
    }

    /// Counts items that were not done.
    pub(crate) fn refuse(&mut self, why: &'static str, items: u64) {
        *self.refused.entry(why).or_default() += items;
    }
}

/// The part of a run that counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// After the warm-up.
    pub(crate) begin: Instant,
    /// The end of the run.
    pub(crate) end: Instant,
}

impl Window {
    fn holds(&self, instant: Instant) -> bool {
        (self.begin..self.end).contains(&instant)
    }
}

/// Counts and latencies of a part of the workers.
#[derive(Debug)]
pub(crate) struct Samples {
    window: Window,
    /// Guards the sums; held to add one call, or to read them all.
    sums: Mutex<Sums>,
}

/// Sums over calls.
#[derive(Debug, Clone)]
pub(crate) struct Sums {
    /// Items done, over the whole run.
    pub(crate) items_ever: u64,
    /// Items whose answers came within the window.
    pub(crate) items: u64,
    /// Calls that were due within the window and were answered.
    pub(crate) calls: u64,
    /// Items that were not done, over the whole run.
    pub(crate) refused: BTreeMap<&'static str, u64>,
    /// Microseconds from when a call was due until it was answered, of calls due in the window.
    pub(crate) latency_us: Histogram<u64>,
}

impl Sums {
    pub(crate) fn new() -> Sums {
        #[allow(clippy::expect_used, reason = "the bounds are constants, and a test makes one")]
        let latency_us =
            Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).expect("the bounds are in order");
        Sums { items_ever: 0, items: 0, calls: 0, refused: BTreeMap::new(), latency_us }
    }

    /// Adds the sums of others.
    pub(crate) fn add(&mut self, other: &Sums) {
        self.items_ever += other.items_ever;
        self.items += other.items;
        self.calls += other.calls;
        for (why, items) in &other.refused {
            *self.refused.entry(why).or_default() += items;
        }
        // Both have the same bounds.
        let _ = self.latency_us.add(&other.latency_us);
    }
}

impl Samples {
    /// None yet.
    pub(crate) fn new(window: Window) -> Samples {
        Samples { window, sums: Mutex::new(Sums::new()) }
    }

    /// Adds a call that was due at `due` and was answered just now.
    pub(crate) fn record(&self, due: Instant, tally: Tally) {
        let now = Instant::now();
        let mut sums = self.sums.lock();
        sums.items_ever += tally.done;
        if self.window.holds(now) {
            sums.items += tally.done;
        }
        for (why, items) in tally.refused {
            *sums.refused.entry(why).or_default() += items;
        }
        if self.window.holds(due) {
            sums.calls += 1;
            sums.latency_us.saturating_record(micros(now.saturating_duration_since(due)));
        }
    }

    /// A copy of the sums.
    pub(crate) fn sums(&self) -> Sums {
        self.sums.lock().clone()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_window_counts() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        let tally = |done| Tally { done, ..Tally::default() };
        let during = Samples::new(Window { begin: now - minute, end: now + minute });
        during.record(now, tally(64));
        // One from before the window, answered in it: its items count, its latency does not.
        during.record(now - 2 * minute, tally(1));
        let mut refused = tally(0);
        refused.refuse("OVERLOADED", 3);
        during.record(now, refused);
        let sums = during.sums();
        assert_eq!((sums.items, sums.calls, sums.latency_us.len()), (65, 2, 2));
        assert_eq!(sums.refused.get("OVERLOADED"), Some(&3));
        let later = Samples::new(Window { begin: now + minute, end: now + 2 * minute });
        later.record(now, tally(5));
        assert_eq!((later.sums().items, later.sums().items_ever, later.sums().calls), (0, 5, 0));
    }

    #[test]
    fn a_call_that_waited_for_its_turn_is_as_late_as_it_was() {
        let begin = Instant::now();
        let samples = Samples::new(Window { begin: begin - Duration::from_secs(9), end: begin });
        samples.record(begin - Duration::from_secs(5), Tally::default());
        let us = samples.sums().latency_us.max();
        assert!(us >= 5_000_000, "{us}");
    }
}
