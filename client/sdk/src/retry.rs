//! When to try again: jittered exponential backoff, and a budget that keeps retries from making an
//! overload worse.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::limits::{RETRY_SUCCESSES_PER_TOKEN, RETRY_TOKENS_MAX};

/// Exponential backoff with jitter: the n-th wait is drawn from the upper half of
/// `base · 2ⁿ`, at most `max`.
///
/// ```
/// use std::time::Duration;
/// use switchboard_sdk::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
/// let wait = backoff.next();
/// assert!(wait >= Duration::from_millis(10) && wait <= Duration::from_millis(20));
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    attempt: u32,
}

impl Backoff {
    /// `base` is the first wait before jitter, `max` the longest.
    #[must_use]
    pub const fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, attempt: 0 }
    }

    /// The next wait.
    #[allow(clippy::should_implement_trait, reason = "an endless series, not an iterator")]
    pub fn next(&mut self) -> Duration {
        self.next_with(rand::random_range(0.5..=1.0))
    }

    /// After a success: the next wait is the first again.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// `share`, from 0.5 to 1, is the jitter.
    fn next_with(&mut self, share: f64) -> Duration {
        let whole = self.base.saturating_mul(1 << self.attempt.min(20)).min(self.max);
        self.attempt = self.attempt.saturating_add(1);
        whole.mul_f64(share)
    }
}

/// A retry costs a token, ten successes earn one. With an empty budget failures are reported at
/// once, so that a store in trouble sees each call about once.
#[derive(Debug)]
pub(crate) struct Budget {
    /// In parts of a token, `RETRY_SUCCESSES_PER_TOKEN` to one.
    parts: AtomicU32,
}

const PARTS_MAX: u32 = RETRY_TOKENS_MAX * RETRY_SUCCESSES_PER_TOKEN;

impl Budget {
    pub(crate) fn new() -> Self {
        Self { parts: AtomicU32::new(PARTS_MAX) }
    }

    pub(crate) fn earn(&self) {
        let _ = self.parts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |parts| {
            (parts < PARTS_MAX).then_some(parts + 1)
        });
    }

    /// Whether a retry may be made.
    pub(crate) fn spend(&self) -> bool {
        self.parts
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |parts| {
                parts.checked_sub(RETRY_SUCCESSES_PER_TOKEN)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum_and_start_over_after_a_success() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(10), ms(50));
        let waits: Vec<_> = (0..5).map(|_| backoff.next_with(1.0)).collect();
        assert_eq!(waits, [ms(10), ms(20), ms(40), ms(50), ms(50)]);
        backoff.reset();
        assert_eq!(backoff.next_with(0.5), ms(5));
        backoff.attempt = u32::MAX;
        assert_eq!(backoff.next_with(1.0), ms(50));
    }

    #[test]
    fn jitter_stays_within_the_upper_half() {
        let mut backoff = Backoff::new(Duration::from_millis(8), Duration::from_millis(8));
        for _ in 0..1000 {
            let wait = backoff.next();
            assert!(wait >= Duration::from_millis(4) && wait <= Duration::from_millis(8));
        }
    }

    #[test]
    fn an_empty_budget_is_earned_back_by_successes() {
        let budget = Budget::new();
        let retries = std::iter::from_fn(|| budget.spend().then_some(())).count();
        assert_eq!(retries, RETRY_TOKENS_MAX as usize);
        for _ in 0..RETRY_SUCCESSES_PER_TOKEN {
            assert!(!budget.spend());
            budget.earn();
        }
        assert!(budget.spend());
        assert!(!budget.spend());
    }
}
