//! How long a gateway is told to wait before it sends again what the store has not taken.
//!
//! The wait grows with the time that the store has had trouble for, not with how many answers say so.
//! A hand-over of leadership sends all that was under way back within milliseconds, in many answers: if
//! each doubled the wait, the last of them would keep its senders away for seconds.

use std::time::Duration;

use switchboard_sdk::Backoff;
use tokio::time::Instant;

use crate::limits::{RETRY_AFTER_BASE, RETRY_AFTER_MAX};

/// Who is told the longest wait comes back after twice of it: each gets one of his own, up to that.
pub(super) const SPREAD_MAX: u32 = 2;

/// What one gateway is told.
#[derive(Debug)]
pub(super) struct Patience {
    backoff: Backoff,
    /// What was told last, and when everybody who was told it has come back.
    told: Option<(Duration, Instant)>,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { backoff: Backoff::new(RETRY_AFTER_BASE, RETRY_AFTER_MAX), told: None }
    }

    /// The wait, longer than before if the trouble has outlasted the one before.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        if let Some((wait, until)) = self.told
            && now < until
        {
            return wait;
        }
        let wait = self.backoff.next();
        self.told = Some((wait, now + wait * SPREAD_MAX));
        wait
    }

    /// The store takes something again.
    pub(super) fn reset(&mut self) {
        self.backoff.reset();
        self.told = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_refusals_at_once_make_nobody_wait_for_long() {
        let mut patience = Patience::new();
        let now = Instant::now();
        for _ in 0..1_000 {
            assert!(patience.wait(now) <= RETRY_AFTER_BASE);
        }
    }

    #[test]
    fn a_trouble_that_lasts_makes_the_waits_longer_up_to_a_bound() {
        let mut patience = Patience::new();
        let (mut now, mut last) = (Instant::now(), Duration::ZERO);
        for _ in 0..20 {
            last = patience.wait(now);
            now += last * SPREAD_MAX;
        }
        assert!(last >= RETRY_AFTER_MAX / 2 && last <= RETRY_AFTER_MAX, "{last:?}");
        patience.reset();
        assert!(patience.wait(now) <= RETRY_AFTER_BASE);
    }
}
