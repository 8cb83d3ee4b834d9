//! Handing leadership over: on demand, at a shutdown, and to keep leaders where they belong.
//!
//! A leader's death costs its groups an election timeout; a hand-over costs a round trip. So a node
//! that stops hands over first, and one that came back gets its share again: which groups those are
//! is a pure function of the voters, so that nodes need not agree on it.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use switchboard_engine::GroupId;
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

/// Who should lead a group: its voters in turn, so that every node leads as many.
fn preferred(group: GroupId, voters: &[NodeId]) -> Option<NodeId> {
    let mut voters = voters.to_vec();
    voters.sort_unstable();
    let turn = usize::try_from(group).ok()?.checked_rem(voters.len())?;
    voters.get(turn).copied()
}

/// The groups that this node leads and another should, with who: only to a replica that has
/// (almost) caught up, because a group without a leader waits for it.
fn plan(node_id: NodeId, groups: &[GroupStatus]) -> Vec<(GroupId, NodeId)> {
    let leads = |status: &&GroupStatus| status.role == Role::Leader;
    let moves = groups.iter().filter(leads).filter_map(|status| {
        let to = preferred(status.group, &status.voters).filter(|to| *to != node_id)?;
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
        for (id, to) in plan(node_id, &statuses) {
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

    #[test]
    fn leaders_move_only_to_where_they_belong_and_to_who_has_caught_up() {
        let caught_up = [(1, 1_000), (2, 1_000), (3, 1_000)];
        let statuses: Vec<_> = (1..=6).map(|group| leading(group, &caught_up)).collect();
        assert_eq!(plan(1, &statuses), [(1, 2), (2, 3), (4, 2), (5, 3)]);
        let behind = [(1, 1_000), (2, 3), (3, 1_000)];
        let statuses: Vec<_> = (1..=6).map(|group| leading(group, &behind)).collect();
        assert_eq!(plan(1, &statuses), [(2, 3), (5, 3)]);
        let followed = GroupStatus { role: Role::Follower, ..leading(1, &caught_up) };
        assert_eq!(plan(1, &[followed]), []);
    }

    #[test]
    fn the_voter_that_holds_most_takes_over() {
        assert_eq!(successor(1, &leading(1, &[(1, 1_000), (2, 7), (3, 8)])), Some(3));
        assert_eq!(successor(1, &leading(1, &[(2, 8), (3, 8)])), Some(2));
    }
}
