//! Looks at clusters that tests make up: two shards, each with a replica on every node.

use std::time::Duration;

use switchboard_api::v1::{self, list_nodes_response};

use super::ask::{Look, Told};

/// A node of a cluster that is made up.
#[derive(Debug, Clone)]
pub(super) struct Made {
    id: u64,
    applied: u64,
    leader: u64,
    term: u64,
    up_ms: u64,
    answers: bool,
}

impl Made {
    /// It is up for an hour, and follows node 1 in term 1.
    pub(super) fn new(id: u64) -> Made {
        Made { id, applied: 10, leader: 1, term: 1, up_ms: 3_600_000, answers: true }
    }

    /// How far both of its replicas are; each holds a session for every ten entries, and a message for
    /// every entry.
    pub(super) fn applied(self, applied: u64) -> Made {
        Made { applied, ..self }
    }

    /// Whom it follows.
    pub(super) fn led_by(self, leader: u64, term: u64) -> Made {
        Made { leader, term, ..self }
    }

    pub(super) fn up_ms(self, up_ms: u64) -> Made {
        Made { up_ms, ..self }
    }

    /// It does not answer.
    pub(super) fn silent(self) -> Made {
        Made { answers: false, ..self }
    }

    fn listed(&self) -> list_nodes_response::Node {
        let shard = |shard| v1::ShardStatus {
            shard,
            term: self.term,
            leader_node_id: self.leader,
            committed_index: self.applied,
            applied_index: self.applied,
            sessions: self.applied / 10,
            messages: self.applied,
            message_bytes: self.applied * 256,
            ..v1::ShardStatus::default()
        };
        let status = v1::StatusResponse {
            node_id: self.id,
            uptime_ms: self.up_ms,
            log_bytes: 64 << 20,
            shards: vec![shard(0), shard(1)],
            ..v1::StatusResponse::default()
        };
        let address = format!("10.0.0.{}:7400", self.id);
        list_nodes_response::Node {
            node: Some(v1::NodeInfo { node_id: self.id, address }),
            status: self.answers.then_some(status),
            zone: format!("rack-{}", self.id),
            ..list_nodes_response::Node::default()
        }
    }
}

/// What is found of these nodes, with one gateway and a move that is stalled.
pub(super) fn look(at_s: u64, made: &[Made]) -> Look {
    let ids: Vec<u64> = made.iter().map(|node| node.id).collect();
    let shard = |shard| v1::ShardInfo { shard, leader_node_id: 1, replica_node_ids: ids.clone() };
    let gateway = v1::GatewayInfo {
        name: "gateway-1".to_owned(),
        address: "10.0.1.1:7415".to_owned(),
        live: true,
        connections: 1_234,
        ..v1::GatewayInfo::default()
    };
    let moving = v1::MoveInfo {
        replica: Some(v1::ReplicaMove { shard: 1, from_node_id: 1, to_node_id: 4 }),
        stalled: "node 4 does not answer".to_owned(),
        ..v1::MoveInfo::default()
    };
    Look {
        at: Duration::from_secs(at_s),
        cluster: Ok(Told {
            nodes: made.iter().map(Made::listed).collect(),
            placement: vec![shard(0), shard(1)],
        }),
        gateways: Ok(vec![gateway]),
        moves: Ok(vec![moving]),
    }
}

/// A store that does not answer at all.
pub(super) fn silence(at_s: u64) -> Look {
    let no = || "the store cannot answer now: nobody listens".to_owned();
    let at = Duration::from_secs(at_s);
    Look { at, cluster: Err(no()), gateways: Err(no()), moves: Err(no()) }
}
