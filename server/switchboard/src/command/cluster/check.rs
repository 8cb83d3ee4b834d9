//! `cluster check perf`: what this cluster can do, and what is in its way.
//!
//! ```text
//!  each node in turn: syncs of its disk, round trips and clocks ─┐
//!  claims, look-ups, messages of throw-away users, paced ────────┼─▶ findings ─▶ table or JSON
//! ```

mod findings;
mod load;
mod probe;

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde::Serialize;

use self::findings::find;
use self::load::{Measured, Pace};
use self::probe::Probed;
use crate::cli::Global;
use crate::command::operator::StoreArgs;
use crate::output::{Failure, Output, print_line, table};

/// Longest time of each kind of load: the mailboxes of throw-away users must not get full.
const SECONDS_MAX: f64 = 30.0;

/// Find out what a cluster can do, and what slows it down
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard cluster check perf
  switchboard cluster check perf --full --seconds 10")]
pub(super) struct Check {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Perf(Perf),
}

/// Measure disks, ways between nodes, clocks, and claims, look-ups and messages of throw-away users
///
/// Safe while the cluster serves: each node's disk gets fifty small writes a second for two seconds, and the
/// load is bounded to --rate items a second. What it stores it removes again. --full lets the load go
/// as fast as it can: others will feel that.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard cluster check perf                      about 25 seconds on three nodes
  switchboard cluster check perf --rate 5000
  switchboard cluster check perf --full --seconds 10  not in production
  switchboard cluster check perf --output json

The nodes must be reachable at the addresses that they advertise, by an operator: from loopback, or with
--insecure. What is looked for is in docs/operations.md.")]
pub(super) struct Perf {
    /// Items a second of each kind of load
    #[arg(long, value_name = "N", default_value_t = 500, conflicts_with = "full",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// As fast as it goes, in batches
    #[arg(long)]
    full: bool,
    /// Seconds of each kind of load
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,
    #[command(flatten)]
    store: StoreArgs,
}

/// All that was found.
#[derive(Debug, Serialize)]
struct Report {
    nodes: Vec<Probed>,
    load: Vec<Measured>,
    /// What is in the way, in words; empty: nothing.
    warnings: Vec<String>,
}

impl Check {
    pub(super) async fn run(self, global: Global) -> Result<(), Failure> {
        let Command::Perf(perf) = self.command;
        perf.run(global).await
    }
}

impl Perf {
    async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        let pace = if self.full { Pace::Full } else { Pace::Bounded { items_per_s: self.rate } };
        eprintln!("{}", pace.words(self.seconds));
        let nodes = probe::nodes(&client).await?;
        let load = load::measure(&client, pace, self.seconds).await?;
        let warnings = find(&nodes, &load);
        let report = Report { nodes, load, warnings };
        global.output.print(&report, |report| node_table(&report.nodes))?;
        if global.output == Output::Table {
            print_line(&load_table(&report.load).to_string())?;
            for warning in &report.warnings {
                print_line(&format!("warning: {warning}"))?;
            }
            if report.warnings.is_empty() {
                print_line("nothing is in its way")?;
            }
        }
        match report.nodes.iter().filter(|node| node.sync_ms.is_none()).count() {
            0 => Ok(()),
            count => Err(Failure::failed(format!("{count} nodes could not be measured"))),
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.1..=SECONDS_MAX).contains(&seconds) {
        true => Ok(seconds),
        false => Err(format!("must be from 0.1 to {SECONDS_MAX}")),
    }
}

fn node_table(nodes: &[Probed]) -> Table {
    let mut table = table(["node", "sync p50, ms", "sync p99, ms", "to others p50, ms", "clocks"]);
    for node in nodes {
        let ms = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |ms| format!("{ms:.2}"));
        let others = node.peers.iter().map(|peer| match &peer.round_trip_ms {
            Some(trip) => format!("{}: {:.2}", peer.node_id, trip.p50),
            None => format!("{}: no answer", peer.node_id),
        });
        let clocks = node.peers.iter().filter(|peer| peer.round_trip_ms.is_some());
        let clocks = clocks.map(|peer| format!("{}: {:+} ms", peer.node_id, peer.clock_ahead_ms));
        table.add_row([
            node.node_id.to_string(),
            ms(node.sync_ms.as_ref().map(|sync| sync.p50)),
            ms(node.sync_ms.as_ref().map(|sync| sync.p99)),
            others.collect::<Vec<_>>().join(", "),
            clocks.collect::<Vec<_>>().join(", "),
        ]);
    }
    table
}

fn load_table(load: &[Measured]) -> Table {
    let mut table = table(["load", "a second", "p50, ms", "p99, ms", "refused"]);
    for measured in load {
        table.add_row([
            measured.what.to_owned(),
            format!("{:.0}", measured.items_per_s),
            format!("{:.2}", measured.p50_ms),
            format!("{:.2}", measured.p99_ms),
            measured.refused.to_string(),
        ]);
    }
    table
}
