//! Runs workers against a target, and gathers what came of it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::live::{self, Live};
use super::samples::{Samples, Sums, Tally, Window};
use super::servers::{self, Usage, Used};
use super::turns::{Turn, Turns};

/// How long calls may go on after the end of the run.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Pause of a worker whose call did nothing at all, so that a refusal is no busy loop.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);

/// Places where workers gather samples: several, so that they do not wait for each other.
const SAMPLES_MAX: usize = 8;

/// A kind of call, over one connection.
pub(crate) trait Work: Send + Sync + 'static {
    /// Makes the `call`-th call of the run.
    fn call(&self, call: u64) -> impl Future<Output = Tally> + Send;
}

/// How a run goes.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Before anything counts.
    pub(crate) warmup: Duration,
    /// What counts.
    pub(crate) measured: Duration,
    /// Calls under way on a connection.
    pub(crate) in_flight: usize,
    /// Open loop: calls a second over all connections. `None`: closed loop.
    pub(crate) calls_per_s: Option<f64>,
    /// The server processes to look at.
    pub(crate) pids: Vec<u32>,
    /// No live line.
    pub(crate) quiet: bool,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) sums: Sums,
    /// Calls that were due and never began.
    pub(crate) missed: u64,
    /// Calls that were not answered some time after the end.
    pub(crate) unanswered: usize,
    /// Servers over the window.
    pub(crate) servers: Vec<Used>,
    /// CPU seconds of this process over the window.
    pub(crate) own_cpu_seconds: f64,
}

/// Runs as many workers on each connection as calls may be under way.
pub(crate) async fn drive<W: Work>(connections: Vec<Arc<W>>, plan: &Plan) -> Outcome {
    let begin = Instant::now();
    let window = Window { begin: begin + plan.warmup, end: begin + plan.warmup + plan.measured };
    let turns = match plan.calls_per_s {
        Some(rate) => Turns::open(begin, window.end, Duration::from_secs_f64(1.0 / rate)),
        None => Turns::closed(window.end),
    };
    // Connections may be many, and a histogram is large.
    let samples: Vec<Arc<Samples>> = (0..connections.len().clamp(1, SAMPLES_MAX))
        .map(|_| Arc::new(Samples::new(window)))
        .collect();
    let mut workers = JoinSet::new();
    for (connection, samples) in connections.into_iter().zip(samples.iter().cycle()) {
        for _ in 0..plan.in_flight {
            workers.spawn(work(connection.clone(), turns.clone(), samples.clone()));
        }
    }
    let watching = tokio::spawn(watch(samples.clone(), turns.clone(), window, plan.clone()));
    let drained = tokio::time::timeout_at((window.end + DRAIN_MAX).into(), async {
        while workers.join_next().await.is_some() {}
    });
    // In an open loop workers wait for turns until they are told that there are no more.
    let end = async {
        tokio::time::sleep_until(window.end.into()).await;
        let patience = Instant::now() + DRAIN_MAX;
        while turns.missed() > 0 && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let missed = turns.missed();
        turns.close();
        missed
    };
    let (missed, _) = tokio::join!(end, drained);
    let unanswered = workers.len();
    workers.abort_all();
    let (servers, own_cpu_seconds) = watching.await.unwrap_or_default();
    Outcome { sums: total(&samples), missed, unanswered, servers, own_cpu_seconds }
}

async fn work<W: Work>(work: Arc<W>, turns: Turns, samples: Arc<Samples>) {
    while let Some(Turn { call, due }) = turns.next().await {
        let tally = work.call(call).await;
        let did_nothing = tally.done == 0;
        samples.record(due, tally);
        if did_nothing {
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
    }
}

/// Shows the live line, and looks at the processes at both ends of the window.
async fn watch(
    samples: Vec<Arc<Samples>>,
    turns: Turns,
    window: Window,
    plan: Plan,
) -> (Vec<Used>, f64) {
    let mut live = Live::new(plan.warmup + plan.measured, plan.quiet);
    let look = || -> (Vec<Usage>, Duration) {
        let own = servers::usage(std::process::id());
        (servers::usages(&plan.pids), own.map_or(Duration::ZERO, |own| own.cpu))
    };
    tokio::time::sleep_until(window.begin.into()).await;
    let (before, own_before) = look();
    while Instant::now() < window.end {
        let next = (Instant::now() + live::INTERVAL).min(window.end);
        tokio::time::sleep_until(next.into()).await;
        if live.is_shown() {
            live.show(&total(&samples), turns.missed());
        }
    }
    let (after, own_after) = look();
    live.finish();
    (servers::used(&before, &after), own_after.saturating_sub(own_before).as_secs_f64())
}

fn total(samples: &[Arc<Samples>]) -> Sums {
    let mut total = Sums::new();
    for samples in samples {
        total.add(&samples.sums());
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers at once, but the fifth call of all takes long.
    struct Stumbles;

    impl Work for Stumbles {
        async fn call(&self, call: u64) -> Tally {
            if call == 4 {
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            Tally { done: 1, ..Tally::default() }
        }
    }

    fn plan(calls_per_s: Option<f64>) -> Plan {
        Plan {
            warmup: Duration::ZERO,
            measured: Duration::from_millis(300),
            in_flight: 1,
            calls_per_s,
            pids: vec![std::process::id()],
            quiet: true,
        }
    }

    #[tokio::test]
    async fn one_slow_answer_delays_all_that_were_due_meanwhile() {
        let outcome = drive(vec![Arc::new(Stumbles)], &plan(Some(1000.0))).await;
        assert_eq!((outcome.missed, outcome.unanswered), (0, 0));
        let late = outcome.sums.latency_us.count_between(50_000, 10_000_000);
        assert!(late >= 90, "only {late} of about 100 calls were seen to be late");
        assert_eq!(outcome.servers.len(), 1);
    }

    #[tokio::test]
    async fn a_closed_loop_waits_for_each_answer() {
        let outcome = drive(vec![Arc::new(Stumbles)], &plan(None)).await;
        assert_eq!(outcome.unanswered, 0);
        assert_eq!(outcome.sums.latency_us.count_between(100_000, 10_000_000), 1);
    }
}
