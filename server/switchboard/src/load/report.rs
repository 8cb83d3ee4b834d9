//! What a load test found, as a table and as JSON.

use std::collections::BTreeMap;

use comfy_table::Table;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::drive::{Outcome, Plan};
use super::servers::Used;
use crate::output::table;

/// The options of a run that its report repeats.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settings {
    /// The subcommand.
    pub(crate) command: &'static str,
    /// What one item is: `message`, `claim`, `user`.
    pub(crate) item: &'static str,
    /// How calls travel: `stream` or `unary`.
    pub(crate) calls: &'static str,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) batch: usize,
    pub(crate) users: u64,
    /// Bytes of a body; `None` where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<usize>,
}

/// The report of a run. Its fields are those of the JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) settings: Settings,
    /// `closed` or `open`.
    pub(crate) r#loop: &'static str,
    pub(crate) warmup_seconds: f64,
    pub(crate) seconds: f64,
    /// Items done within these seconds.
    pub(crate) items: u64,
    pub(crate) items_per_s: f64,
    /// Open loop: what was asked for.
    pub(crate) offered_per_s: Option<f64>,
    /// Calls with a latency.
    pub(crate) calls_answered: u64,
    /// Open loop: calls that were due and never began.
    pub(crate) calls_missed: u64,
    /// Calls without an answer some time after the end.
    pub(crate) calls_unanswered: u64,
    /// Items that were not done, by status, warm-up included.
    pub(crate) refused: BTreeMap<&'static str, u64>,
    /// From when a call was due to its answer.
    pub(crate) latency_ms: Latency,
    /// Messages between devices: from when one was sent until it was known to be safe, warm-up
    /// included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sent_ms: Option<Latency>,
    /// The same since it was sent the last time, which was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) taken_ms: Option<Latency>,
    /// Messages between devices: how often one was sent again because servers had been too busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sent_again: Option<u64>,
    /// Messages between devices: those that were safe and had not arrived some time after the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) safe_and_lost: Option<usize>,
    /// Upper bounds of the latency in milliseconds with the number of calls up to it and above the
    /// bound before.
    pub(crate) histogram: Vec<(f64, u64)>,
    pub(crate) server_cpu_us_per_item: Option<f64>,
    pub(crate) client_cpu_us_per_item: Option<f64>,
    pub(crate) servers: Vec<Used>,
}

/// Latencies in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latency {
    pub(crate) fn of(us: &Histogram<u64>) -> Latency {
        let at = |share: f64| us.value_at_quantile(share) as f64 / 1e3;
        Latency {
            mean: us.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: us.max() as f64 / 1e3,
        }
    }

    fn words(&self) -> String {
        let Latency { mean, p50, p90, p99, p999, max } = self;
        format!(
            "mean {mean:.2}  p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2}"
        )
    }
}

impl Report {
    pub(crate) fn new(settings: Settings, plan: &Plan, outcome: Outcome) -> Report {
        let Outcome { sums, missed, unanswered, servers, own_cpu_seconds } = outcome;
        let seconds = plan.measured.as_secs_f64();
        let per_item =
            |cpu_seconds: f64| (sums.items > 0).then(|| cpu_seconds * 1e6 / sums.items as f64);
        let server_cpu_us_per_item = if servers.is_empty() {
            None
        } else {
            per_item(servers.iter().map(|server| server.cpu_seconds).sum())
        };
        Report {
            r#loop: if plan.calls_per_s.is_some() { "open" } else { "closed" },
            warmup_seconds: plan.warmup.as_secs_f64(),
            seconds,
            items: sums.items,
            items_per_s: sums.items as f64 / seconds,
            offered_per_s: plan.calls_per_s.map(|calls| calls * settings.batch as f64),
            calls_answered: sums.calls,
            calls_missed: missed,
            calls_unanswered: unanswered as u64,
            latency_ms: Latency::of(&sums.latency_us),
            sent_ms: None,
            taken_ms: None,
            sent_again: None,
            safe_and_lost: None,
            histogram: buckets(&sums.latency_us),
            server_cpu_us_per_item,
            client_cpu_us_per_item: per_item(own_cpu_seconds),
            servers,
            refused: sums.refused,
            settings,
        }
    }

