//! `node list`: the store nodes of the cluster.

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde::Serialize;
use switchboard_sdk::Client;

use super::operator::{StoreArgs, failure};
use crate::cli::Global;
use crate::output::{Failure, table};

/// Look after store nodes
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard node list
  switchboard node list --output json")]
pub(crate) struct NodeCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
}

/// Show the store nodes, what each leads and how much it holds
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard node list
  switchboard node list --store 10.0.0.2:7400 --output json")]
struct List {
    #[command(flatten)]
    store: StoreArgs,
}

/// A node as it says itself; zeros where it does not answer.
#[derive(Debug, Serialize)]
pub(super) struct Node {
    pub(super) node_id: u64,
    address: String,
    pub(super) reachable: bool,
    version: String,
    disk_id: String,
    uptime_ms: u64,
    replicas: usize,
    leads: usize,
    messages: u64,
    log_bytes: u64,
}

impl NodeCommand {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        let Command::List(list) = self.command;
        let client = list.store.connect().await?;
        global.output.print(&nodes(&client).await?, |nodes| print_nodes(nodes))
    }
}

/// All nodes, asked anew.
pub(super) async fn nodes(client: &Client) -> Result<Vec<Node>, Failure> {
    let listed = client.list_nodes().await.map_err(|error| failure(&error))?;
    let node = |listed: switchboard_api::v1::list_nodes_response::Node| {
        let (info, reachable) = (listed.node.unwrap_or_default(), listed.status.is_some());
        let status = listed.status.unwrap_or_default();
        let leads = status.shards.iter().filter(|shard| shard.leader_node_id == info.node_id);
        Node {
            node_id: info.node_id,
            address: info.address,
            reachable,
            leads: leads.count(),
            replicas: status.shards.len(),
            messages: status.shards.iter().map(|shard| shard.messages).sum(),
            version: status.version,
            disk_id: status.disk_id,
            uptime_ms: status.uptime_ms,
            log_bytes: status.log_bytes,
        }
    };
    Ok(listed.into_iter().map(node).collect())
}

pub(super) fn print_nodes(nodes: &[Node]) -> Table {
    let mut table = table([
        "node", "address", "state", "version", "leads", "replicas", "messages", "log", "up",
    ]);
    for node in nodes {
        table.add_row([
            node.node_id.to_string(),
            node.address.clone(),
            if node.reachable { "ok" } else { "unreachable" }.to_owned(),
            node.version.clone(),
            node.leads.to_string(),
            node.replicas.to_string(),
            node.messages.to_string(),
            format!("{} MiB", node.log_bytes >> 20),
            format!("{} s", node.uptime_ms / 1_000),
        ]);
    }
    table
}
