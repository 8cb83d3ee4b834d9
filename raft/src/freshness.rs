//! How long ago a follower had everything that was committed: what a LOCAL read of it says.
//!
//! Each append of the leader names what is committed. Once that much is applied here, the replica had
//! everything as of the moment in which that append was sent; what counts is when it came, before its entries
//! were written. The time that it took on its way is not known; the transport gives a connection up that is silent for a few seconds.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What a follower heard of its leader.
#[derive(Default)]
pub(crate) struct Freshness {
    /// Guards what belongs together; held for a few comparisons.
    heard: Mutex<Heard>,
}

#[derive(Clone, Copy, Default)]
struct Heard {
    /// The oldest news that is not applied yet: when it came, and what was committed then.
    pending: Option<(Instant, u64)>,
    /// When the last news came that is applied.
    fresh_at: Option<Instant>,
}

impl Heard {
    /// News that is applied counts from when it came.
    fn settle(&mut self, applied: u64) {
        if let Some((at, committed)) = self.pending
            && applied >= committed
        {
            self.fresh_at = Some(at);
            self.pending = None;
        }
    }
}

impl Freshness {
    /// The leader has said that so much is committed; that came at `at`.
    pub(crate) fn hear(&self, committed: u64, applied: u64, at: Instant) {
        let mut heard = self.heard.lock();
        heard.settle(applied);
        if applied >= committed {
            heard.fresh_at = heard.fresh_at.max(Some(at));
        } else {
            // News that waits is not replaced by later news, which would wait for ever under load.
            heard.pending.get_or_insert((at, committed));
        }
    }

    /// How old what is applied may be; none if no leader was heard since the start.
    pub(crate) fn age(&self, applied: u64) -> Option<Duration> {
        let mut heard = self.heard.lock();
        heard.settle(applied);
        heard.fresh_at.map(|at| at.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn news_counts_from_when_it_came_and_once_it_is_applied() {
        let freshness = Freshness::default();
        assert_eq!(freshness.age(0), None);
        freshness.hear(5, 5, Instant::now());
        tokio::time::advance(SECOND).await;
        assert_eq!(freshness.age(5), Some(SECOND));
        freshness.hear(9, 5, Instant::now());
        tokio::time::advance(SECOND).await;
        assert_eq!(freshness.age(8), Some(2 * SECOND));
        assert_eq!(freshness.age(9), Some(SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_follows_a_busy_leader_stays_fresh() {
        let freshness = Freshness::default();
        for committed in 1..100 {
            // Always one behind what it hears.
            freshness.hear(committed, committed - 1, Instant::now());
            tokio::time::advance(SECOND).await;
        }
        assert_eq!(freshness.age(98), Some(2 * SECOND));
    }
}
