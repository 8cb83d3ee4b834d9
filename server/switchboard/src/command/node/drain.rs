//! `node drain`: a node's replicas go to the others.

use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::cli::Global;
use crate::command::moves::{Show, follow_drain};
use crate::command::operator::{StoreArgs, failure};
use crate::output::{Failure, Output, print_event, print_line, table};

/// Move all replicas away from a node, while it serves, so that it can be removed
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard node drain 2                  returns at once; the cluster goes on by itself
  switchboard node drain 2 --wait           shows the moves until the node is empty
  switchboard node drain 2 --undo           what has not gone yet stays

A drain is refused if the other nodes cannot take the replicas: each of a shard's needs a node of its
own. For a restart a drain is not needed: stop the node, and it hands its leaders over.")]
pub(super) struct Drain {
    /// The node
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    /// Take it back
    #[arg(long, conflicts_with = "wait")]
    undo: bool,
    /// Show the moves until the node is empty
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// What has become of it. With --wait the last of several lines, for programs.
#[derive(Debug, Serialize)]
struct Drained {
    event: &'static str,
    node_id: u64,
    state: &'static str,
    placement_version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    moved: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

impl Drain {
    pub(super) async fn run(self, global: Global) -> Result<(), Failure> {
        let began = Instant::now();
        let client = self.store.connect().await?;
        let placement_version =
            client.drain_node(self.id, self.undo).await.map_err(|error| failure(&error))?;
        let state = if self.undo { "active" } else { "draining" };
        let mut drained = Drained {
            event: "end",
            node_id: self.id,
            state,
            placement_version,
            moved: None,
            seconds: None,
        };
        if self.wait {
            let show = Show::new(&client, global.output, 0).await;
            drained.moved = Some(follow_drain(&client, self.id, show).await?);
            drained.seconds = Some(began.elapsed().as_secs_f64());
            drained.state = "empty";
        }
        drained.print(global)
    }
}

impl Drained {
    fn print(&self, global: Global) -> Result<(), Failure> {
        if global.output == Output::Json {
            return print_event(self);
        }
        global.output.print(self, |drained| {
            let mut table = table(["node", "state", "moved", "seconds"]);
            let seconds = drained.seconds.map_or_else(String::new, |s| format!("{s:.1}"));
            let moved = drained.moved.map_or_else(String::new, |moved| moved.to_string());
            table.add_row([drained.node_id.to_string(), drained.state.to_owned(), moved, seconds]);
            table
        })?;
        print_line(&self.advice())
    }

    fn advice(&self) -> String {
        let id = self.node_id;
        match self.state {
            "empty" => format!("`switchboard node remove {id}` takes it out for good"),
            "draining" => format!("`switchboard node drain {id} --wait` shows how far it is"),
            _ => "its replicas stay; moves under way end first".to_owned(),
        }
    }
}
