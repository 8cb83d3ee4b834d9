//! One sample of a cluster, made of what the store told.
//!
//! A shard's sessions and messages are counted once: as its leader tells them, else as the replica
//! does that has applied most. What no replica tells is not counted, and an alarm says so.

#[cfg(test)]
mod tests;
mod totals;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use switchboard_api::v1::register_request::Kind;
use switchboard_api::v1::{self, list_nodes_response};

pub(super) use self::totals::Totals;
use super::ask::{Look, Told};
use crate::command::moves::{Move, step};
use crate::command::node;

/// All that is shown.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Sample {
    pub(super) nodes: Vec<Node>,
    pub(super) shards: Vec<Shard>,
    /// Absent: they have never been told.
    pub(super) gateways: Option<Vec<Process>>,
    /// Absent: they have never been told.
    pub(super) moves: Option<Vec<Moving>>,
    pub(super) totals: Totals,
    pub(super) faults: Faults,
}

/// Why an answer is missing; none: it is there.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Faults {
    pub(super) store: Option<String>,
    pub(super) gateways: Option<String>,
    pub(super) moves: Option<String>,
}

/// A node as it says itself; its last figures, if any are known, where it does not answer.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Node {
    pub(super) node_id: u64,
    pub(super) address: String,
    pub(super) zone: String,
    /// `active`, `draining` or `removed`.
    pub(super) state: &'static str,
    pub(super) reachable: bool,
    /// It lost its disk, and what it had is still counted on.
    pub(super) returning: bool,
    pub(super) leads: usize,
    /// Those that the placement gives it.
    pub(super) replicas: usize,
    pub(super) sessions_led: u64,
    pub(super) messages_led: u64,
    pub(super) log_bytes: Option<u64>,
    pub(super) disk_almost_full: Option<bool>,
    pub(super) uptime_ms: Option<u64>,
    pub(super) version: Option<String>,
    /// Applied index by shard.
    #[serde(skip)]
    pub(super) applied: BTreeMap<u32, u64>,
    /// When it said so.
    #[serde(skip)]
    pub(super) at: Duration,
}

/// A shard, as the replica tells it that is counted.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Shard {
    pub(super) shard: u32,
    /// 0: none is known that a majority could follow.
    pub(super) leader: u64,
    pub(super) term: u64,
    pub(super) committed_index: u64,
    pub(super) applied_index: u64,
    /// Committed entries that the slowest replica has not applied.
    pub(super) lag: u64,
    pub(super) sessions: u64,
    pub(super) messages: u64,
    pub(super) message_bytes: u64,
    pub(super) replicas: usize,
    pub(super) replicas_reachable: usize,
    /// The node whose figures these are; 0: none has told any.
    pub(super) told_by: u64,
    #[serde(skip)]
    pub(super) at: Duration,
}

/// A gateway or chat process.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) address: String,
    pub(super) connections: u64,
    pub(super) load: f64,
    pub(super) lease_ms_left: u64,
}

/// A move that is under way.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Moving {
    #[serde(flatten)]
    pub(super) replica: Move,
    pub(super) step: &'static str,
    /// Why it does not go on; empty: it does.
    pub(super) stalled: String,
    pub(super) matched_index: u64,
    pub(super) last_index: u64,
    pub(super) snapshot_bytes: u64,
}

impl Sample {
    /// A look on its own.
    pub(super) fn of(look: Look) -> Sample {
        Sample::default().then(look)
    }

    /// The next look. Who does not answer in it keeps what is here, and is marked.
    pub(super) fn then(&self, look: Look) -> Sample {
        let mut next = match look.cluster {
            Ok(told) => self.with_cluster(&told, look.at),
            Err(why) => {
                Sample { faults: Faults { store: Some(why), ..Faults::default() }, ..self.clone() }
            }
        };
        match look.gateways {
            Ok(all) => next.gateways = Some(all.into_iter().map(Process::of).collect()),
            Err(why) => next.faults.gateways = Some(why),
        }
        match look.moves {
            Ok(all) => next.moves = Some(all.iter().map(Moving::of).collect()),
            Err(why) => next.faults.moves = Some(why),
        }
        next.totals = Totals::of(&next);
        next
    }

    fn with_cluster(&self, told: &Told, at: Duration) -> Sample {
        let mut shards: Vec<Shard> =
            told.placement.iter().map(|info| Shard::of(info, &told.nodes, at)).collect();
        shards.sort_by_key(|shard| shard.shard);
        let nodes = told.nodes.iter().map(|listed| Node::of(listed, told, &shards, at));
        let mut nodes: Vec<Node> = nodes.collect();
        nodes.sort_by_key(|node| node.node_id);
        for node in nodes.iter_mut().filter(|node| !node.reachable) {
            if let Some(last) = self.nodes.iter().find(|last| last.node_id == node.node_id) {
                node.keep(last);
            }
        }
        for shard in shards.iter_mut().filter(|shard| shard.told_by == 0) {
            if let Some(last) = self.shards.iter().find(|last| last.shard == shard.shard) {
                let replicas = shard.replicas;
                *shard = Shard { replicas, leader: 0, replicas_reachable: 0, ..last.clone() };
            }
        }
        let (gateways, moves) = (self.gateways.clone(), self.moves.clone());
        Sample { nodes, shards, gateways, moves, ..Sample::default() }
    }
}

