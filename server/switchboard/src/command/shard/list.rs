//! `shard list`: where replicas are, how far they are, and which are on their way.

use clap::Args;
use comfy_table::Table;
use serde::Serialize;
use switchboard_api::v1::{self, list_shards_response};

use crate::cli::Global;
use crate::command::moves::{Move, step};
use crate::command::operator::{StoreArgs, failure};
use crate::output::{Failure, table};

/// Show each shard's leader, how far its replicas are, and where one moves to
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard shard list
  switchboard shard list --output json

A move that does not go on says why; `switchboard shard abort SHARD` takes it back.")]
pub(super) struct List {
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
    #[serde(rename = "move")]
    moving: Option<Moving>,
}

#[derive(Debug, Serialize)]
struct Replica {
    node_id: u64,
    reachable: bool,
    last_log_index: u64,
    applied_index: u64,
}

#[derive(Debug, Serialize)]
struct Moving {
    from: u64,
    to: u64,
    step: &'static str,
    /// Why it does not go on; empty: it does.
    stalled: String,
    begun_at_ms: u64,
    matched_index: u64,
    last_index: u64,
    snapshot_bytes: u64,
}

impl List {
    pub(super) async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        let shards = client.list_shards().await.map_err(|error| failure(&error))?;
        // The leaders are worth knowing above all when the meta group has none.
        let moves = client.list_moves().await.unwrap_or_else(|error| {
            eprintln!("moves are not known: {}", failure(&error).message());
            Vec::new()
        });
        let shards: Vec<Shard> = shards.into_iter().map(|one| Shard::of(one, &moves)).collect();
        global.output.print(&shards, |shards| print(shards))
    }
}

impl Shard {
    fn of(shard: list_shards_response::Shard, moves: &[v1::MoveInfo]) -> Shard {
        let replica = |replica: list_shards_response::Replica| Replica {
            node_id: replica.node_id,
            reachable: replica.reachable,
            last_log_index: replica.last_log_index,
            applied_index: replica.applied_index,
        };
        let moving = moves.iter().find(|info| Move::of(info).shard == shard.shard);
        Shard {
            shard: shard.shard,
            leader: shard.leader_node_id,
            term: shard.term,
            messages: shard.messages,
            sessions: shard.sessions,
            replicas: shard.replicas.into_iter().map(replica).collect(),
            moving: moving.map(Moving::of),
        }
    }
}

impl Moving {
    fn of(info: &v1::MoveInfo) -> Moving {
        let Move { from, to, .. } = Move::of(info);
        Moving {
            from,
            to,
            step: step(info),
            stalled: info.stalled.clone(),
            begun_at_ms: info.begun_at_ms,
            matched_index: info.matched_index,
            last_index: info.last_index,
            snapshot_bytes: info.snapshot_bytes,
        }
    }

    fn words(&self, shard: u32) -> String {
        let way = Move { shard, from: self.from, to: self.to }.way();
        let stalled = match self.stalled.as_str() {
            "" => String::new(),
            why => format!("\nstalled: {why}"),
        };
        format!("{way} {}{stalled}", self.step)
    }
}

fn print(shards: &[Shard]) -> Table {
    let mut table = table(["shard", "leader", "term", "messages", "sessions", "replicas", "move"]);
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
            shard.moving.as_ref().map_or_else(String::new, |moving| moving.words(shard.shard)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_moves_says_where_to_and_why_it_does_not() {
        let info = v1::MoveInfo {
            replica: Some(Move { shard: 2, from: 1, to: 4 }.into()),
            stalled: "node 4 does not answer".to_owned(),
            ..v1::MoveInfo::default()
        };
        let shard = |shard| list_shards_response::Shard { shard, ..Default::default() };
        let still = Shard::of(shard(1), std::slice::from_ref(&info));
        assert!(still.moving.is_none());
        let moves = Shard::of(shard(2), &[info]);
        let text = print(&[moves]).to_string();
        assert!(text.contains("1 -> 4 waiting"), "{text}");
        assert!(text.contains("stalled: node 4 does not answer"), "{text}");
    }
}
