//! When calls begin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// Longest step of the pacing thread while calls are rare, so that it sees its end.
const PACE_STEP_MAX: Duration = Duration::from_millis(50);

/// Leave to begin a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// Counts calls from 0 over all workers.
    pub(crate) call: u64,
    /// Since when its latency counts.
    pub(crate) due: Instant,
}

/// Hands out turns until the end of the run.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    next: Arc<AtomicU64>,
    end: Instant,
    pace: Option<Pace>,
}

/// Calls that are due at a fixed rate.
#[derive(Debug, Clone)]
struct Pace {
    begin: Instant,
    interval: Duration,
    /// One permit a call that is due and has no worker yet. A thread adds them, because a runtime's
    /// timers are a millisecond coarse.
    due: Arc<Semaphore>,
}

impl Turns {
    /// Closed loop: whoever asks may begin.
    pub(crate) fn closed(end: Instant) -> Turns {
        Turns { next: Arc::default(), end, pace: None }
    }

    /// Open loop: a call every `interval` from `begin` to `end`.
    pub(crate) fn open(begin: Instant, end: Instant, interval: Duration) -> Turns {
        let interval = interval.max(Duration::from_nanos(1));
        let due = Arc::new(Semaphore::new(0));
        let pace = Pace { begin, interval, due };
        let thread = pace.clone();
        std::thread::spawn(move || thread.run(end));
        Turns { next: Arc::default(), end, pace: Some(pace) }
    }

    /// Waits for a turn; `None` after the end of the run. Calls that were due and never began are
    /// [`Self::missed`].
    pub(crate) async fn next(&self) -> Option<Turn> {
        let Some(pace) = &self.pace else {
            let due = Instant::now();
            let call = self.next.fetch_add(1, Ordering::Relaxed);
            return (due < self.end).then_some(Turn { call, due });
        };
        pace.due.acquire().await.ok()?.forget();
        let call = self.next.fetch_add(1, Ordering::Relaxed);
        Some(Turn { call, due: pace.at(call) })
    }

    /// Calls that are due and have not begun.
    pub(crate) fn missed(&self) -> u64 {
        self.pace.as_ref().map_or(0, |pace| pace.due.available_permits() as u64)
    }

    /// No further turns, also for calls that are due.
    pub(crate) fn close(&self) {
        if let Some(pace) = &self.pace {
            pace.due.close();
        }
    }
}

impl Pace {
    fn at(&self, call: u64) -> Instant {
        let nanos = u128::from(call) * self.interval.as_nanos();
        self.begin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn run(&self, end: Instant) {
        let mut added = 0;
        loop {
            let now = Instant::now();
            let until = now.min(end).saturating_duration_since(self.begin);
            let due = u64::try_from(until.as_nanos() / self.interval.as_nanos()).unwrap_or(0) + 1;
            let more = if now >= self.begin { due.saturating_sub(added) } else { 0 };
            // A semaphore holds fewer permits than a number of calls could be.
            let room = Semaphore::MAX_PERMITS - self.due.available_permits();
            self.due.add_permits(usize::try_from(more).unwrap_or(usize::MAX).min(room));
            added += more;
            if now >= end || self.due.is_closed() {
                return;
            }
            let pause = self.at(added).saturating_duration_since(Instant::now());
            std::thread::sleep(pause.min(PACE_STEP_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn open_turns_are_due_at_their_rate_however_late_they_are_taken() {
        let begin = Instant::now();
        let interval = Duration::from_millis(1);
        let turns = Turns::open(begin, begin + Duration::from_millis(20), interval);
        tokio::time::sleep(Duration::from_millis(30)).await;
        for call in 0..20 {
            let turn = turns.next().await.unwrap();
            assert_eq!(turn.due, begin + interval * call);
        }
        turns.close();
        assert!(turns.next().await.is_none());
    }

    #[tokio::test]
    async fn closed_turns_end_with_the_run() {
        let turns = Turns::closed(Instant::now() + Duration::from_secs(60));
        assert_eq!(turns.next().await.map(|turn| turn.call), Some(0));
        assert_eq!(turns.next().await.map(|turn| turn.call), Some(1));
        let ended = Turns::closed(Instant::now());
        assert!(ended.next().await.is_none());
    }
}
