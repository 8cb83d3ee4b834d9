//! Exponential backoff with full jitter above half, so that a crowd spreads out.

use std::time::Duration;

use rand::RngExt as _;

/// The pauses between attempts; each doubles the one before up to a maximum.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, attempts: 0 }
    }

    /// The next pause, never shorter than what the server asked for.
    pub(crate) fn next(&mut self, at_least: Duration) -> Duration {
        let doubled = self.min.saturating_mul(1 << self.attempts.min(16)).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        let jitter = rand::rng().random_range(0.5..=1.0);
        doubled.mul_f64(jitter).max(at_least)
    }

    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_stay_within_bounds_and_obey_the_server() {
        let (min, max) = (Duration::from_millis(10), Duration::from_secs(1));
        let mut backoff = Backoff::new(min, max);
        for attempt in 0..40 {
            let pause = backoff.next(Duration::ZERO);
            let full = min.saturating_mul(1 << attempt.min(16)).min(max);
            assert!(pause <= full && pause >= full / 2);
        }
        assert_eq!(backoff.next(Duration::from_secs(7)), Duration::from_secs(7));
        backoff.reset();
        assert!(backoff.next(Duration::ZERO) <= min);
    }
}
