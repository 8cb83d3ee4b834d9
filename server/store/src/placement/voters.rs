//! Who is in the meta group, and who votes there.
//!
//! Every node has a replica of it. Up to five vote, an odd number of them where there are more than two,
//! for an even number survives no more failures than one less. Who is drained gives its vote up, and
//! nobody is removed who has one: a node that is removed is not talked to any more, so it could not
//! agree to its own going.

use std::collections::BTreeSet;

use switchboard_engine::NodeState;
use switchboard_raft::NodeId;
use tonic::Status;

use crate::{
    errors,
    limits::{CATCH_UP_ENTRIES_MAX, META_VOTERS_MAX},
    service::Service,
};

impl Service {
    /// Gives every node a replica of the meta group, and the right ones a vote; one step at a time.
    pub(crate) async fn settle_meta(&self) {
        let meta = self.node.meta();
        let status = meta.status();
        let voters: BTreeSet<NodeId> = status.voters.iter().copied().collect();
        let (staying, drained): (Vec<NodeId>, Vec<NodeId>) = meta.shard().meta(|state| {
            let drains = |node: &NodeId| state.placement().role(*node).state == NodeState::Draining;
            let ids = state.nodes().map(|node| node.node_id);
            let nodes = ids.filter(|node| !state.placement().is_returning(*node));
            nodes.partition(|node| !drains(node))
        });
        let is_node = |node: &NodeId| staying.contains(node) || drained.contains(node);
        let known = |node: &NodeId| voters.contains(node) || status.learners.contains(node);
        let changed = if let Some(new) = staying.iter().chain(&drained).find(|node| !known(node)) {
            meta.add_learner(*new).await
        } else if let Some(gone) = status.learners.iter().find(|node| !is_node(node)) {
            meta.remove_learner(*gone).await
        } else {
            let mut candidates = if staying.is_empty() { drained } else { staying };
            if wanted(&voters, &candidates) == voters {
                return;
            }
            // Where fewer are to vote, those who answer do.
            let silent = self.silent(candidates.clone()).await;
            candidates.sort_by_key(|node| silent.contains(node));
            let wanted = wanted(&voters, &candidates);
            let ready = |node: &NodeId| {
                voters.contains(node)
                    || meta.catch_up(*node).is_some_and(|far| far.is_near(CATCH_UP_ENTRIES_MAX))
            };
            if wanted.is_empty() || !wanted.iter().all(ready) {
                return;
            }
            if !wanted.contains(&self.node.node_id()) {
                // Who leads hands over before it leaves.
                return self.hand_meta_over(&wanted).await;
            }
            meta.change_voters(&wanted).await
        };
        if let Err(error) = changed {
            tracing::info!(%error, "the members of the meta group do not change yet");
        }
    }

    async fn hand_meta_over(&self, wanted: &BTreeSet<NodeId>) {
        let meta = self.node.meta();
        let voters = meta.status().voters;
        for heir in wanted.iter().filter(|node| voters.contains(node)) {
            match meta.transfer_leader(*heir).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::info!(heir, %error, "the meta group was not handed over yet")
                }
            }
        }
    }

    /// Takes the vote of a node that is to be removed, on the leader of the meta group.
    pub(super) async fn take_meta_vote(&self, node_id: NodeId) -> Result<(), Status> {
        let meta = self.node.meta();
        let mut voters: BTreeSet<NodeId> = meta.status().voters.into_iter().collect();
        if !voters.remove(&node_id) {
            return Ok(());
        }
        if node_id == self.node.node_id() {
            self.hand_meta_over(&voters).await;
            return Err(errors::not_yet("the node that is to be removed led the meta group"));
        }
        meta.change_voters(&voters).await.map_err(|error| {
            let message = format!(
                "node {node_id} votes in the meta group, and its vote cannot be taken: {error}. A majority of \
                 nodes {voters:?} must answer, and with few nodes node {node_id} too"
            );
            errors::placement("VOTES", message)
        })
    }
}

/// The voters that the meta group should have. Who votes keeps its vote, as long as it is among the candidates.
fn wanted(voters: &BTreeSet<NodeId>, candidates: &[NodeId]) -> BTreeSet<NodeId> {
    let count = match candidates.len().min(META_VOTERS_MAX) {
        even @ (4 | 6 | 8) => even - 1,
        count => count,
    };
    let keep = candidates.iter().filter(|node| voters.contains(node));
    let others = candidates.iter().filter(|node| !voters.contains(node));
    keep.chain(others).take(count).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_five_vote_and_who_votes_goes_on() {
        let wanted = |voters: &[NodeId], nodes: &[NodeId]| {
            wanted(&voters.iter().copied().collect(), nodes).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(wanted(&[1], &[1]), [1]);
        assert_eq!(wanted(&[1, 2, 3], &[1, 2, 3, 4]), [1, 2, 3]);
        assert_eq!(wanted(&[1, 2, 3], &[1, 2, 3, 4, 5]), [1, 2, 3, 4, 5]);
        assert_eq!(wanted(&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5, 6, 7]), [1, 2, 3, 4, 5]);
        assert_eq!(wanted(&[1, 2, 3, 4, 5], &[2, 3, 4, 5, 6, 7]), [2, 3, 4, 5, 6]);
        assert_eq!(wanted(&[1, 2, 3], &[2, 3, 4]), [2, 3, 4]);
        assert_eq!(wanted(&[1, 2, 3], &[2, 3]), [2, 3]);
    }
}
