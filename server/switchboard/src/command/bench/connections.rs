//! `bench connections`: idle connections, and what they cost the gateway.
//!
//! ```text
//!   this process ──stdin, stdout──▶ worker, worker, …  ══ connections ══▶ gateway
//!        └── memory of the gateway's process before and after
//! ```
//! A process may have only so many files, so the connections are held by workers: this program
//! again, with `--worker`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::Args;
use comfy_table::Table;
use serde::{Deserialize, Serialize};
use switchboard_device::{GatewayAddress, Trust};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{seconds, write_json};
use crate::cli::Global;
use crate::idle::{self, Share};
use crate::limits::IDLE_PER_WORKER_MAX;
use crate::output::{Failure, table};

/// Hold idle connections, and report what each costs the gateway's memory
///
/// Every connection is a device of its own that says Hello, waits for its Welcome, and then only
/// what keeps it alive. On one machine the gateway's memory is read from /proc, before and after.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard bench connections --count 15000 --pid $(pgrep -f 'switchboard gateway')
  switchboard bench connections --count 15000 --gateway tls://127.0.0.1:7411 --ca certs/ca.pem --pid 4711
  switchboard bench connections --count 1000 --hold 60 --output json")]
pub(crate) struct Connections {
    /// How many connections
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    count: usize,
    /// The gateway, as host:port, or tls://, quic://, ws:// or wss://host:port
    #[arg(long, value_name = "A", default_value = "127.0.0.1:7410", env = "SWITCHBOARD_GATEWAY")]
    gateway: GatewayAddress,
    /// Believe gateways whose certificate was signed by an authority in this PEM file
    #[arg(long, value_name = "FILE", env = "SWITCHBOARD_CA")]
    ca: Option<PathBuf>,
    /// What devices present to the gateway
    #[arg(long, default_value = "", env = "SWITCHBOARD_TOKEN", hide_env_values = true)]
    token: String,
    /// Process of the gateway on this machine, whose memory is measured
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Processes that hold the connections; 0: as many as the limit of open files asks for
    #[arg(long, value_name = "N", default_value_t = 0)]
    processes: usize,
    /// Connections that are being opened at any time, in each process
    #[arg(long, value_name = "N", default_value_t = 64)]
    opening: usize,
    /// How long they are held before memory is read, in seconds
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = seconds)]
    hold: f64,
    /// Users are named with this, so that several runs do not replace each other's devices
    #[arg(long, default_value = "idle")]
    prefix: String,
    /// Also write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Be a worker for connections from this one on
    #[arg(long, hide = true)]
    worker: Option<usize>,
}

/// What a worker says when its connections are open, and again at its end.
#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    open: usize,
    resumed: usize,
    failures: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    gateway: String,
    connections: usize,
    failed: usize,
    failures: Vec<String>,
    lost: usize,
    processes: usize,
    seconds: f64,
    logins_per_second: f64,
    held_seconds: f64,
    /// Of the gateway's process; absent without --pid.
    rss_before_bytes: Option<u64>,
    rss_after_bytes: Option<u64>,
    bytes_per_connection: Option<f64>,
}

/// A worker, and its voice.
struct Worker {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Closing it ends the worker.
    stdin: Option<ChildStdin>,
}

