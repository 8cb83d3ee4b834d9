//! What operators ask of a whole cluster: this node gathers what every member says of itself.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::join_all;
use switchboard_api::v1::{
    self, compare_replicas_response as compare, forwarded_answer::Answer, forwarded_call::Call,
    list_nodes_response, list_shards_response as list,
};
use switchboard_engine::{NodeState, group_of_shard};
use switchboard_raft::NodeId;
use tonic::Status;

use crate::{errors, limits, peers::hex, service::Service};

impl Service {
    /// Every member with its own account of itself, if it answers.
    pub(crate) async fn list_nodes(&self) -> v1::ListNodesResponse {
        let members = self.node.members();
        let asked = members.into_iter().map(|member| async move {
            let status = self.status_of(member.node_id).await;
            let node = v1::NodeInfo { node_id: member.node_id, address: member.address };
            let role = self.node.meta().shard().meta(|meta| meta.placement().role(member.node_id));
            let state = match role.state {
                NodeState::Active => v1::NodeState::NodeActive,
                NodeState::Draining => v1::NodeState::NodeDraining,
                NodeState::Removed => v1::NodeState::NodeRemoved,
            };
            let meta = self.node.meta().shard();
            let returning = meta.meta(|meta| meta.placement().is_returning(member.node_id));
            let (zone, state) = (role.zone, state.into());
            let meta_voter = self.node.meta().status().voters.contains(&member.node_id);
            list_nodes_response::Node {
                node: Some(node),
                status,
                state,
                zone,
                returning,
                meta_voter,
            }
        });
        v1::ListNodesResponse { nodes: join_all(asked).await }
    }

    pub(crate) async fn status_of(&self, node: NodeId) -> Option<v1::StatusResponse> {
        if node == self.node.node_id() {
            return Some(self.status());
        }
        let take = |answer| match answer {
            Answer::Status(status) => Some(status),
            _ => None,
        };
        self.hop(node, Call::Status(v1::StatusRequest {}), take).await.ok()
    }

    /// The same for who cannot wait for a node that hangs.
    pub(crate) async fn status_soon(&self, node: NodeId) -> Option<v1::StatusResponse> {
        tokio::time::timeout(limits::STATUS_WAIT_MAX, self.status_of(node)).await.ok().flatten()
    }

