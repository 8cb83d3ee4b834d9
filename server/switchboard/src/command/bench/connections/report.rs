//! What idle connections cost, as a table and as JSON.

use comfy_table::Table;
use serde::Serialize;

use crate::load::kernel::Growth;
use crate::output::table;

/// The report. Its fields are those of the JSON.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) gateways: Vec<String>,
    pub(super) connections: usize,
    pub(super) failed: usize,
    pub(super) failures: Vec<String>,
    pub(super) lost: usize,
    /// That hold the connections.
    pub(super) processes: usize,
    pub(super) seconds: f64,
    pub(super) logins_per_second: f64,
    pub(super) held_seconds: f64,
    /// Of the gateways' processes; absent without --pid.
    pub(super) bytes_per_connection: Option<f64>,
    /// In the kernel, both ends of the connection where both are on this machine.
    pub(super) kernel_bytes_per_connection: Option<f64>,
    #[serde(flatten)]
    pub(super) memory: Memory,
    /// Absent without --talk.
    pub(super) talked: Option<Talked>,
    /// Users with a session; absent without --locate.
    pub(super) located: Option<usize>,
}

/// Memory before the connections were opened, and while they were held.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    pub(super) rss_before_bytes: Option<u64>,
    pub(super) rss_after_bytes: Option<u64>,
    /// By how much all of the kernel's caches have grown, and which most.
    pub(super) kernel_bytes: Option<i64>,
    pub(super) kernel_caches: Vec<Growth>,
    pub(super) available_before_bytes: Option<u64>,
    pub(super) available_after_bytes: Option<u64>,
}

/// Messages among some of the devices.
#[derive(Debug, Serialize)]
pub(super) struct Talked {
    pub(super) devices: usize,
    pub(super) accepted: usize,
    pub(super) arrived: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

impl Report {
    /// What did not go as it should, in words.
    pub(super) fn faults(&self) -> Option<String> {
        let unheard = self.talked.as_ref().map_or(0, |talked| talked.devices - talked.arrived);
        let unknown = self.located.map_or(0, |located| self.connections.saturating_sub(located));
        let faults: Vec<String> = [
            (self.failed, "connections failed"),
            (self.lost, "connections were lost"),
            (unheard, "messages did not arrive"),
            (unknown, "devices are not found by look-ups"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        (!faults.is_empty()).then(|| faults.join(", "))
    }
}

impl Memory {
    pub(super) fn of_each(&self, connections: usize) -> Option<f64> {
        let (before, after) = self.rss_before_bytes.zip(self.rss_after_bytes)?;
        (connections > 0).then(|| (after as f64 - before as f64) / connections as f64)
    }

    pub(super) fn of_kernel(&self, connections: usize) -> Option<f64> {
        self.kernel_bytes.filter(|_| connections > 0).map(|bytes| bytes as f64 / connections as f64)
    }
}

impl Talked {
    pub(super) fn of(devices: usize, accepted: usize, mut arrived_us: Vec<u64>) -> Talked {
        arrived_us.sort_unstable();
        let at = |share: f64| {
            let last = arrived_us.len().saturating_sub(1) as f64;
            arrived_us.get((last * share) as usize).map_or(0.0, |us| *us as f64 / 1e3)
        };
        let (p50_ms, p99_ms, max_ms) = (at(0.5), at(0.99), at(1.0));
        Talked { devices, accepted, arrived: arrived_us.len(), p50_ms, p99_ms, max_ms }
    }
}

pub(super) fn rows(report: &Report) -> Table {
    let mut table = table(["", "connections"]);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
    row(
        "gateways",
        match report.gateways.as_slice() {
            [one] => one.clone(),
            several => several.len().to_string(),
        },
    );
    row("open", report.connections.to_string());
    row("failed or lost", (report.failed + report.lost).to_string());
    row("logins a second", format!("{:.0}", report.logins_per_second));
    if let Some((each, all)) = report.bytes_per_connection.zip(report.memory.rss_after_bytes) {
        row("memory of gateways", format!("{each:.0} B each, {} in all", mib(all)));
    }
    if let Some(each) = report.kernel_bytes_per_connection {
        row("memory of the kernel", format!("{each:.0} B each"));
    }
    for growth in report.memory.kernel_caches.iter().take(5) {
        row(&format!("  {}", growth.cache), mib(growth.bytes));
    }
    if let Some(talked) = &report.talked {
        let Talked { devices, arrived, p50_ms, p99_ms, .. } = talked;
        row(
            "messages among some",
            format!("{arrived} of {devices}, p50 {p50_ms:.2} ms, p99 {p99_ms:.2}"),
        );
    }
    if let Some(located) = report.located {
        row("found by look-ups", located.to_string());
    }
    table
}
