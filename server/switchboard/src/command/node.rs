//! `node list|add|remove|drain`: the store nodes of the cluster.

mod drain;
mod member;

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde::Serialize;
use switchboard_api::v1::{NodeState, ShardInfo, StatusResponse, list_nodes_response};
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

/// A node, with what it says itself: nothing where it does not answer.
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
    version: Option<String>,
    disk_id: Option<String>,
    /// Only the reserve is free, or less.
    disk_almost_full: Option<bool>,
    uptime_ms: Option<u64>,
    /// Those that the placement gives it.
    pub(super) replicas: usize,
    leads: Option<usize>,
    messages: Option<u64>,
    log_bytes: Option<u64>,
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
    let asked = tokio::try_join!(client.list_nodes(), client.shard_map());
    let (listed, map) = asked.map_err(|error| failure(&error))?;
    Ok(listed.into_iter().map(|node| Node::of(node, &map.placement)).collect())
}

/// How many replicas the placement gives a node.
pub(super) fn replicas(node_id: u64, placement: &[ShardInfo]) -> usize {
    placement.iter().filter(|shard| shard.replica_node_ids.contains(&node_id)).count()
}

impl Node {
    fn of(listed: list_nodes_response::Node, placement: &[ShardInfo]) -> Node {
        let state = state_name(listed.state());
        let (info, status) = (listed.node.unwrap_or_default(), listed.status);
        let status = status.as_ref();
        let leads = |status: &StatusResponse| {
            status.shards.iter().filter(|shard| shard.leader_node_id == info.node_id).count()
        };
        let messages =
            |status: &StatusResponse| status.shards.iter().map(|shard| shard.messages).sum();
        Node {
            node_id: info.node_id,
            reachable: status.is_some(),
            state,
            returning: listed.returning,
            meta_voter: listed.meta_voter,
            zone: listed.zone,
            leads: status.map(leads),
            replicas: replicas(info.node_id, placement),
            messages: status.map(messages),
            version: status.map(|status| status.version.clone()),
            disk_id: status.map(|status| status.disk_id.clone()),
            disk_almost_full: status.map(|status| status.disk_almost_full),
            uptime_ms: status.map(|status| status.uptime_ms),
            log_bytes: status.map(|status| status.log_bytes),
            address: info.address,
        }
    }

    /// What it is in the cluster, and what is wrong with it.
    fn state_words(&self) -> String {
        state_words(
            self.state,
            fault(self.returning, self.reachable, self.disk_almost_full == Some(true)),
        )
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
            known(node.version.as_ref()),
            known(node.leads),
            node.replicas.to_string(),
            known(node.messages),
            known(node.log_bytes.map(|bytes| format!("{} MiB", bytes >> 20))),
            known(node.uptime_ms.map(|ms| format!("{} s", ms / 1_000))),
        ]);
    }
    table
}

/// A cell: a dash for what nobody told.
pub(super) fn known(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_what_is_wrong_with_it() {
        let mut listed = list_nodes_response::Node {
            state: NodeState::NodeDraining.into(),
            ..Default::default()
        };
        let words =
            |listed: &list_nodes_response::Node| Node::of(listed.clone(), &[]).state_words();
        assert_eq!(words(&listed), "draining, unreachable");
        listed.status = Some(StatusResponse { disk_almost_full: true, ..Default::default() });
        assert_eq!(words(&listed), "draining, disk almost full");
        listed.status = Some(StatusResponse::default());
        assert_eq!(words(&listed), "draining");
        (listed.returning, listed.status) = (true, None);
        assert_eq!(words(&listed), "draining, its old disk is being forgotten");
    }

    #[test]
    fn a_silent_node_keeps_its_replicas_and_has_no_figures() {
        let node = Some(switchboard_api::v1::NodeInfo { node_id: 2, ..Default::default() });
        let listed = list_nodes_response::Node { node, ..Default::default() };
        let shard = ShardInfo { replica_node_ids: vec![1, 2], ..Default::default() };
        let silent = Node::of(listed, &[shard]);
        assert_eq!((silent.replicas, silent.log_bytes), (1, None));
        let text = print_nodes(&[silent]).to_string();
        assert!(text.contains(" - ") && !text.contains("0 MiB"), "{text}");
    }
}