impl Connections {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        if let Some(first) = self.worker {
            return self.work(first).await;
        }
        let report = self.measure().await?;
        if let Some(path) = &self.json {
            write_json(&report, path)?;
        }
        global.output.print(&report, rows)?;
        if report.failed > 0 || report.lost > 0 {
            let (failed, lost) = (report.failed, report.lost);
            return Err(Failure::failed(format!("{failed} connections failed, {lost} were lost")));
        }
        Ok(())
    }

    async fn measure(&self) -> Result<Report, Failure> {
        let rss = || self.pid.map(resident).transpose();
        let rss_before_bytes = rss()?;
        let started = Instant::now();
        let mut workers = self.start()?;
        let (mut open, mut failures) = (0, Vec::new());
        for worker in &mut workers {
            let progress = worker.next().await?;
            open += progress.open;
            failures.extend(progress.failures);
        }
        let seconds = started.elapsed().as_secs_f64();
        tokio::time::sleep(Duration::from_secs_f64(self.hold)).await;
        let rss_after_bytes = rss()?;
        let mut kept = 0;
        for worker in &mut workers {
            worker.stdin = None;
            kept += worker.next().await?.open;
            // It has said its last: how it ends does not matter.
            let _ = worker.child.wait().await;
        }
        let failed = self.count - open;
        failures.truncate(crate::limits::FAULT_EXAMPLES_MAX);
        let grown = rss_before_bytes.zip(rss_after_bytes);
        Ok(Report {
            gateway: self.gateway.to_string(),
            connections: open,
            failed,
            failures,
            lost: open.saturating_sub(kept),
            processes: workers.len(),
            seconds,
            logins_per_second: open as f64 / seconds,
            held_seconds: self.hold,
            rss_before_bytes,
            rss_after_bytes,
            bytes_per_connection: grown
                .filter(|_| open > 0)
                .map(|(before, after)| (after as f64 - before as f64) / open as f64),
        })
    }

    fn start(&self) -> Result<Vec<Worker>, Failure> {
        let least = self.count.div_ceil(IDLE_PER_WORKER_MAX).max(1);
        let processes = if self.processes == 0 { least } else { self.processes };
        let share = self.count.div_ceil(processes);
        (0..self.count)
            .step_by(share.max(1))
            .map(|first| self.start_worker(first, share.min(self.count - first)))
            .collect()
    }

    fn start_worker(&self, first: usize, count: usize) -> Result<Worker, Failure> {
        let failed = |error| Failure::failed(format!("cannot start a worker: {error}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command
            .args(["bench", "connections", "--worker", &first.to_string()])
            .args(["--count", &count.to_string(), "--gateway", &self.gateway.to_string()])
            .args(["--opening", &self.opening.to_string(), "--prefix", &self.prefix])
            .env("SWITCHBOARD_TOKEN", &self.token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        if let Some(ca) = &self.ca {
            command.arg("--ca").arg(ca);
        }
        let mut child = command.spawn().map_err(failed)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stdout = stdout.ok_or_else(|| Failure::failed("a worker has no output"))?;
        Ok(Worker { child, lines: BufReader::new(stdout).lines(), stdin })
    }

    /// What a worker does: opens its share, says so, holds it until its input ends.
    async fn work(&self, first: usize) -> Result<(), Failure> {
        let trust = self.ca.as_deref().map(Trust::authority).transpose();
        let share = Share {
            gateway: self.gateway.clone(),
            trust: trust.map_err(|error| Failure::failed(error.to_string()))?,
            token: self.token.clone(),
            prefix: self.prefix.clone(),
            first,
            count: self.count,
            opening: self.opening.max(1),
            from: self.source(),
        };
        let mut held = idle::open(share).await;
        let say = |held: &idle::Held| {
            let failures = held.failures.clone();
            let progress = Progress { open: held.open(), resumed: held.resumed, failures };
            let line = serde_json::to_string(&progress)
                .map_err(|error| Failure::failed(error.to_string()))?;
            crate::output::print_line(&line)
        };
        say(&held)?;
        // Nothing is ever said to a worker; its input ends when it is to end.
        let ended = tokio::task::spawn_blocking(|| {
            std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())
        });
        let _ = ended.await;
        held.failures.clear();
        say(&held)
    }

    /// On loopback each worker has an address, and with it ports, of its own.
    fn source(&self) -> Option<IpAddr> {
        let local = self.gateway.to_string().contains("//127.");
        let [.., high, low] = std::process::id().to_be_bytes();
        // 127.0.0.0/8 has no broadcast addresses, but 127.x.0.0 and 127.x.255.255 look like some.
        local.then(|| Ipv4Addr::new(127, 1 + high % 250, low, 1).into())
    }
}

impl Worker {
    async fn next(&mut self) -> Result<Progress, Failure> {
        let line = self.lines.next_line().await.ok().flatten();
        line.and_then(|line| serde_json::from_str(&line).ok())
            .ok_or_else(|| Failure::failed("a worker has died; what it said stands above"))
    }
}

fn resident(pid: u32) -> Result<u64, Failure> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(Path::new(&path))
        .map_err(|error| Failure::failed(format!("cannot read {path}: {error}")))?;
    let kb = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next());
    let kb: u64 = kb
        .and_then(|kb| kb.parse().ok())
        .ok_or_else(|| Failure::failed(format!("{path} names no resident memory")))?;
    Ok(kb * 1_024)
}

fn rows(report: &Report) -> Table {
    let mut table = table(["connections to", "open", "failed", "logins/s", "memory", "each"]);
    let mib =
        |bytes: Option<u64>| bytes.map(|bytes| format!("{:.1} MiB", bytes as f64 / 1_048_576.0));
    table.add_row([
        report.gateway.clone(),
        report.connections.to_string(),
        (report.failed + report.lost).to_string(),
        format!("{:.0}", report.logins_per_second),
        mib(report.rss_after_bytes).unwrap_or_else(|| "not measured".to_owned()),
        report.bytes_per_connection.map(|each| format!("{each:.0} B")).unwrap_or_default(),
    ]);
    table
}
