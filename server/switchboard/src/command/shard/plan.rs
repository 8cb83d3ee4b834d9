//! `shard plan` and `shard apply`: the moves that balance a cluster, read before they are made.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use comfy_table::Table;
use serde::{Deserialize, Serialize};
use switchboard_api::v1;
use switchboard_sdk::Client;

use crate::cli::Global;
use crate::command::moves::{Ended, Move, Show, follow};
use crate::command::operator::{StoreArgs, failure};
use crate::limits::PLAN_BYTES_MAX;
use crate::output::{Failure, Output, print_event, print_line, table};

/// Show the moves that would balance the cluster and empty drained nodes; nothing is moved
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard shard plan
  switchboard shard plan --output-file plan.json
  switchboard shard plan --output json

A plan is for the placement as it is now: `shard apply` refuses it once anything has moved.")]
pub(super) struct Plan {
    /// Write the plan here, for `shard apply`
    #[arg(long, value_name = "PLAN")]
    output_file: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
}

/// Make the moves of a plan, all of them or, if the placement has moved on, none
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard shard apply plan.json
  switchboard shard apply plan.json --output json     one object a progress event

The cluster makes the moves, a few at a time, while it serves. Interrupting this command stops none:
`shard list` shows how far they are, and `shard abort` takes back those whose voters have not changed.")]
pub(super) struct Apply {
    /// What `shard plan --output-file` wrote
    plan: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

/// A plan as its file has it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Planned {
    placement_version: u64,
    moves: Vec<Move>,
}

/// What came of moves.
#[derive(Debug, Serialize)]
struct Report {
    event: &'static str,
    done: usize,
    undone: usize,
    seconds: f64,
}

impl Plan {
    pub(super) async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        let planned = client.plan_rebalance().await.map_err(|error| failure(&error))?;
        let planned = Planned {
            placement_version: planned.placement_version,
            moves: planned.moves.into_iter().map(Move::from).collect(),
        };
        if let Some(path) = &self.output_file {
            planned.write(path)?;
        }
        let bytes = bytes_by_shard(&client).await?;
        global.output.print(&planned, |planned| planned.table(&bytes))?;
        if global.output == Output::Table {
            print_line(&self.advice(&planned))?;
        }
        Ok(())
    }

    fn advice(&self, planned: &Planned) -> String {
        let version = planned.placement_version;
        match (planned.moves.len(), &self.output_file) {
            (0, _) => "nothing to move: the cluster is balanced".to_owned(),
            (count, Some(path)) => format!(
                "{count} moves for placement {version}; make them with `switchboard shard apply {}`",
                path.display()
            ),
            (count, None) => format!(
                "{count} moves for placement {version}; write them down with --output-file PLAN to \
                 make them"
            ),
        }
    }
}

impl Apply {
    pub(super) async fn run(self, global: Global) -> Result<(), Failure> {
        let planned = Planned::read(&self.plan)?;
        let client = self.store.connect().await?;
        make(&client, planned.placement_version, &planned.moves, global).await
    }
}

/// Begins moves and follows them to their end.
pub(super) async fn make(
    client: &Client,
    placement_version: u64,
    moves: &[Move],
    global: Global,
) -> Result<(), Failure> {
    let began = Instant::now();
    if !moves.is_empty() {
        let wire = moves.iter().map(|one| v1::ReplicaMove::from(*one)).collect();
        let request = v1::ApplyPlanRequest { placement_version, moves: wire };
        client.apply_plan(request).await.map_err(|error| failure(&error))?;
    }
    let show = Show::new(client, global.output, moves.len()).await;
    let Ended { done, undone } = follow(client, moves, show).await?;
    let seconds = began.elapsed().as_secs_f64();
    let report = Report { event: "end", done: done.len(), undone: undone.len(), seconds };
    report.print(global)?;
    if undone.is_empty() {
        return Ok(());
    }
    let which: Vec<String> = undone.iter().map(|one| one.words()).collect();
    Err(Failure::failed(format!("undone by somebody: {}", which.join(", "))))
}

impl Report {
    /// As a line of its own for programs: what comes before are lines, too.
    fn print(&self, global: Global) -> Result<(), Failure> {
        if global.output == Output::Json {
            return print_event(self);
        }
        global.output.print(self, |report| {
            let mut table = table(["moved", "undone", "seconds"]);
            let seconds = format!("{:.1}", report.seconds);
            table.add_row([report.done.to_string(), report.undone.to_string(), seconds]);
            table
        })
    }
}

impl Planned {
    fn read(path: &Path) -> Result<Planned, Failure> {
        let shown = path.display();
        let unreadable =
            |error: std::io::Error| Failure::failed(format!("cannot read {shown}: {error}"));
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(PLAN_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > PLAN_BYTES_MAX {
            return Err(not_a_plan(path, "it is too large"));
        }
        serde_json::from_str(&text).map_err(|error| not_a_plan(path, &error.to_string()))
    }

    fn write(&self, path: &Path) -> Result<(), Failure> {
        let shown = path.display();
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
        std::fs::write(path, format!("{text}\n"))
            .map_err(|error| Failure::failed(format!("cannot write {shown}: {error}")))
    }

    fn table(&self, bytes: &BTreeMap<u32, u64>) -> Table {
        let mut table = table(["shard", "from node", "to node", "messages"]);
        let node = |node: u64| if node == 0 { "none".to_owned() } else { node.to_string() };
        for one in &self.moves {
            let mib = bytes.get(&one.shard).copied().unwrap_or(0) as f64 / f64::from(1 << 20);
            table.add_row([
                one.shard.to_string(),
                node(one.from),
                node(one.to),
                format!("{mib:.1} MiB"),
            ]);
        }
        table
    }
}

fn not_a_plan(path: &Path, why: &str) -> Failure {
    Failure::usage(format!("{} is no plan: {why}", path.display()))
        .help("make one with `switchboard shard plan --output-file PLAN`")
}

/// The waiting bytes of each shard.
async fn bytes_by_shard(client: &Client) -> Result<BTreeMap<u32, u64>, Failure> {
    let nodes = client.list_nodes().await.map_err(|error| failure(&error))?;
    let statuses = nodes.into_iter().filter_map(|node| node.status);
    let shards = statuses.flat_map(|status| status.shards);
    Ok(shards.map(|shard| (shard.shard, shard.message_bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_was_written_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.json");
        let planned =
            Planned { placement_version: 7, moves: vec![Move { shard: 1, from: 2, to: 4 }] };
        planned.write(&path).unwrap();
        assert_eq!(Planned::read(&path).unwrap(), planned);
        for wrong in ["", "{}", "[]", r#"{"placement_version":7,"moves":[],"more":1}"#] {
            std::fs::write(&path, wrong).unwrap();
            assert!(Planned::read(&path).is_err(), "{wrong}");
        }
    }
}