impl Node {
    fn of(listed: &list_nodes_response::Node, told: &Told, shards: &[Shard], at: Duration) -> Node {
        let state = node::state_name(listed.state());
        let info = listed.node.clone().unwrap_or_default();
        let status = listed.status.as_ref();
        let replicas = status.iter().flat_map(|status| &status.shards);
        let led = || shards.iter().filter(|shard| shard.leader == info.node_id);
        Node {
            node_id: info.node_id,
            zone: listed.zone.clone(),
            state,
            reachable: listed.status.is_some(),
            returning: listed.returning,
            leads: led().count(),
            replicas: node::replicas(info.node_id, &told.placement),
            sessions_led: led().map(|shard| shard.sessions).sum(),
            messages_led: led().map(|shard| shard.messages).sum(),
            log_bytes: status.map(|status| status.log_bytes),
            disk_almost_full: status.map(|status| status.disk_almost_full),
            uptime_ms: status.map(|status| status.uptime_ms),
            applied: replicas.map(|one| (one.shard, one.applied_index)).collect(),
            version: status.map(|status| status.version.clone()),
            address: info.address,
            at,
        }
    }

    /// Takes over the last figures of a node that is silent now. What others say of it stays.
    fn keep(&mut self, last: &Node) {
        *self = Node {
            address: std::mem::take(&mut self.address),
            zone: std::mem::take(&mut self.zone),
            state: self.state,
            reachable: false,
            returning: self.returning,
            replicas: self.replicas,
            ..last.clone()
        };
    }

    /// What it is in the cluster, and what is wrong with it.
    pub(super) fn state_words(&self) -> String {
        node::state_words(self.state, self.fault())
    }

    /// What is wrong with it.
    pub(super) fn fault(&self) -> Option<&'static str> {
        node::fault(self.returning, self.reachable, self.disk_almost_full == Some(true))
    }
}

impl Shard {
    fn of(info: &v1::ShardInfo, nodes: &[list_nodes_response::Node], at: Duration) -> Shard {
        let told = |node: &list_nodes_response::Node| {
            let node_id = node.node.as_ref()?.node_id;
            let mut all = node.status.as_ref()?.shards.iter();
            let status = all.find(|status| status.shard == info.shard)?;
            info.replica_node_ids.contains(&node_id).then_some((node_id, *status))
        };
        let told: Vec<(u64, v1::ShardStatus)> = nodes.iter().filter_map(told).collect();
        let replicas = info.replica_node_ids.len();
        // A term has one leader at most, and whoever is at an older term has not heard of it yet.
        let named = told.iter().map(|(_, status)| (status.term, status.leader_node_id)).max();
        let named = named.map_or(0, |(_, leader)| leader);
        // Raft goes on naming the last leader when nobody can elect another one.
        let leader = told.iter().find(|(node, _)| *node == named && 2 * told.len() > replicas);
        let most = || told.iter().max_by_key(|(_, status)| status.applied_index);
        let Some((told_by, status)) = leader.or_else(most) else {
            return Shard { shard: info.shard, replicas, at, ..Shard::default() };
        };
        let committed = told.iter().map(|(_, status)| status.committed_index).max();
        let slowest = told.iter().map(|(_, status)| status.applied_index).min();
        Shard {
            shard: info.shard,
            leader: leader.map_or(0, |(node, _)| *node),
            term: status.term,
            committed_index: status.committed_index,
            applied_index: status.applied_index,
            lag: committed.unwrap_or(0).saturating_sub(slowest.unwrap_or(0)),
            sessions: status.sessions,
            messages: status.messages,
            message_bytes: status.message_bytes,
            replicas,
            replicas_reachable: told.len(),
            told_by: *told_by,
            at,
        }
    }
}

impl Process {
    fn of(info: v1::GatewayInfo) -> Process {
        let kind = match info.kind() {
            Kind::Gateway => "gateway",
            Kind::Chat => "chat",
        };
        Process {
            name: info.name,
            kind,
            address: info.address,
            connections: info.connections,
            load: info.load,
            lease_ms_left: info.lease_ms_left,
        }
    }
}

impl Moving {
    fn of(info: &v1::MoveInfo) -> Moving {
        Moving {
            replica: Move::of(info),
            step: step(info),
            stalled: info.stalled.clone(),
            matched_index: info.matched_index,
            last_index: info.last_index,
            snapshot_bytes: info.snapshot_bytes,
        }
    }
}
