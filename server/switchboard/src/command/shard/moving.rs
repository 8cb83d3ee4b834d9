//! `shard move` and `shard abort`: one move by hand, and moves taken back.

use clap::Args;
use serde::Serialize;
use switchboard_sdk::Error;

use super::plan::make;
use crate::cli::Global;
use crate::command::moves::Move;
use crate::command::operator::{StoreArgs, failure};
use crate::output::{Failure, table};

/// Move a shard's replica from one node to another, while it serves
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard shard move 3 --from 1 --to 4
  switchboard shard move 3 --to 4                            one replica more
  switchboard shard move 3 --from 1 --to 4 --output json     one object a progress event

The new replica gets everything before the old one goes, so no copy is missing at any time. Interrupting
this command does not stop the move: `switchboard shard abort 3` does, until the voters change.")]
pub(super) struct MoveShard {
    /// The shard
    shard: u32,
    /// The node that has the replica; without it the shard gets one replica more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// The node that gets it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    to: u64,
    #[command(flatten)]
    store: StoreArgs,
}

/// Take moves back whose voters have not changed yet: of one shard, or all
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard shard abort 3
  switchboard shard abort                  every move that can still be taken back

A move whose voters are changing goes on; move it back when it is through. A node that is drained goes
on being emptied: take that back with `switchboard node drain ID --undo`. Exit code 1 if a move goes on.")]
pub(super) struct Abort {
    /// The shard; without it all
    shard: Option<u32>,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Serialize)]
struct Aborted {
    shard: u32,
    aborted: bool,
    /// Why it goes on; empty: it does not.
    why: String,
}

impl MoveShard {
    pub(super) async fn run(self, global: Global) -> Result<(), Failure> {
        let MoveShard { shard, from, to, store } = self;
        let from = from.unwrap_or(0);
        if from == to {
            return Err(Failure::usage(format!("--from and --to are both node {from}")));
        }
        let client = store.connect().await?;
        make(&client, 0, &[Move { shard, from, to }], global).await
    }
}

impl Abort {
    pub(super) async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        let shards = match self.shard {
            Some(shard) => vec![shard],
            None => {
                let moves = client.list_moves().await.map_err(|error| failure(&error))?;
                moves.iter().map(|info| Move::of(info).shard).collect()
            }
        };
        let mut outcomes = Vec::new();
        for shard in shards {
            let outcome = match client.abort_move(shard).await {
                Ok(()) => Aborted { shard, aborted: true, why: String::new() },
                Err(Error::Rejected { message, .. }) => {
                    Aborted { shard, aborted: false, why: message }
                }
                Err(error) => return Err(failure(&error)),
            };
            outcomes.push(outcome);
        }
        global.output.print(&outcomes, |outcomes| {
            let mut table = table(["shard", "outcome"]);
            for Aborted { shard, aborted, why } in outcomes {
                let outcome = if *aborted { "is being undone" } else { why };
                table.add_row([shard.to_string(), outcome.to_owned()]);
            }
            table
        })?;
        match outcomes.iter().filter(|outcome| !outcome.aborted).count() {
            0 => Ok(()),
            count => Err(Failure::failed(format!("{count} moves were not taken back"))),
        }
    }
}
