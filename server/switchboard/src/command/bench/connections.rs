//! `bench connections`: idle connections, and what they cost the gateway.
//!
//! ```text
//!   this process ──stdin, stdout──▶ worker, worker, …  ══ connections ══▶ gateways
//!        ├── memory of the gateways' processes and of the kernel, before and after
//!        └── at the end: some talk to each other, all are looked up
//! ```
//! A process may have only so many files, so the connections are held by workers: this program
//! again, with `--worker`.

mod report;
mod worker;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use switchboard_api::limits::ITEMS_PER_BATCH_MAX;
use switchboard_api::v1::Read;
use switchboard_device::{GatewayAddress, Trust};
use tokio::time::sleep;

use report::{Memory, Report, Talked, rows};
use worker::{Progress, Worker};

use super::{seconds, write_json};
use crate::cli::Global;
use crate::command::operator::{StoreArgs, failure};
use crate::idle::{self, Share};
use crate::input;
use crate::limits::{IDLE_OPENING_MAX, IDLE_PER_WORKER_MAX};
use crate::load::source::Sources;
use crate::load::{kernel, servers};
use crate::output::Failure;

/// How long messages may take to arrive.
const ARRIVE_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks whether they have.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Hold idle connections, and report what each costs in memory
///
/// Every connection is a device of its own that says Hello, waits for its Welcome, and then only
/// what keeps it alive. On one machine the gateways' memory is read from /proc, before and after, and
/// that of the kernel's caches where /proc/slabinfo may be read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard bench connections --count 15000 \\
      --pid $(pgrep -f 'switchboard gateway')
  switchboard bench connections --count 15000 \\
      --gateway tls://127.0.0.1:7411 --ca certs/ca.pem --pid 4711
  switchboard bench connections --count 36000 \\
      --gateway 127.0.0.1:7410,127.0.0.1:8410 --pid 4711,4712
  switchboard bench connections --count 15000 --talk 1000 --locate
  switchboard bench connections --count 1000 --hold 60 --output json")]
