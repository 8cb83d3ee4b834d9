//! A node that lost its disk comes back with another one.
//!
//! ```text
//!  ReadmitNode ─▶ each leader takes the node out of its group ─▶ every voter of every group knows that
//!      ─▶ meta's leader records the disk ─▶ peers talk to the node ─▶ each leader takes it in again,
//!         without a vote, then, when it has caught up, with one
//! ```
//! What the node has promised and stored is gone, so nobody may go on counting on it: as long as its old disk
//! is recorded the transport lets nothing through to it, and a leader that still knew how far the old replica
//! was would take the empty one for a broken log. That is why it leaves every group first. All of it is in
//! replicated state, so whoever leads carries on.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use switchboard_engine::command::ReadmitNode;
use switchboard_engine::{Command, META_GROUP, group_of_shard};
use tokio_util::sync::CancellationToken;

use crate::error::MembershipError;
use crate::group::Group;
use crate::limits::{READMIT_ENTRIES_BEHIND_MAX, READMIT_LOOK_INTERVAL};
use crate::node::{Inner, Node};
use crate::status::{GroupStatus, Role};
use crate::types::NodeId;

/// The next change of a group's members.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Voters(BTreeSet<NodeId>),
    AddLearner(NodeId),
    RemoveLearner(NodeId),
}

/// Looks after the groups that this node leads until it is stopped.
pub(crate) async fn run(inner: Weak<Inner>, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(READMIT_LOOK_INTERVAL) => {}
        }
        let Some(inner) = inner.upgrade() else { return };
        let node = Node { inner };
        let groups = node.groups();
        let settled = groups.iter().filter(|group| group.is_leader()).map(|g| node.settle(g));
        let looked = async {
            futures::future::join_all(settled).await;
            node.end_readmissions().await;
        };
        // A change that is cut short is made by whoever looks next.
        let _ = stop.run_until_cancelled(looked).await;
    }
}

/// What is wrong with the members of a group, if anything: `gone` must not be among them, `replicas` must vote.
fn next_change(
    status: &GroupStatus,
    gone: &BTreeSet<NodeId>,
    replicas: &[NodeId],
) -> Option<Change> {
    let voters: BTreeSet<NodeId> = status.voters.iter().copied().collect();
    if !voters.is_disjoint(gone) {
        let stay: BTreeSet<NodeId> = voters.difference(gone).copied().collect();
        // A group that lived on the lost disks alone has nobody who could take them out.
        return (!stay.is_empty()).then_some(Change::Voters(stay));
    }
    if let Some(learner) = status.learners.iter().find(|learner| gone.contains(learner)) {
        return Some(Change::RemoveLearner(*learner));
    }
    let missing = replicas.iter().find(|node| !voters.contains(node) && !gone.contains(node))?;
    if !status.learners.contains(missing) {
        return Some(Change::AddLearner(*missing));
    }
    let (_, matched) = status.replication.iter().find(|(node, _)| node == missing)?;
    let behind = status.last_index?.saturating_sub((*matched)?.index);
    (behind <= READMIT_ENTRIES_BEHIND_MAX)
        .then(|| Change::Voters(voters.into_iter().chain([*missing]).collect()))
}

impl Node {
    /// Takes one step towards what a group's members should be. A shard that is being moved is left to
    /// that, but for nodes that must not be members.
    async fn settle(&self, group: &Arc<Group>) {
        let id = group.id();
        let (gone, replicas) = self.meta().shard().meta(|meta| {
            let placement = meta.placement();
            let gone: BTreeSet<NodeId> = placement.returning().map(|(node, _)| node).collect();
            let shard = id.checked_sub(group_of_shard(0));
            let shard = shard.filter(|shard| placement.move_of(*shard).is_none());
            let replicas = shard.and_then(|shard| placement.replicas(shard));
            (gone, replicas.map(<[NodeId]>::to_vec).unwrap_or_default())
        });
        let status = group.status();
        if status.role != Role::Leader {
            return;
        }
        let Some(change) = next_change(&status, &gone, &replicas) else { return };
        let made = match &change {
            Change::Voters(voters) => group.change_voters(voters).await,
            Change::AddLearner(node) => group.add_learner(*node).await,
            Change::RemoveLearner(node) => group.remove_learner(*node).await,
        };
        match made {
            Ok(()) => tracing::info!(group = id, ?change, "the members of a group have changed"),
            Err(MembershipError::InProgress) => {}
            Err(error) => tracing::warn!(group = id, ?change, %error, "members do not change yet"),
        }
    }

