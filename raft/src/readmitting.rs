//! A node that lost its disk comes back with another one.
//!
//! ```text
//!  ReadmitNode ─▶ each leader takes the node out of its group ─▶ every voter of every group knows that
//!      ─▶ meta's leader records the disk, and moves begin that give it its replicas back
//! ```
//! What the node has promised and stored is gone, so nobody may go on counting on it: as long as its old disk
//! is recorded the transport lets nothing through to it, and a leader that still knew how far the old replica
//! was would take the empty one for a broken log. That is why it leaves every group first. All of it is in
//! replicated state, so whoever leads carries on; so does a leader with a change of voters that it finds half
//! done, whose maker may be gone.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use switchboard_engine::command::ReadmitNode;
use switchboard_engine::{Command, META_GROUP, MetaState, Reply, Status, group_of_shard};
use tokio_util::sync::CancellationToken;

use crate::error::MembershipError;
use crate::group::Group;
use crate::limits::READMIT_LOOK_INTERVAL;
use crate::node::{Inner, Node};
use crate::types::NodeId;

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
        let led = groups.iter().filter(|group| group.is_leader()).map(|group| async {
            end_change(group).await;
            node.take_out_gone(group).await;
        });
        let looked = async {
            futures::future::join_all(led).await;
            node.end_readmissions().await;
        };
        // A change that is cut short is made by whoever looks next.
        let _ = stop.run_until_cancelled(looked).await;
    }
}

/// Ends a change of voters that was left half done. Whoever makes one holds `changing`, so there is none here.
async fn end_change(group: &Group) {
    if group.changing.try_lock().is_err() || !group.is_changing_members().await {
        return;
    }
    match group.end_change().await {
        Ok(()) => tracing::info!(group = group.id(), "ended a change of voters"),
        Err(MembershipError::InProgress) => {}
        Err(error) => {
            tracing::warn!(group = group.id(), %error, "a change of voters stays half done");
        }
    }
}

impl Node {
    /// Takes a node that nobody may count on out of a group, learners as well: how far one was is forgotten
    /// with it.
    async fn take_out_gone(&self, group: &Arc<Group>) {
        // What is applied here of a placement may be old: the node may be whole again.
        let limit_ms = READMIT_LOOK_INTERVAL.as_millis();
        if self.meta().staleness().ms.is_none_or(|ms| u128::from(ms) > limit_ms) {
            return;
        }
        let returning = |meta: &MetaState| meta.placement().returning().map(|one| one.0).collect();
        let gone: BTreeSet<NodeId> = self.meta().shard().meta(returning);
        let status = group.status();
        let taken_out = if status.voters.iter().any(|voter| gone.contains(voter)) {
            group.remove_voters(&gone).await
        } else if let Some(learner) = status.learners.iter().find(|node| gone.contains(node)) {
            group.remove_learner(*learner).await
        } else {
            return;
        };
        match taken_out {
            Ok(()) => tracing::info!(group = group.id(), ?gone, "lost disks left a group"),
            Err(MembershipError::InProgress) => {}
            Err(error) => {
                tracing::warn!(group = group.id(), ?gone, %error, "lost disks stay in a group");
            }
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
                let Ok(proposed) = proposed else { continue };
                match proposed.await.as_deref() {
                    Ok([Reply::Done(Status::Ok)]) => {
                        tracing::info!(node_id, "a node that lost its disk is taken in again");
                    }
                    other => {
                        tracing::info!(
                            node_id,
                            ?other,
                            "a lost disk waits for moves of its shards"
                        );
                    }
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