    /// Those of these nodes that do not answer.
    pub(crate) async fn silent(&self, nodes: impl IntoIterator<Item = NodeId>) -> BTreeSet<NodeId> {
        let asked = nodes
            .into_iter()
            .map(|node| async move { self.status_soon(node).await.is_none().then_some(node) });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Every shard with what its replicas say.
    pub(crate) async fn list_shards(&self) -> v1::ListShardsResponse {
        let nodes = self.list_nodes().await.nodes;
        let of = |node: NodeId, shard: u32| {
            let node = nodes.iter().find(|n| n.node.as_ref().is_some_and(|n| n.node_id == node))?;
            node.status.as_ref()?.shards.iter().find(|status| status.shard == shard)
        };
        let count = u32::try_from(self.node.shard_table().len()).unwrap_or(0);
        let shards = (0..count).map(|shard| {
            let replica = |node_id: NodeId| {
                let status = of(node_id, shard);
                list::Replica {
                    node_id,
                    reachable: status.is_some(),
                    last_log_index: status.map_or(0, |status| status.last_log_index),
                    applied_index: status.map_or(0, |status| status.applied_index),
                }
            };
            let replicas: Vec<_> = self.replicas_of(shard).into_iter().map(replica).collect();
            // Raft goes on naming the last leader when nobody can elect another one.
            let reached =
                |node: &NodeId| replicas.iter().any(|r| r.node_id == *node && r.reachable);
            let has_majority = 2 * replicas.iter().filter(|r| r.reachable).count() > replicas.len();
            let leader = self.leader_of(shard).filter(|node| has_majority && reached(node));
            let leader = leader.unwrap_or(0);
            let state = of(leader, shard);
            list::Shard {
                shard,
                leader_node_id: leader,
                term: state.map_or(0, |state| state.term),
                messages: state.map_or(0, |state| state.messages),
                sessions: state.map_or(0, |state| state.sessions),
                replicas,
            }
        });
        v1::ListShardsResponse { shards: shards.collect() }
    }

    /// Hands leadership over, wherever the leader is.
    pub(crate) async fn transfer_leader(
        &self,
        request: v1::TransferLeaderRequest,
    ) -> Result<v1::TransferLeaderResponse, Status> {
        if request.shard >= self.node.shard_count().unwrap_or(0) {
            return Err(errors::unknown_shard(request.shard));
        }
        match self.leader_of(request.shard).filter(|leader| *leader != self.node.node_id()) {
            None => self.transfer_leader_here(request).await,
            Some(leader) => {
                let take = |answer| match answer {
                    Answer::TransferLeader(done) => Some(done),
                    _ => None,
                };
                self.hop(leader, Call::TransferLeader(request), take).await
            }
        }
    }

    /// The same, if this node leads the shard.
    pub(crate) async fn transfer_leader_here(
        &self,
        request: v1::TransferLeaderRequest,
    ) -> Result<v1::TransferLeaderResponse, Status> {
        let group = self.node.group(group_of_shard(request.shard));
        let group = group.ok_or_else(|| errors::unknown_shard(request.shard))?;
        let handed = group.transfer_leader(request.to_node_id).await;
        handed.map_err(|error| errors::transfer(&error))?;
        Ok(v1::TransferLeaderResponse {})
    }

    /// The hash of a replica of this node.
    pub(crate) async fn state_hash_here(
        &self,
        request: v1::StateHashRequest,
    ) -> Result<v1::StateHashResponse, Status> {
        let group = self.node.group(group_of_shard(request.shard));
        let group = group.ok_or_else(|| errors::unknown_shard(request.shard))?;
        let shard = group.shard().clone();
        // It reads the whole state: not on a thread of the runtime.
        let hashed = tokio::task::spawn_blocking(move || shard.state_hash()).await;
        let (at, hash) = hashed.map_err(|error| errors::internal(error.to_string()))?;
        let hash = hash.to_be_bytes().to_vec().into();
        Ok(v1::StateHashResponse { index: at.index, hash })
    }

    /// Compares the replicas of shards, one shard after the other.
    pub(crate) async fn compare_replicas(
        self: &Arc<Self>,
        request: v1::CompareReplicasRequest,
    ) -> Result<v1::CompareReplicasResponse, Status> {
        let count = self.node.shard_count().unwrap_or(0);
        if let Some(unknown) = request.shards.iter().find(|shard| **shard >= count) {
            return Err(errors::unknown_shard(*unknown));
        }
        let wanted = if request.shards.is_empty() { (0..count).collect() } else { request.shards };
        let mut shards = Vec::new();
        for shard in wanted {
            shards.push(self.compare_shard(shard).await);
        }
        Ok(v1::CompareReplicasResponse { shards })
    }

    async fn compare_shard(&self, shard: u32) -> compare::Shard {
        let members = || self.replicas_of(shard);
        let (outcome, replicas) =
            compared(members, |node_id| self.replica_hash(node_id, shard)).await;
        compare::Shard { shard, outcome: outcome.into(), replicas }
    }

    async fn replica_hash(&self, node_id: NodeId, shard: u32) -> compare::Replica {
        let request = v1::StateHashRequest { shard };
        let take = |answer| match answer {
            Answer::StateHash(hash) => Some(hash),
            _ => None,
        };
        let answer = if node_id == self.node.node_id() {
            self.state_hash_here(request).await
        } else {
            self.hop(node_id, Call::StateHash(request), take).await
        };
        // One that is not there any more is no fault: the shard moves.
        let unreachable =
            answer.as_ref().is_err_and(|status| status.code() == tonic::Code::Unavailable);
        let v1::StateHashResponse { index, hash } = answer.unwrap_or_default();
        compare::Replica { node_id, index, hash: hex(&hash), unreachable }
    }
}

/// Asks all replicas until those that can be reached answer for one index. Under load they seldom do at
/// first; and who has a replica is asked anew each time, since a shard may move meanwhile.
async fn compared<A: Future<Output = compare::Replica>>(
    members: impl Fn() -> Vec<NodeId>,
    ask: impl Fn(NodeId) -> A,
) -> (compare::Outcome, Vec<compare::Replica>) {
    let mut tries = 0;
    loop {
        let replicas = join_all(members().into_iter().map(&ask)).await;
        let (away, here): (Vec<_>, Vec<_>) = replicas.iter().partition(|one| one.unreachable);
        let outcome = judge(&here);
        tries += 1;
        let known = outcome != compare::Outcome::Unknown || here.is_empty();
        if known || tries == limits::COMPARE_TRIES_MAX {
            // Those that answer may differ; whether all are equal nobody can tell.
            let equal = outcome == compare::Outcome::Equal;
            let outcome =
                if equal && !away.is_empty() { compare::Outcome::Unknown } else { outcome };
            return (outcome, replicas);
        }
        tokio::time::sleep(limits::COMPARE_PAUSE).await;
    }
}

/// Replicas can be told apart only at one index.
fn judge(replicas: &[&compare::Replica]) -> compare::Outcome {
    let Some(first) = replicas.first().filter(|first| first.index > 0) else {
        return compare::Outcome::Unknown;
    };
    if replicas.iter().any(|replica| replica.index != first.index) {
        return compare::Outcome::Unknown;
    }
    if replicas.iter().all(|replica| replica.hash == first.hash) {
        compare::Outcome::Equal
    } else {
        compare::Outcome::Different
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn replica(node_id: NodeId, index: u64, hash: &str) -> compare::Replica {
        compare::Replica { node_id, index, hash: hash.into(), unreachable: false }
    }

    #[tokio::test]
    async fn a_replica_that_cannot_be_reached_is_said_at_once() {
        let asked = Cell::new(0);
        let ask = async |node_id| {
            asked.set(asked.get() + 1);
            let one = replica(node_id, 61, if node_id == 3 { "ab" } else { "aa" });
            if node_id == 2 {
                compare::Replica { unreachable: true, ..replica(2, 0, "") }
            } else {
                one
            }
        };
        let (outcome, replicas) = compared(|| vec![1, 2], ask).await;
        assert_eq!((outcome, asked.get()), (compare::Outcome::Unknown, 2));
        assert!(replicas[1].unreachable && !replicas[0].unreachable);
        let (outcome, _) = compared(|| vec![1, 2, 3], ask).await;
        assert_eq!(outcome, compare::Outcome::Different, "those that answer tell");
        assert_eq!(compared(|| vec![2], ask).await.0, compare::Outcome::Unknown);
    }

    #[tokio::test]
    async fn a_comparison_follows_a_shard_that_moves_meanwhile() {
        let moved = Cell::new(false);
        let members = || if moved.get() { vec![2, 3, 4] } else { vec![1, 2, 3] };
        // The replica on node 1 ends while it is asked.
        let ask = async |node_id| {
            moved.set(true);
            if node_id == 1 { replica(1, 0, "") } else { replica(node_id, 61, "aa") }
        };
        let (outcome, replicas) = compared(members, ask).await;
        assert_eq!(outcome, compare::Outcome::Equal);
        assert_eq!(replicas.iter().map(|one| one.node_id).collect::<Vec<_>>(), [2, 3, 4]);
    }

    #[test]
    fn replicas_are_compared_at_one_index_only() {
        let (one, two) = (replica(1, 7, "aa"), replica(2, 7, "aa"));
        assert_eq!(judge(&[&one, &replica(2, 7, "ab")]), compare::Outcome::Different);
        assert_eq!(judge(&[&one, &replica(2, 8, "ab")]), compare::Outcome::Unknown);
        assert_eq!(judge(&[&one, &two]), compare::Outcome::Equal);
        assert_eq!(judge(&[&replica(1, 0, ""), &replica(2, 0, "")]), compare::Outcome::Unknown);
        assert_eq!(judge(&[]), compare::Outcome::Unknown);
    }
}