    /// Records the new disks of nodes that nobody counts on any more, if this node leads the meta group.
    async fn end_readmissions(&self) {
        if !self.meta().is_leader() {
            return;
        }
        let returning: Vec<_> =
            self.meta().shard().meta(|meta| meta.placement().returning().collect());
        for (node_id, disk_id) in returning {
            if self.is_forgotten_everywhere(node_id).await {
                let end = ReadmitNode { node_id, disk_id, is_forgotten: true };
                let proposed = self.meta().propose(vec![Command::ReadmitNode(end)]);
                if let Ok(proposed) = proposed
                    && proposed.await.is_ok()
                {
                    tracing::info!(node_id, "a node that lost its disk is taken in again");
                }
            }
        }
    }

    async fn is_forgotten_everywhere(&self, node: NodeId) -> bool {
        let shards = (0..self.shard_count().unwrap_or(0)).map(group_of_shard);
        for group in std::iter::once(META_GROUP).chain(shards) {
            if !self.is_forgotten(group, node).await {
                tracing::debug!(group, node, "a lost disk is still counted on");
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use switchboard_engine::LogId;

    use super::*;
    use crate::transfer::tests::leading;

    fn status(voters: &[NodeId], learners: &[NodeId], matched: &[(NodeId, u64)]) -> GroupStatus {
        let (voters, learners) = (voters.to_vec(), learners.to_vec());
        GroupStatus { voters, learners, ..leading(1, matched) }
    }

    fn voters(nodes: &[NodeId]) -> Option<Change> {
        Some(Change::Voters(nodes.iter().copied().collect()))
    }

    #[test]
    fn a_lost_disk_leaves_and_comes_back_step_by_step() {
        let (none, lost) = (BTreeSet::new(), BTreeSet::from([3]));
        let all = [1, 2, 3];
        assert_eq!(next_change(&status(&all, &[], &[]), &none, &all), None);
        assert_eq!(next_change(&status(&all, &[], &[]), &lost, &all), voters(&[1, 2]));
        let learner = status(&[1, 2], &[3], &[]);
        assert_eq!(next_change(&learner, &lost, &all), Some(Change::RemoveLearner(3)));
        assert_eq!(next_change(&status(&[1, 2], &[], &[]), &lost, &all), None, "out for now");
        let out = status(&[1, 2], &[], &[]);
        assert_eq!(next_change(&out, &none, &all), Some(Change::AddLearner(3)));
        assert_eq!(next_change(&out, &none, &[]), None, "nothing says that it belongs here");
        let unheard = status(&[1, 2], &[3], &[]);
        assert_eq!(next_change(&unheard, &none, &all), None);
        let behind = status(&[1, 2], &[3], &[(3, 1)]);
        assert_eq!(next_change(&behind, &none, &all), None);
        let caught_up = status(&[1, 2], &[3], &[(3, 1_000)]);
        assert_eq!(next_change(&caught_up, &none, &all), voters(&all));
    }

    #[test]
    fn what_lived_on_lost_disks_alone_is_left_as_it_is() {
        let lost = BTreeSet::from([1]);
        assert_eq!(next_change(&status(&[1], &[], &[]), &lost, &[1]), None);
    }

    #[test]
    fn an_entry_that_is_not_known_to_be_held_is_lacked() {
        let mut unknown = status(&[1, 2], &[3], &[]);
        unknown.replication = vec![(3, None), (2, Some(LogId { term: 1, index: 5 }))];
        assert_eq!(next_change(&unknown, &BTreeSet::new(), &[1, 2, 3]), None);
    }
}
