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
        self.next_with(at_least, rand::rng().random_range(0.5..=1.0))
    }

    /// `jitter`, from 0.5 to 1, is the share of the whole pause.
    fn next_with(&mut self, at_least: Duration, jitter: f64) -> Duration {
        let doubled = self.min.saturating_mul(1 << self.attempts.min(16)).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        doubled.mul_f64(jitter).max(at_least)
    }

    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn a_crowd_that_lost_its_gateway_spreads_out() {
        const CROWD: usize = 20_000;
        let mut random = StdRng::seed_from_u64(24);
        // When each makes its n-th attempt, if all fail at once: arrivals in each 50 ms.
        let mut crowd: Vec<(Backoff, Duration)> = (0..CROWD)
            .map(|_| {
                let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
                (backoff, Duration::ZERO)
            })
            .collect();
        let mut busiest = Vec::new();
        for _ in 0..8 {
            let mut arrivals = std::collections::BTreeMap::<u128, usize>::new();
            for (backoff, at) in &mut crowd {
                *at += backoff.next_with(Duration::ZERO, random.random_range(0.5..=1.0));
                *arrivals.entry(at.as_millis() / 50).or_default() += 1;
            }
            busiest.push(arrivals.values().max().copied().unwrap_or(0));
        }
        // Each attempt is spread over twice as long as the one before.
        assert!(busiest[7] < CROWD / 40, "{busiest:?}");
        assert!(busiest[1..].windows(2).all(|pair| pair[1] < pair[0]), "{busiest:?}");
    }

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
