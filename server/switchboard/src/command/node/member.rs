//! `node add` and `node remove`: who is a member of the cluster.

use clap::Args;
use serde::Serialize;
use switchboard_api::v1::NodeInfo;

use super::replicas;
use crate::cli::Global;
use crate::command::operator::{StoreArgs, failure};
use crate::output::{Failure, Output, print_line, table};

/// Take a node that waits for a cluster into this one; it gets replicas by `shard plan`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard node add 4 10.0.0.4:7400
  switchboard node add 4 10.0.0.4:7400 --zone rack-b
  switchboard node add 4 10.0.0.4:7400 --lost-disk

The node must run, on an empty data directory: `switchboard store --data DIR --node-id 4`. An id is
never used twice. Nodes of one zone fail together: replicas of a shard are spread over zones.")]
pub(super) struct Add {
    /// Its id, as it was started with --node-id
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    /// The address that it advertises, as host:port
    address: String,
    /// What fails together with it: a rack, a power supply, a data centre
    #[arg(long, value_name = "Z", default_value = "")]
    zone: String,
    /// It is a member that comes back with an empty directory: what it had is gone for good
    #[arg(long)]
    lost_disk: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Take a node without replicas out of the cluster, for good
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard node drain 2 --wait && switchboard node remove 2

A node that still has replicas is refused: each of its shards would have one copy less to survive with.
Stop the process afterwards; its data directory is of no use any more, and its id is never used again.")]
pub(super) struct Remove {
    /// The node
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Serialize)]
struct Changed {
    node_id: u64,
    state: &'static str,
    placement_version: u64,
}

impl Add {
    pub(super) async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        // A member may be named again, as for its zone.
        let map = client.shard_map().await.map_err(|error| failure(&error))?;
        let is_member = map.nodes.iter().any(|node| node.node_id == self.id);
        let state = if is_member { "updated" } else { "added" };
        let node = NodeInfo { node_id: self.id, address: self.address };
        let changed = client.add_node(node, &self.zone, self.lost_disk).await;
        let placement_version = changed.map_err(|error| failure(&error))?;
        Changed { node_id: self.id, state, placement_version }.print(global)?;
        if global.output != Output::Table {
            return Ok(());
        }
        if self.lost_disk {
            return print_line(
                "it gets its replicas back by itself: `switchboard node list` and `shard list` show how far it is",
            );
        }
        if replicas(self.id, &map.placement) > 0 {
            return Ok(());
        }
        print_line("it has no replicas yet: `switchboard shard plan` shows which it would get")
    }
}

impl Remove {
    pub(super) async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        let placement_version =
            client.remove_node(self.id).await.map_err(|error| failure(&error))?;
        Changed { node_id: self.id, state: "removed", placement_version }.print(global)
    }
}

impl Changed {
    fn print(&self, global: Global) -> Result<(), Failure> {
        global.output.print(self, |changed| {
            let mut table = table(["node", "state", "placement"]);
            table.add_row([
                changed.node_id.to_string(),
                changed.state.to_owned(),
                changed.placement_version.to_string(),
            ]);
            table
        })
    }
}
