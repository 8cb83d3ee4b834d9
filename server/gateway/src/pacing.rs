//! Exponential backoff with jitter for the state machines: no clock, no global randomness.

use std::time::Duration;

/// Doubling pauses between `min` and `max`, each shortened by up to half at random.
#[derive(Debug, Clone)]
pub(crate) struct Pacing {
    min: Duration,
    max: Duration,
    attempts: u32,
    random: u64,
}

impl Pacing {
    /// `seed` spreads connections that start together.
    pub(crate) fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self { min, max, attempts: 0, random: seed | 1 }
    }

    /// The next pause, at least `at_least`.
    pub(crate) fn next(&mut self, at_least: Duration) -> Duration {
        let full = self.min.saturating_mul(1 << self.attempts.min(20)).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        self.shortened(full).max(at_least)
    }

    /// That pause, shortened by up to half at random.
    pub(crate) fn shortened(&mut self, full: Duration) -> Duration {
        // Xorshift64 (Marsaglia 2003): enough to spread load.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let permille = u32::try_from(self.random % 501).unwrap_or(0);
        full - full * permille / 1_000
    }

    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_within_bounds() {
        let (min, max) = (Duration::from_millis(10), Duration::from_secs(1));
        let mut pacing = Pacing::new(min, max, 7);
        for attempt in 0..40_u32 {
            let full = min.saturating_mul(1 << attempt.min(20)).min(max);
            let pause = pacing.next(Duration::ZERO);
            assert!(pause <= full && pause >= full / 2, "{attempt}: {pause:?}");
        }
        assert_eq!(pacing.next(Duration::from_secs(9)), Duration::from_secs(9));
        pacing.reset();
        assert!(pacing.next(Duration::ZERO) <= min);
    }
}
