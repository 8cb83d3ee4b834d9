//! `cluster init|status|check|upgrade`: making a cluster of several store nodes, how it is, what it can do,
//! and its format.

mod check;
mod upgrade;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use switchboard_api::v1;

use super::node::{Node, nodes, print_nodes};
use super::operator::{StoreArgs, failure};
use crate::cli::Global;
use crate::output::{Failure, table};

/// How long making a cluster may take: every shard gets its members one after the other.
const INIT_WAIT_MAX: Duration = Duration::from_secs(120);

/// Make a cluster of store nodes, and see how it is
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard cluster init --store 10.0.0.1:7400 \\
      --peers 1=10.0.0.1:7400,2=10.0.0.2:7400,3=10.0.0.3:7400
  switchboard cluster status
  switchboard cluster check perf")]
pub(crate) struct Cluster {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(Init),
    Status(Status),
    Check(check::Check),
    Upgrade(upgrade::Upgrade),
}

/// Make a cluster of nodes that wait for one; run again, it ends what was cut short
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard cluster init --store 10.0.0.1:7400 \\
      --peers 1=10.0.0.1:7400,2=10.0.0.2:7400,3=10.0.0.3:7400
  switchboard cluster init \\
      --peers 1=127.0.0.1:7400,2=127.0.0.1:7500,3=127.0.0.1:7600 --shards 4

Each node must run as `switchboard store --data DIR --node-id N` with its own N. The node named by
--store must be one of the peers.")]
struct Init {
    /// All members as ID=HOST:PORT, each with the address that it advertises
    #[arg(long, value_name = "1=A,2=A,3=A", value_delimiter = ',', required = true, value_parser = peer)]
    peers: Vec<(u64, String)>,
    /// Shards: a power of two, fixed for good [default: what the node asked is configured for, 16]
    #[arg(long, value_name = "N")]
    shards: Option<u32>,
    #[command(flatten)]
    store: StoreArgs,
}

/// Show the cluster's nodes and whether every shard has a leader
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard cluster status
  switchboard cluster status --store 10.0.0.2:7400 --output json")]
struct Status {
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Serialize)]
struct Made {
    cluster_id: String,
    shards: u32,
    nodes: usize,
}

#[derive(Debug, Serialize)]
struct Shown {
    shards: usize,
    shards_without_leader: Vec<u32>,
    nodes_unreachable: Vec<u64>,
    nodes: Vec<Node>,
}

impl Cluster {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        match self.command {
            Command::Init(init) => init.run(global).await,
            Command::Status(status) => status.run(global).await,
            Command::Check(check) => check.run(global).await,
            Command::Upgrade(upgrade) => upgrade.run(global).await,
        }
    }
}

impl Init {
    async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.client(INIT_WAIT_MAX)?;
        let node = |(node_id, address): (u64, String)| v1::NodeInfo { node_id, address };
        let peers: Vec<_> = self.peers.into_iter().map(node).collect();
        let count = peers.len();
        let request = v1::InitClusterRequest { peers, shards: self.shards.unwrap_or(0) };
        let made = client.init_cluster(request).await.map_err(|error| failure(&error))?;
        let made = Made { cluster_id: made.cluster_id, shards: made.shards, nodes: count };
        global.output.print(&made, |made| {
            let mut table = table(["cluster", "nodes", "shards"]);
            table.add_row([
                made.cluster_id.clone(),
                made.nodes.to_string(),
                made.shards.to_string(),
            ]);
            table
        })
    }
}

impl Status {
    async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        let nodes = nodes(&client).await?;
        let shards = client.list_shards().await.map_err(|error| failure(&error))?;
        let leaderless = shards.iter().filter(|shard| shard.leader_node_id == 0);
        let unreachable = nodes.iter().filter(|node| !node.reachable);
        let shown = Shown {
            shards: shards.len(),
            shards_without_leader: leaderless.map(|shard| shard.shard).collect(),
            nodes_unreachable: unreachable.map(|node| node.node_id).collect(),
            nodes,
        };
        global.output.print(&shown, |shown| print_nodes(&shown.nodes))?;
        match shown.faults().as_slice() {
            [] => Ok(()),
            faults => Err(Failure::failed(format!("not all is well: {}", faults.join(", ")))),
        }
    }
}

impl Shown {
    fn faults(&self) -> Vec<String> {
        let (nodes, shards) = (&self.nodes_unreachable, &self.shards_without_leader);
        let away = (!nodes.is_empty()).then(|| format!("nodes {nodes:?} cannot be reached"));
        let leaderless = (!shards.is_empty()).then(|| format!("shards {shards:?} have no leader"));
        [away, leaderless].into_iter().flatten().collect()
    }
}

fn peer(text: &str) -> Result<(u64, String), String> {
    let form = || format!("`{text}` is not of the form ID=HOST:PORT");
    let (id, address) = text.split_once('=').ok_or_else(form)?;
    let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
    let id: u64 = id.parse().map_err(|_| form())?;
    if id == 0 || host.is_empty() || port.parse::<u16>().is_err() {
        return Err(form());
    }
    Ok((id, address.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_ids_with_addresses() {
        assert_eq!(peer("2=10.0.0.2:7400"), Ok((2, "10.0.0.2:7400".to_owned())));
        assert_eq!(peer("3=[::1]:7400"), Ok((3, "[::1]:7400".to_owned())));
        for wrong in ["", "2", "=a:1", "0=a:1", "x=a:1", "2=a", "2=:1", "2=a:70000"] {
            assert!(peer(wrong).is_err(), "{wrong}");
        }
    }
}