    /// Whether anything was done at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// The report for people.
    pub(crate) fn table(&self) -> Table {
        let settings = &self.settings;
        let mut table = table(["", settings.command]);
        let mut row = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        let shape = format!(
            "{} loop, {} connections x {} calls of {} by {}",
            self.r#loop, settings.connections, settings.in_flight, settings.batch, settings.calls
        );
        row("load", shape);
        row(&format!("{}s a second", settings.item), format!("{:.0}", self.items_per_s));
        if let Some(offered) = self.offered_per_s {
            row("offered a second", format!("{offered:.0}"));
        }
        row("latency of a call, ms", self.latency_ms.words());
        if let Some(sent) = &self.sent_ms {
            row("until safe, ms", sent.words());
        }
        if let Some(taken) = self.taken_ms.as_ref().filter(|_| self.sent_again > Some(0)) {
            row("the same since it was sent last, ms", taken.words());
        }
        if let Some(again) = self.sent_again.filter(|again| *again > 0) {
            row("sent again after a refusal", again.to_string());
        }
        if let Some(lost) = self.safe_and_lost {
            row("safe, and did not arrive", lost.to_string());
        }
        for (name, us) in
            [("server", self.server_cpu_us_per_item), ("this process", self.client_cpu_us_per_item)]
        {
            if let Some(us) = us {
                row(&format!("CPU of {name}, us a {}", settings.item), format!("{us:.2}"));
            }
        }
        for server in &self.servers {
            let Used { pid, name, cpu_seconds, rss_bytes, .. } = server;
            let cores = cpu_seconds / self.seconds;
            let mib = rss_bytes >> 20;
            row(&format!("{name} ({pid})"), format!("{cores:.2} cores, {mib} MiB resident"));
        }
        for (why, items) in &self.refused {
            row(&format!("{}s answered {why}", settings.item), items.to_string());
        }
        if self.calls_missed > 0 {
            row("calls due that never began", self.calls_missed.to_string());
        }
        if self.calls_unanswered > 0 {
            row("calls without an answer", self.calls_unanswered.to_string());
        }
        table
    }
}

/// Buckets that grow by about a tenth.
fn buckets(us: &Histogram<u64>) -> Vec<(f64, u64)> {
    us.iter_log(100, 1.1)
        .map(|step| (step.value_iterated_to() as f64 / 1e3, step.count_since_last_iteration()))
        .filter(|(_, calls)| *calls > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::samples::Sums;
    use super::*;

    fn outcome() -> Outcome {
        let mut sums = Sums::new();
        sums.items = 20_000;
        sums.calls = 200;
        for us in 1..=200 {
            sums.latency_us.saturating_record(us * 100);
        }
        let server = Used {
            pid: 7,
            name: "switchboard".to_owned(),
            cpu_seconds: 0.1,
            rss_bytes_before: 1 << 20,
            rss_bytes: 2 << 20,
        };
        Outcome { sums, missed: 3, unanswered: 0, servers: vec![server], own_cpu_seconds: 0.2 }
    }

    #[test]
    fn a_report_says_what_an_item_cost() {
        let settings = Settings {
            command: "enqueue",
            item: "message",
            calls: "stream",
            connections: 1,
            in_flight: 2,
            batch: 100,
            users: 10,
            size: Some(256),
        };
        let plan = Plan {
            warmup: Duration::ZERO,
            measured: Duration::from_secs(2),
            in_flight: 2,
            calls_per_s: Some(200.0),
            pids: vec![7],
            quiet: true,
        };
        let report = Report::new(settings, &plan, outcome());
        assert_eq!(report.items_per_s, 10_000.0);
        assert_eq!(report.offered_per_s, Some(20_000.0));
        assert_eq!(report.server_cpu_us_per_item, Some(5.0));
        assert_eq!(report.client_cpu_us_per_item, Some(10.0));
        assert!((report.latency_ms.p50 - 10.0).abs() < 0.1, "{:?}", report.latency_ms);
        let counted: u64 = report.histogram.iter().map(|(_, calls)| calls).sum();
        assert_eq!(counted, 200);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["command"], "enqueue");
        assert_eq!(json["loop"], "open");
        assert!(report.table().to_string().contains("calls due that never began"));
    }
}
