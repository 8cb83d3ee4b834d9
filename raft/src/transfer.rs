//! Handing leadership over: on demand, at a shutdown, and to keep leaders where they belong.
//!
//! A leader's death costs its groups an election timeout; a hand-over costs a round trip. So a node
//! that stops hands over first, and one that came back gets its share again: which groups those are
//! is a pure function of the placement, which every node has, so that nodes need not agree on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use switchboard_engine::{GroupId, META_GROUP, group_of_shard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::TransferError;
use crate::group::Group;
use crate::limits::{
    BALANCE_ENTRIES_BEHIND_MAX, BALANCE_INTERVAL, TRANSFER_LOOK_INTERVAL, TRANSFER_WAIT_MAX,
};
use crate::node::Node;
use crate::status::{GroupStatus, Role};
use crate::types::NodeId;

impl Group {
    /// Hands leadership to another voter and waits until this replica sees it lead.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), TransferError> {
        let status = self.status();
        if status.leader == Some(to) {
            return Ok(());
        }
        if status.role != Role::Leader {
            return Err(TransferError::NotLeader { leader: status.leader });
        }
        if !status.voters.contains(&to) {
            return Err(TransferError::NotVoter { node: to, voters: status.voters });
        }
        // Until the next election openraft takes nothing more once it has been told to whom.
        if !self.is_ready(to).await {
            return Err(TransferError::Refused { node: to });
        }
        let stopped = |_| TransferError::Stopped;
        self.raft().trigger().transfer_leader(to).await.map_err(stopped)?;
        let deadline = Instant::now() + TRANSFER_WAIT_MAX;
        while Instant::now() < deadline {
            if self.leader() == Some(to) {
                return Ok(());
            }
            tokio::time::sleep(TRANSFER_LOOK_INTERVAL).await;
        }
        Err(TransferError::Refused { node: to })
    }
}

impl Node {
    /// Hands over every group that this node leads, each to the voter that is furthest; what nobody
    /// takes in time is left to an election.
    pub async fn hand_over_leadership(&self) {
        let node_id = self.node_id();
        let handed = self.groups().into_iter().map(|group| async move {
            let status = group.status();
            let Some(to) = successor(node_id, &status) else { return };
            if let Err(error) = group.transfer_leader(to).await {
                tracing::warn!(group = group.id(), to, %error, "leadership was not handed over");
            }
        });
        futures::future::join_all(handed).await;
    }
}

/// Who takes over from this leader: the voter that holds most, of equals the lowest id.
fn successor(node_id: NodeId, status: &GroupStatus) -> Option<NodeId> {
    if status.role != Role::Leader {
        return None;
    }
    let matched = |voter: NodeId| {
        let found = status.replication.iter().find(|(node, _)| *node == voter);
        found.and_then(|(_, log_id)| log_id.map(|at| at.index))
    };
    let others = status.voters.iter().copied().filter(|voter| *voter != node_id);
    others.max_by_key(|voter| (matched(*voter), std::cmp::Reverse(*voter)))
}

/// Who should lead a group if no other one counted: its voters in turn.
fn preferred(group: GroupId, voters: &[NodeId]) -> Option<NodeId> {
    let mut voters = voters.to_vec();
    voters.sort_unstable();
    let turn = usize::try_from(group).ok()?.checked_rem(voters.len())?;
    voters.get(turn).copied()
}

/// Who should lead each group, so that every node leads about as many: of nodes that could take over from
/// each other, none leads two more. It begins with the voters in turn and changes as few as it can, because
/// each change is a hand-over.
fn share_out(replicas: &BTreeMap<GroupId, Vec<NodeId>>) -> BTreeMap<GroupId, NodeId> {
    let first = |(group, voters): (&GroupId, &Vec<NodeId>)| {
        preferred(*group, voters).map(|leader| (*group, leader))
    };
    let mut leaders: BTreeMap<GroupId, NodeId> = replicas.iter().filter_map(first).collect();
    let mut leads: BTreeMap<NodeId, usize> = BTreeMap::new();
    for node in replicas.values().flatten() {
        leads.entry(*node).or_default();
    }
    leaders.values().for_each(|node| *leads.entry(*node).or_default() += 1);
    // Each round makes the counts more even, so it ends.
    loop {
        let gain = |(group, leader): (&GroupId, &NodeId)| {
            let heir = *replicas[group].iter().min_by_key(|node| (leads[node], **node))?;
            let gain = leads[leader].checked_sub(leads[&heir])?;
            (gain > 1).then_some((gain, *group, heir))
        };
        let best = leaders.iter().filter_map(gain).max_by_key(|(gain, group, _)| (*gain, *group));
        let Some((_, group, heir)) = best else { return leaders };
        if let Some(before) = leaders.insert(group, heir) {
            *leads.entry(before).or_default() -= 1;
        }
        *leads.entry(heir).or_default() += 1;
    }
}

/// Who should lead each shard as the meta group has placed them.
fn leaders_by_placement(meta: &Group) -> BTreeMap<GroupId, NodeId> {
    let replicas = meta.shard().meta(|state| {
        let shards = (0..state.shards()).filter_map(|shard| {
            let replicas = state.placement().replicas(shard)?.to_vec();
            Some((group_of_shard(shard), replicas))
        });
        shards.collect()
    });
    share_out(&replicas)
}

