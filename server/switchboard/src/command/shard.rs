//! `shard list|plan|apply|move|abort|transfer-leader|compare`: the shards and their replicas.

mod list;
mod moving;
mod plan;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use switchboard_api::v1::compare_replicas_response::Outcome;

use super::operator::{StoreArgs, failure};
use crate::cli::Global;
use crate::output::{Failure, table};

/// How long a comparison may take: every replica reads its whole state, some shards again and again
/// until a common index is seen.
const COMPARE_WAIT_MAX: Duration = Duration::from_secs(300);

/// Look after shards and their replicas
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard shard list
  switchboard shard plan --output-file plan.json
  switchboard shard apply plan.json
  switchboard shard move 3 --from 1 --to 4
  switchboard shard abort 3
  switchboard shard transfer-leader 3 --to 2
  switchboard shard compare")]
pub(crate) struct ShardCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::List),
    Plan(plan::Plan),
    Apply(plan::Apply),
    Move(moving::MoveShard),
    Abort(moving::Abort),
    TransferLeader(TransferLeader),
    Compare(Compare),
}

/// Let another replica lead a shard
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard shard transfer-leader 3 --to 2

Leaders go back to where they belong after a while; this is for a node that is about to be worked on,
or to see that it works.")]
struct TransferLeader {
    /// The shard
    shard: u32,
    /// The node that should lead it
    #[arg(long, value_name = "N")]
    to: u64,
    #[command(flatten)]
    store: StoreArgs,
}

/// Compare the state of replicas by a hash at one index; fails unless all are equal
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard shard compare
  switchboard shard compare 0 7 --output json

A shard that is written to all the time may show no common index; it is reported as unknown, as is
one with a replica that is unreachable, unless others differ. Every replica reads its whole state for
this.")]
struct Compare {
    /// Only these shards
    shards: Vec<u32>,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Serialize)]
struct Compared {
    shard: u32,
    outcome: &'static str,
    replicas: Vec<Hash>,
}

#[derive(Debug, Serialize)]
struct Hash {
    node_id: u64,
    reachable: bool,
    index: u64,
    hash: String,
}

impl ShardCommand {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run(global).await,
            Command::Plan(plan) => plan.run(global).await,
            Command::Apply(apply) => apply.run(global).await,
            Command::Move(one) => one.run(global).await,
            Command::Abort(abort) => abort.run(global).await,
            Command::TransferLeader(transfer) => transfer.run(global).await,
            Command::Compare(compare) => compare.run(global).await,
        }
    }
}

impl TransferLeader {
    async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        let (shard, leader) = (self.shard, self.to);
        client.transfer_leader(shard, leader).await.map_err(|error| failure(&error))?;
        let done = serde_json::json!({ "shard": shard, "leader": leader });
        global.output.print(&done, |_| {
            let mut table = table(["shard", "leader"]);
            table.add_row([shard.to_string(), leader.to_string()]);
            table
        })
    }
}

impl Compare {
    async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect_for(COMPARE_WAIT_MAX).await?;
        let compared = client.compare_replicas(self.shards).await;
        let compared = compared.map_err(|error| failure(&error))?.into_iter().map(|shard| {
            let outcome = match shard.outcome() {
                Outcome::Equal => "equal",
                Outcome::Different => "different",
                Outcome::Unknown => "unknown",
            };
            let hash = |replica: switchboard_api::v1::compare_replicas_response::Replica| Hash {
                node_id: replica.node_id,
                reachable: !replica.unreachable,
                index: replica.index,
                hash: replica.hash,
            };
            let replicas = shard.replicas.into_iter().map(hash).collect();
            Compared { shard: shard.shard, outcome, replicas }
        });
        let compared: Vec<Compared> = compared.collect();
        global.output.print(&compared, |compared| {
            let mut table = table(["shard", "outcome", "replicas"]);
            for shard in compared {
                let replicas = shard.replicas.iter().map(|replica| match replica.reachable {
                    true => {
                        let hash: String = replica.hash.chars().take(12).collect();
                        format!("{}@{} {hash}", replica.node_id, replica.index)
                    }
                    false => format!("{} unreachable", replica.node_id),
                });
                let replicas = replicas.collect::<Vec<_>>().join("\n");
                table.add_row([shard.shard.to_string(), shard.outcome.to_owned(), replicas]);
            }
            table
        })?;
        let not_equal = compared.iter().filter(|shard| shard.outcome != "equal").count();
        match not_equal {
            0 => Ok(()),
            count => Err(Failure::failed(format!("{count} shards were not found to be equal"))),
        }
    }
}
