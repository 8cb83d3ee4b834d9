//! `node list|add|remove|drain`: the store nodes of the cluster.

mod drain;
mod member;

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde::Serialize;
use switchboard_api::v1::{NodeState, list_nodes_response};
use switchboard_sdk::Client;

use super::operator::{StoreArgs, failure};
use crate::cli::Global;
use crate::output::{Failure, table};

/// Look after store nodes
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard node list
  switchboard node add 4 10.0.0.4:7400 --zone rack-b
  switchboard node drain 2 --wait
  switchboard node remove 2")]
pub(crate) struct NodeCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Add(member::Add),
    Remove(member::Remove),
    Drain(drain::Drain),
}

/// Show the store nodes, their state, what each leads and how much it holds
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
    /// `active`, `draining` or `removed`.
    state: &'static str,
    /// It lost its disk, and what it had is still counted on.
    returning: bool,
    /// It votes in the meta group.
    meta_voter: bool,
    /// What fails together with it; empty: nothing is known.
    zone: String,
    version: String,
    disk_id: String,
    /// Only the reserve is free, or less.
    disk_almost_full: bool,
    uptime_ms: u64,
    replicas: usize,
    leads: usize,
    messages: u64,
    log_bytes: u64,
}

impl NodeCommand {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => {
                let client = list.store.connect().await?;
                global.output.print(&nodes(&client).await?, |nodes| print_nodes(nodes))
            }
            Command::Add(add) => add.run(global).await,
            Command::Remove(remove) => remove.run(global).await,
            Command::Drain(drain) => drain.run(global).await,
        }
    }
}

/// All nodes, asked anew.
pub(super) async fn nodes(client: &Client) -> Result<Vec<Node>, Failure> {
    let listed = client.list_nodes().await.map_err(|error| failure(&error))?;
    Ok(listed.into_iter().map(Node::of).collect())
}

impl Node {
    fn of(listed: list_nodes_response::Node) -> Node {
        let state = state_name(listed.state());
        let (info, reachable) = (listed.node.unwrap_or_default(), listed.status.is_some());
        let status = listed.status.unwrap_or_default();
        let leads = status.shards.iter().filter(|shard| shard.leader_node_id == info.node_id);
        Node {
            node_id: info.node_id,
            address: info.address,
            reachable,
            state,
            returning: listed.returning,
            meta_voter: listed.meta_voter,
            zone: listed.zone,
            leads: leads.count(),
            replicas: status.shards.len(),
            messages: status.shards.iter().map(|shard| shard.messages).sum(),
            version: status.version,
            disk_id: status.disk_id,
            disk_almost_full: status.disk_almost_full,
            uptime_ms: status.uptime_ms,
            log_bytes: status.log_bytes,
        }
    }

    /// What it is in the cluster, and what is wrong with it.
    fn state_words(&self) -> String {
        state_words(self.state, fault(self.returning, self.reachable, self.disk_almost_full))
    }
}

pub(super) fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::NodeActive => "active",
        NodeState::NodeDraining => "draining",
        NodeState::NodeRemoved => "removed",
    }
}

/// What is wrong with a node.
pub(super) fn fault(
    returning: bool,
    reachable: bool,
    disk_almost_full: bool,
) -> Option<&'static str> {
    match (returning, reachable, disk_almost_full) {
        // Nobody asks it anything before its old disk is forgotten.
        (true, _, _) => Some("its old disk is being forgotten"),
        (_, false, _) => Some("unreachable"),
        (_, true, true) => Some("disk almost full"),
        (_, true, false) => None,
    }
}

/// What a node is in the cluster, and what is wrong with it.
pub(super) fn state_words(state: &str, fault: Option<&str>) -> String {
    fault.map_or_else(|| state.to_owned(), |fault| format!("{state}, {fault}"))
}

pub(super) fn print_nodes(nodes: &[Node]) -> Table {
    let mut table = table([
        "node", "address", "zone", "state", "version", "leads", "replicas", "messages", "log", "up",
    ]);
    for node in nodes {
        table.add_row([
            node.node_id.to_string(),
            node.address.clone(),
            node.zone.clone(),
            node.state_words(),
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

#[cfg(test)]
mod tests {
    use switchboard_api::v1::StatusResponse;

    use super::*;

    #[test]
    fn a_node_says_what_is_wrong_with_it() {
        let mut listed = list_nodes_response::Node {
            state: NodeState::NodeDraining.into(),
            ..Default::default()
        };
        assert_eq!(Node::of(listed.clone()).state_words(), "draining, unreachable");
        listed.status = Some(StatusResponse { disk_almost_full: true, ..Default::default() });
        assert_eq!(Node::of(listed.clone()).state_words(), "draining, disk almost full");
        listed.status = Some(StatusResponse::default());
        assert_eq!(Node::of(listed.clone()).state_words(), "draining");
        (listed.returning, listed.status) = (true, None);
        let returning = Node::of(listed).state_words();
        assert_eq!(returning, "draining, its old disk is being forgotten");
    }
}