/// The groups that this node leads and another should, with who: only to a replica that has
/// (almost) caught up, because a group without a leader waits for it. A group that is placed nowhere is led
/// by its voters in turn.
fn plan(
    node_id: NodeId,
    groups: &[GroupStatus],
    leaders: &BTreeMap<GroupId, NodeId>,
) -> Vec<(GroupId, NodeId)> {
    let leads = |status: &&GroupStatus| status.role == Role::Leader;
    let moves = groups.iter().filter(leads).filter_map(|status| {
        let placed = leaders.get(&status.group).copied();
        let to = placed.or_else(|| preferred(status.group, &status.voters));
        // While a shard moves, its voters are not yet those that it is placed on.
        let to = to.filter(|to| *to != node_id && status.voters.contains(to))?;
        let (_, matched) = status.replication.iter().find(|(node, _)| *node == to)?;
        let behind = status.last_index?.saturating_sub((*matched)?.index);
        (behind <= BALANCE_ENTRIES_BEHIND_MAX).then_some((status.group, to))
    });
    moves.collect()
}

/// Hands leaders to where they belong, one at a time, until it is stopped.
pub(crate) async fn balance(
    node_id: NodeId,
    groups: impl Fn() -> Vec<Arc<Group>> + Send,
    stop: CancellationToken,
) {
    // A transfer that was refused is not repeated at once: its target may have trouble.
    let mut pause = BALANCE_INTERVAL;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let groups = groups();
        // A leader that no majority answers does not know how far the others are.
        let has_quorum = |group: &&Arc<Group>| {
            let metrics = group.raft().metrics();
            let acked = metrics.borrow_watched().last_quorum_acked;
            acked.is_some_and(|acked| openraft::Instant::elapsed(&*acked) < Duration::from_secs(1))
        };
        let statuses: Vec<_> =
            groups.iter().filter(has_quorum).map(|group| group.status()).collect();
        pause = BALANCE_INTERVAL;
        let meta = groups.iter().find(|group| group.id() == META_GROUP);
        let leaders = meta.map(|meta| leaders_by_placement(meta)).unwrap_or_default();
        for (id, to) in plan(node_id, &statuses, &leaders) {
            let Some(group) = groups.iter().find(|group| group.id() == id) else { continue };
            match group.transfer_leader(to).await {
                Ok(()) => tracing::info!(group = id, to, "handed leadership to where it belongs"),
                Err(error) => {
                    tracing::info!(group = id, to, %error, "leadership stays");
                    pause = 4 * BALANCE_INTERVAL;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use switchboard_engine::LogId;

    use super::*;
    use crate::proposer::ProposerStats;

    fn leading(group: GroupId, matched: &[(NodeId, u64)]) -> GroupStatus {
        GroupStatus {
            group,
            role: Role::Leader,
            term: 1,
            leader: Some(1),
            voters: vec![1, 2, 3],
            learners: Vec::new(),
            last_index: Some(1_000),
            committed: None,
            applied: None,
            checkpoint: None,
            purged: None,
            log_bytes: 0,
            log_time_ms: 0,
            clock_alarms: 0,
            clock_leaping: false,
            proposer: ProposerStats::default(),
            replication: matched
                .iter()
                .map(|(node, index)| (*node, Some(LogId { term: 1, index: *index })))
                .collect(),
        }
    }

    #[test]
    fn every_node_leads_as_many_groups() {
        let mut leads = [0; 4];
        for group in 1..=16 {
            leads[preferred(group, &[3, 1, 2]).unwrap() as usize] += 1;
        }
        assert_eq!(leads, [0, 5, 6, 5]);
        assert_eq!(preferred(1, &[]), None);
    }

    /// Three of five nodes have each shard, as after moves.
    #[test]
    fn leaders_are_shared_out_whatever_the_placement() {
        let mut random = switchboard_engine::fs::sim::Random::new(7);
        for _ in 0..200 {
            let replicas: BTreeMap<GroupId, Vec<NodeId>> = (1..=16)
                .map(|group| {
                    let mut nodes: Vec<NodeId> = (1..=5).collect();
                    while nodes.len() > 3 {
                        nodes.remove(random.below(nodes.len() as u64) as usize);
                    }
                    (group, nodes)
                })
                .collect();
            let leaders = share_out(&replicas);
            assert_eq!(leaders.len(), 16);
            let leads = |node: &NodeId| leaders.values().filter(|leader| *leader == node).count();
            for (group, leader) in &leaders {
                let fewest = replicas[group].iter().map(leads).min().unwrap();
                assert!(leads(leader) <= fewest + 1, "{replicas:?} {leaders:?}");
            }
        }
    }

    #[test]
    fn leaders_move_only_to_where_they_belong_and_to_who_has_caught_up() {
        let caught_up = [(1, 1_000), (2, 1_000), (3, 1_000)];
        let statuses: Vec<_> = (1..=6).map(|group| leading(group, &caught_up)).collect();
        let plan = |statuses: &[GroupStatus]| plan(1, statuses, &BTreeMap::new());
        assert_eq!(plan(&statuses), [(1, 2), (2, 3), (4, 2), (5, 3)]);
        let behind = [(1, 1_000), (2, 3), (3, 1_000)];
        let statuses: Vec<_> = (1..=6).map(|group| leading(group, &behind)).collect();
        assert_eq!(plan(&statuses), [(2, 3), (5, 3)]);
        let followed = GroupStatus { role: Role::Follower, ..leading(1, &caught_up) };
        assert_eq!(plan(&[followed]), []);
    }

    #[test]
    fn the_voter_that_holds_most_takes_over() {
        assert_eq!(successor(1, &leading(1, &[(1, 1_000), (2, 7), (3, 8)])), Some(3));
        assert_eq!(successor(1, &leading(1, &[(2, 8), (3, 8)])), Some(2));
    }
}
