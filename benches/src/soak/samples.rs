//! What is sampled, and what is made of it.

use std::fmt;

use serde::Serialize;

/// One second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Which, from 1.
    pub second: u64,
    /// Resident memory of the process at its end.
    pub memory_bytes: u64,
    /// Bytes of all files at its end.
    pub disk_bytes: u64,
    /// Of the durable calls that ended in it or in the nine seconds before, µs.
    pub p99_us: u64,
    /// How many ended in it.
    pub calls: u64,
}

/// Minutes 3 to 6.
const EARLY: (u64, u64) = (180, 360);
/// The last three minutes.
const LATE_SECONDS: u64 = 180;
/// Shorter, and the two would overlap.
pub(super) const SECONDS_MIN: u64 = EARLY.1 + LATE_SECONDS;
const GROWTH_MAX: f64 = 1.1;

/// The maxima of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Over minutes 3 to 6.
    pub early: f64,
    /// Over the last three minutes.
    pub late: f64,
}

impl Comparison {
    /// What the late maximum may be.
    pub fn bar(&self) -> f64 {
        self.early * GROWTH_MAX
    }

    fn is_passed(&self) -> bool {
        self.late <= self.bar()
    }
}

/// Whether something grew.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Of resident memory.
    pub memory_bytes: Comparison,
    /// Of files.
    pub disk_bytes: Comparison,
    /// Of the 99th percentile of ten seconds.
    pub p99_us: Comparison,
}

/// The two spans that are compared, in seconds.
pub(super) fn windows(seconds: u64) -> ((u64, u64), (u64, u64)) {
    (EARLY, (seconds.saturating_sub(LATE_SECONDS), seconds))
}

impl Verdict {
    /// `None` when there are too few samples to compare.
    pub(super) fn of(samples: &[Sample]) -> Option<Self> {
        let seconds = samples.last()?.second;
        if seconds < SECONDS_MIN {
            return None;
        }
        let (early, late) = windows(seconds);
        let highest = |(from, to): (u64, u64), value: fn(&Sample) -> u64| {
            let within = samples.iter().filter(|s| s.second > from && s.second <= to);
            within.map(value).max().unwrap_or(0) as f64
        };
        let compare =
            |value| Comparison { early: highest(early, value), late: highest(late, value) };
        Some(Self {
            memory_bytes: compare(|s| s.memory_bytes),
            disk_bytes: compare(|s| s.disk_bytes),
            p99_us: compare(|s| s.p99_us),
        })
    }

    /// Whether nothing did.
    pub fn is_passed(&self) -> bool {
        [self.memory_bytes, self.disk_bytes, self.p99_us].iter().all(Comparison::is_passed)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory_bytes, disk_bytes, p99_us } = self;
        let rows =
            [("memory, bytes", memory_bytes), ("files, bytes", disk_bytes), ("p99, µs", p99_us)];
        writeln!(f, "{:14} {:>14} {:>14} {:>7}", "maximum of", "minutes 3-6", "last 3", "ratio")?;
        for (name, comparison) in rows {
            let Comparison { early, late } = comparison;
            let verdict = if comparison.is_passed() { "ok" } else { "GROWS" };
            let ratio = late / early;
            writeln!(f, "{name:14} {early:>14.0} {late:>14.0} {ratio:>7.3} {verdict}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(seconds: u64, memory: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |second| Sample {
            second,
            memory_bytes: memory(second),
            disk_bytes: 1,
            p99_us: 1,
            calls: 1,
        };
        (1..=seconds).map(sample).collect()
    }

    #[test]
    fn what_grows_by_more_than_a_tenth_is_found_and_warming_up_is_not_growth() {
        let steady = samples(600, |second| second.min(180));
        assert!(Verdict::of(&steady).is_some_and(|verdict| verdict.is_passed()));
        let growing = samples(600, |second| 1_000 + second);
        let verdict = Verdict::of(&growing).expect("a verdict");
        assert_eq!(verdict.memory_bytes, Comparison { early: 1_360.0, late: 1_600.0 });
        assert!(!verdict.is_passed());
    }

    #[test]
    fn a_short_soak_has_no_verdict() {
        assert_eq!(Verdict::of(&samples(SECONDS_MIN - 1, |_| 1)), None);
    }
}
