//! The cluster in a line, and what is wrong with it.

use serde::Serialize;

use super::{Moving, Process, Sample};

/// Sums over what answers.
#[derive(Debug, Clone, Default, Serialize)]
pub(in crate::command::top) struct Totals {
    pub(in crate::command::top) nodes: usize,
    pub(in crate::command::top) nodes_up: usize,
    pub(in crate::command::top) shards: usize,
    pub(in crate::command::top) shards_with_leader: usize,
    pub(in crate::command::top) sessions: u64,
    pub(in crate::command::top) messages: u64,
    pub(in crate::command::top) message_bytes: u64,
    /// Absent: nobody has told.
    pub(in crate::command::top) connections: Option<u64>,
    /// Absent: nobody has told.
    pub(in crate::command::top) moves: Option<usize>,
    /// What is wrong, in words; empty: nothing.
    pub(in crate::command::top) alarms: Vec<String>,
}

impl Totals {
    pub(super) fn of(sample: &Sample) -> Totals {
        let members = || sample.nodes.iter().filter(|node| node.state != "removed");
        let told = || sample.shards.iter().filter(|shard| shard.replicas_reachable > 0);
        let connections = |all: &Vec<Process>| {
            // Of devices; chats have none.
            let gateways = all.iter().filter(|process| process.kind == "gateway");
            gateways.map(|gateway| gateway.connections).sum()
        };
        Totals {
            nodes: members().count(),
            nodes_up: members().filter(|node| node.reachable).count(),
            shards: sample.shards.len(),
            shards_with_leader: sample.shards.iter().filter(|shard| shard.leader != 0).count(),
            sessions: told().map(|shard| shard.sessions).sum(),
            messages: told().map(|shard| shard.messages).sum(),
            message_bytes: told().map(|shard| shard.message_bytes).sum(),
            connections: sample.gateways.as_ref().map(connections),
            moves: sample.moves.as_ref().map(Vec::len),
            alarms: alarms(sample),
        }
    }
}

fn alarms(sample: &Sample) -> Vec<String> {
    let members = sample.nodes.iter().filter(|node| node.state != "removed");
    let nodes =
        members.filter_map(|node| Some(format!("node {}: {}", node.node_id, node.fault()?)));
    let shards = sample.shards.iter().filter(|shard| shard.leader == 0);
    let shards = shards.map(|shard| match shard.replicas_reachable {
        0 => format!("shard {}: no replica answers, it is not counted", shard.shard),
        _ => format!("shard {}: no leader", shard.shard),
    });
    let stalled = |one: &&Moving| !one.stalled.is_empty();
    let moves = sample.moves.iter().flatten().filter(stalled);
    let moves = moves.map(|one| format!("{} is stalled: {}", one.replica.words(), one.stalled));
    let faults = &sample.faults;
    let unknown = [("gateways", &faults.gateways), ("moves", &faults.moves)];
    let unknown = unknown
        .into_iter()
        .filter_map(|(what, why)| Some(format!("{what} are not known: {}", why.as_deref()?)));
    nodes.chain(shards).chain(moves).chain(unknown).collect()
}