pub(crate) struct Connections {
    /// How many connections
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    count: usize,
    /// Gateways, as host:port, or tls://, quic://, ws:// or wss://host:port; devices are spread over
    /// them
    #[arg(
        long,
        value_name = "A[,A]",
        value_delimiter = ',',
        default_value = "127.0.0.1:7410",
        env = "SWITCHBOARD_GATEWAY"
    )]
    gateway: Vec<GatewayAddress>,
    /// Believe gateways whose certificate was signed by an authority in this PEM file
    #[arg(long, value_name = "FILE", env = "SWITCHBOARD_CA")]
    ca: Option<PathBuf>,
    /// What devices present to the gateway
    #[arg(long, default_value = "", env = "SWITCHBOARD_TOKEN", hide_env_values = true)]
    token: String,
    /// Processes of the gateways on this machine, whose memory is measured
    #[arg(long, value_name = "PID[,PID]", value_delimiter = ',')]
    pid: Vec<u32>,
    /// Once all are open, so many of them, chosen at random, send each other a message
    #[arg(long, value_name = "N", default_value_t = 0)]
    talk: usize,
    /// At the end, look all of their users up at the store
    #[arg(long)]
    locate: bool,
    #[command(flatten)]
    store: StoreArgs,
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
        report.faults().map_or(Ok(()), |faults| Err(Failure::failed(faults)))
    }

    async fn measure(&self) -> Result<Report, Failure> {
        let (before, slabs, available) =
            (self.resident()?, kernel::slabs(), kernel::available_bytes());
        let started = Instant::now();
        let mut workers = self.start()?;
        let (mut open, mut failures) = (0, Vec::new());
        for worker in &mut workers {
            let progress = worker.next().await?;
            open += progress.open;
            failures.extend(progress.failures);
        }
        let seconds = started.elapsed().as_secs_f64();
        sleep(Duration::from_secs_f64(self.hold)).await;
        let (kernel_bytes, kernel_caches) = kernel::slabs().since(&slabs);
        let memory = Memory {
            rss_before_bytes: before,
            rss_after_bytes: self.resident()?,
            kernel_bytes: (!kernel_caches.is_empty()).then_some(kernel_bytes),
            kernel_caches,
            available_before_bytes: available,
            available_after_bytes: kernel::available_bytes(),
        };
        let talked = match self.talk {
            0 | 1 => None,
            talk => Some(self.talk(&mut workers, talk.min(self.count)).await?),
        };
        let located = if self.locate { Some(self.look_up().await?) } else { None };
        let mut kept = 0;
        let processes = workers.len();
        // All at once: each has many connections to close.
        let mut ending: Vec<_> = workers.into_iter().map(Worker::ending).collect();
        for worker in &mut ending {
            kept += worker.next().await?.open;
            worker.ended().await;
        }
        failures.truncate(crate::limits::FAULT_EXAMPLES_MAX);
        Ok(Report {
            gateways: self.gateway.iter().map(ToString::to_string).collect(),
            connections: open,
            failed: self.count - open,
            failures,
            lost: open.saturating_sub(kept),
            processes,
            seconds,
            logins_per_second: open as f64 / seconds,
            held_seconds: self.hold,
            bytes_per_connection: memory.of_each(open),
            kernel_bytes_per_connection: memory.of_kernel(open),
            memory,
            talked,
            located,
        })
    }

    /// Resident bytes of all gateways that are to be looked at.
    fn resident(&self) -> Result<Option<u64>, Failure> {
        let usages = servers::usages(&self.pid);
        if usages.len() < self.pid.len() {
            return Err(Failure::failed("--pid: not all of these processes are there"));
        }
        Ok((!usages.is_empty()).then(|| usages.iter().map(|usage| usage.rss_bytes).sum()))
    }

    /// Lets some of the devices send each other a message, in a ring.
    async fn talk(&self, workers: &mut [Worker], talk: usize) -> Result<Talked, Failure> {
        let mut random = rand::rng();
        let mut chosen = BTreeSet::new();
        while chosen.len() < talk {
            chosen.insert(random.random_range(0..self.count));
        }
        let mut ring: Vec<usize> = chosen.into_iter().collect();
        ring.shuffle(&mut random);
        let next = ring.iter().cycle().skip(1);
        let pairs: HashMap<usize, usize> = ring.iter().copied().zip(next.copied()).collect();
        for worker in workers.iter_mut() {
            worker.talk(&pairs).await?;
        }
        let started = Instant::now();
        loop {
            let (mut accepted, mut arrived_us) = (0, Vec::new());
            for worker in workers.iter_mut() {
                let progress = worker.ask().await?;
                accepted += progress.accepted;
                arrived_us.extend(progress.arrived_us);
            }
            if arrived_us.len() >= talk || started.elapsed() > ARRIVE_WITHIN {
                return Ok(Talked::of(talk, accepted, arrived_us));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// How many of the users have a session.
    async fn look_up(&self) -> Result<usize, Failure> {
        let client = self.store.connect().await?;
        let mut found = 0;
        for first in (0..self.count).step_by(ITEMS_PER_BATCH_MAX) {
            let numbers = first..self.count.min(first + ITEMS_PER_BATCH_MAX);
            let users = numbers.map(|number| idle::name(&self.prefix, number)).collect();
            let located = client.locate(users, Read::Lease).await;
            let results = located.map_err(|error| failure(&error))?.results;
            found += results.iter().filter(|result| !result.sessions.is_empty()).count();
        }
        Ok(found)
    }

    fn start(&self) -> Result<Vec<Worker>, Failure> {
        let least = self.count.div_ceil(IDLE_PER_WORKER_MAX).max(1);
        let processes = if self.processes == 0 { least } else { self.processes };
        let share = self.count.div_ceil(processes);
        let opening = self.opening.min(IDLE_OPENING_MAX / processes).max(1);
        let gateways: Vec<String> = self.gateway.iter().map(ToString::to_string).collect();
        (0..self.count)
            .step_by(share.max(1))
            .map(|first| {
                let count = share.min(self.count - first);
                let mut arguments = vec![
                    "--worker".to_owned(),
                    first.to_string(),
                    "--count".to_owned(),
                    count.to_string(),
                    "--gateway".to_owned(),
                    gateways.join(","),
                    "--opening".to_owned(),
                    opening.to_string(),
                    "--prefix".to_owned(),
                    self.prefix.clone(),
                ];
                if let Some(ca) = &self.ca {
                    arguments.extend(["--ca".to_owned(), ca.display().to_string()]);
                }
                Worker::start(&arguments, &self.token)
            })
            .collect()
    }

    /// What a worker does: opens its share, says so, holds it until its input ends.
    async fn work(&self, first: usize) -> Result<(), Failure> {
        let trust = self.ca.as_deref().map(Trust::authority).transpose();
        let share = Share {
            gateways: self.gateway.clone(),
            trust: trust.map_err(|error| Failure::failed(error.to_string()))?,
            token: self.token.clone(),
            prefix: self.prefix.clone(),
            first,
            count: self.count,
            opening: self.opening.max(1),
            from: Sources::to(&self.gateway),
        };
        let mut held = idle::open(share).await;
        Progress::of(&held).say()?;
        held.failures.clear();
        // A line says who is to talk, or asks how it stands; the input ends when it is to end.
        let mut lines = input::lines();
        while let Some(line) = lines.recv().await {
            match serde_json::from_str::<HashMap<usize, usize>>(&line) {
                Ok(pairs) => held.talk(pairs.into()),
                Err(_) => Progress::of(&held).say()?,
            }
        }
        Progress::of(&held).say()
    }
}
