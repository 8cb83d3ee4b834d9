//! `shard list|transfer-leader|compare`: the shards and their replicas.

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
  switchboard shard transfer-leader 3 --to 2
  switchboard shard compare")]
pub(crate) struct ShardCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    TransferLeader(TransferLeader),
    Compare(Compare),
}

/// Show each shard's leader and how far its replicas are
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard shard list
  switchboard shard list --output json")]
struct List {
    #[command(flatten)]
    store: StoreArgs,
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

A shard that is written to all the time may show no common index; it is reported as unknown. Every
replica reads its whole state for this.")]
struct Compare {
    /// Only these shards
    shards: Vec<u32>,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Serialize)]
struct Shard {
    shard: u32,
    leader: u64,
    term: u64,
    messages: u64,
    sessions: u64,
    replicas: Vec<Replica>,
}

#[derive(Debug, Serialize)]
struct Replica {
    node_id: u64,
    reachable: bool,
    last_log_index: u64,
    applied_index: u64,
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
    index: u64,
    hash: String,
}

impl ShardCommand {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run(global).await,
            Command::TransferLeader(transfer) => transfer.run(global).await,
            Command::Compare(compare) => compare.run(global).await,
        }
    }
}

impl List {
    async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        let shards = client.list_shards().await.map_err(|error| failure(&error))?;
        let replica = |replica: switchboard_api::v1::list_shards_response::Replica| Replica {
            node_id: replica.node_id,
            reachable: replica.reachable,
            last_log_index: replica.last_log_index,
            applied_index: replica.applied_index,
        };
        let shards = shards.into_iter().map(|shard| Shard {
            shard: shard.shard,
            leader: shard.leader_node_id,
            term: shard.term,
            messages: shard.messages,
            sessions: shard.sessions,
            replicas: shard.replicas.into_iter().map(replica).collect(),
        });
        let shards: Vec<Shard> = shards.collect();
        global.output.print(&shards, |shards| {
            let mut table = table(["shard", "leader", "term", "messages", "sessions", "replicas"]);
            for shard in shards {
                let replicas = shard.replicas.iter().map(|replica| match replica.reachable {
                    true => format!("{}@{}", replica.node_id, replica.applied_index),
                    false => format!("{} unreachable", replica.node_id),
                });
                let leader = match shard.leader {
                    0 => "none".to_owned(),
                    node => node.to_string(),
                };
                table.add_row([
                    shard.shard.to_string(),
                    leader,
                    shard.term.to_string(),
                    shard.messages.to_string(),
                    shard.sessions.to_string(),
                    replicas.collect::<Vec<_>>().join(", "),
                ]);
            }
            table
        })
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
        let client = self.store.client(COMPARE_WAIT_MAX)?;
        let compared = client.compare_replicas(self.shards).await;
        let compared =
            compared.map_err(|error| failure(&error))?.into_iter().map(|shard| {
                let outcome = match shard.outcome() {
                    Outcome::Equal => "equal",
                    Outcome::Different => "different",
                    Outcome::Unknown => "unknown",
                };
                let hash = |replica: switchboard_api::v1::compare_replicas_response::Replica| {
                    Hash { node_id: replica.node_id, index: replica.index, hash: replica.hash }
                };
                let replicas = shard.replicas.into_iter().map(hash).collect();
                Compared { shard: shard.shard, outcome, replicas }
            });
        let compared: Vec<Compared> = compared.collect();
        global.output.print(&compared, |compared| {
            let mut table = table(["shard", "outcome", "replicas"]);
            for shard in compared {
                let replicas = shard.replicas.iter().map(|replica| {
                    let hash: String = replica.hash.chars().take(12).collect();
                    format!("{}@{} {hash}", replica.node_id, replica.index)
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
