//! When a lease has to be given up: arithmetic only.

use super::{Duration, Instant, VecDeque};

/// Renewals are sent so many times in a lease.
const RENEWALS_PER_LEASE: u32 = 5;

/// Keeps when each renewal was sent, because the lease counts from then: the store may have
/// granted it at any moment between sending and answer.
///
/// Invariant: `fence_at` never moves back.
pub(super) struct LeaseClock {
    lease: Duration,
    fence_at: Instant,
    /// When those renewals were sent that are not answered; answers come one for one.
    sent: VecDeque<Instant>,
}

impl LeaseClock {
    /// After an answered registration that was sent at `sent`.
    pub(super) fn new(sent: Instant, lease: Duration) -> Self {
        Self { lease, fence_at: sent + fence_after(lease), sent: VecDeque::new() }
    }

    /// Two thirds of the lease after the sending of the last renewal that was granted.
    pub(super) fn fence_at(&self) -> Instant {
        self.fence_at
    }

    /// How often to renew.
    pub(super) fn interval(&self) -> Duration {
        (self.lease / RENEWALS_PER_LEASE).max(Duration::from_millis(1))
    }

    /// When to turn to another node: an answer is overdue by then, or the fence is there.
    pub(super) fn give_up_at(&self) -> Instant {
        let overdue_at = self.sent.front().map(|sent| *sent + self.interval());
        overdue_at.map_or(self.fence_at, |at| at.min(self.fence_at))
    }

    pub(super) fn sent(&mut self, at: Instant) {
        self.sent.push_back(at);
    }

    /// The answer to the oldest renewal that had none.
    pub(super) fn answered(&mut self, lease_left: Duration) {
        if let Some(sent) = self.sent.pop_front() {
            self.fence_at = self.fence_at.max(sent + fence_after(lease_left.min(self.lease)));
        }
    }

    /// The stream broke: those renewals will not be answered.
    pub(super) fn forget_sent(&mut self) {
        self.sent.clear();
    }
}

fn fence_after(lease: Duration) -> Duration {
    lease * 2 / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(9);
    const FENCE: Duration = Duration::from_secs(6);

    #[tokio::test(start_paused = true)]
    async fn the_fence_counts_from_the_sending() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut clock = LeaseClock::new(start, LEASE);
        assert_eq!(clock.fence_at(), start + FENCE);
        clock.sent(start + second);
        clock.sent(start + 2 * second);
        // However late the answer to the first comes, it grants until 7 s.
        clock.answered(LEASE);
        assert_eq!(clock.fence_at(), start + second + FENCE);
        clock.answered(LEASE);
        assert_eq!(clock.fence_at(), start + 2 * second + FENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_grant_never_moves_the_fence_back_and_a_longer_one_counts_as_the_lease() {
        let start = Instant::now();
        let mut clock = LeaseClock::new(start, LEASE);
        clock.sent(start);
        clock.answered(Duration::from_secs(1));
        assert_eq!(clock.fence_at(), start + FENCE);
        clock.sent(start);
        clock.answered(LEASE * 10);
        assert_eq!(clock.fence_at(), start + FENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_owes_an_answer_is_given_up_after_an_interval_and_at_the_fence() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut clock = LeaseClock::new(start, LEASE);
        assert_eq!(clock.give_up_at(), start + FENCE, "nothing is owed");
        clock.sent(start + second);
        clock.sent(start + 2 * second);
        assert_eq!(clock.give_up_at(), start + second + clock.interval());
        clock.answered(LEASE);
        assert_eq!(clock.give_up_at(), start + 2 * second + clock.interval());
        clock.forget_sent();
        clock.sent(start + 6 * second);
        assert_eq!(clock.give_up_at(), clock.fence_at());
    }

    #[tokio::test(start_paused = true)]
    async fn answers_of_a_broken_stream_grant_nothing() {
        let start = Instant::now();
        let mut clock = LeaseClock::new(start, LEASE);
        clock.sent(start + Duration::from_secs(1));
        clock.forget_sent();
        clock.answered(LEASE);
        assert_eq!(clock.fence_at(), start + FENCE);
    }
}
