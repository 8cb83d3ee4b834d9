//! One step of a move, on the node that leads the shard. It looks at the group itself for what is done, so
//! it can be asked for as often as anybody likes.

use std::collections::BTreeSet;

use switchboard_api::v1::{self, MoveStep};
use switchboard_engine::group_of_shard;
use switchboard_raft::{Group, MembershipError, NodeId};
use tonic::Status;

use crate::{
    errors,
    limits::{CATCH_UP_ENTRIES_MAX, HAND_OVER_ENTRIES_MAX},
    service::Service,
};

type Step = Result<v1::AdvanceMoveResponse, String>;

impl Service {
    /// Takes the next step that is allowed, if this node leads the shard.
    pub(crate) async fn advance_move_here(
        &self,
        request: v1::AdvanceMoveRequest,
    ) -> Result<v1::AdvanceMoveResponse, Status> {
        let group = self.node.group(group_of_shard(request.shard));
        let group = group.filter(|group| group.is_leader());
        let group = group.ok_or_else(|| errors::no_leader(request.shard))?;
        let step = if request.abort {
            self.undo(&group, request.to_node_id).await
        } else {
            self.step(&group, &request).await
        };
        let blocked = |blocked| v1::AdvanceMoveResponse {
            blocked,
            step: request.allowed,
            ..at(MoveStep::MoveWaiting)
        };
        Ok(step.unwrap_or_else(blocked))
    }

    async fn step(&self, group: &Group, request: &v1::AdvanceMoveRequest) -> Step {
        let v1::AdvanceMoveRequest { from_node_id: from, to_node_id: to, .. } = *request;
        let allowed = request.allowed();
        let voters: BTreeSet<NodeId> = group.status().voters.into_iter().collect();
        if to != 0 && !voters.contains(&to) {
            return self.bring_in(group, allowed, to, voters).await;
        }
        if from != 0 && voters.contains(&from) {
            return self.take_out(group, allowed, from, to, voters).await;
        }
        // A change that was cut short in the midst is ended; one that is through stays as it is.
        group.end_change().await.map_err(|error| error.to_string())?;
        let unaware = group.voters_unaware();
        if !unaware.is_empty() {
            let blocked = format!("nodes {unaware:?} have not heard yet that the replicas changed");
            return Ok(v1::AdvanceMoveResponse { blocked, ..at(MoveStep::MoveRemoving) });
        }
        Ok(v1::AdvanceMoveResponse { done: true, ..at(MoveStep::MoveRemoving) })
    }

    /// Feeds the new replica until it has almost everything, then gives it a vote.
    async fn bring_in(
        &self,
        group: &Group,
        allowed: MoveStep,
        to: NodeId,
        mut voters: BTreeSet<NodeId>,
    ) -> Step {
        let Some(progress) = group.catch_up(to) else {
            group.add_learner(to).await.map_err(|error| error.to_string())?;
            return Ok(at(MoveStep::MoveCatchingUp));
        };
        let has_caught_up = progress.is_near(CATCH_UP_ENTRIES_MAX);
        if !has_caught_up {
            return Ok(v1::AdvanceMoveResponse {
                matched_index: progress.matched.unwrap_or(0),
                last_index: progress.last,
                snapshot_bytes: self.peers.snapshot_bytes(to, group.id()),
                ..at(MoveStep::MoveCatchingUp)
            });
        }
        if allowed < MoveStep::MoveChanging {
            return Ok(at(MoveStep::MoveChanging));
        }
        voters.insert(to);
        match group.change_voters(&voters).await {
            Ok(()) => Ok(at(MoveStep::MoveHandingOver)),
            Err(MembershipError::TooNew { .. }) => Ok(at(MoveStep::MoveCatchingUp)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes the old replica out; its leader hands over first, so that nobody waits for an election.
    async fn take_out(
        &self,
        group: &Group,
        allowed: MoveStep,
        from: NodeId,
        to: NodeId,
        mut voters: BTreeSet<NodeId>,
    ) -> Step {
        voters.remove(&from);
        let next = if from == self.node.node_id() {
            MoveStep::MoveHandingOver
        } else {
            MoveStep::MoveRemoving
        };
        if allowed < next {
            return Ok(at(next));
        }
        if from == self.node.node_id() {
            hand_over(group, to, &voters).await?;
            return Ok(at(MoveStep::MoveRemoving));
        }
        let is_current = |node: &NodeId| {
            group.catch_up(*node).is_some_and(|progress| progress.is_near(CATCH_UP_ENTRIES_MAX))
        };
        let (current, behind): (Vec<NodeId>, Vec<NodeId>) =
            voters.iter().copied().partition(is_current);
        if current.len() <= voters.len() / 2 {
            return Err(format!(
                "nodes {behind:?} are too far behind to go on without node {from}"
            ));
        }
        group.change_voters(&voters).await.map_err(|error| error.to_string())?;
        Ok(at(MoveStep::MoveRemoving))
    }

    /// Lets the new replica go. It has no vote yet, unless its disk was lost and found again before it was taken out.
    async fn undo(&self, group: &Group, to: NodeId) -> Step {
        let mut voters: BTreeSet<NodeId> = group.status().voters.into_iter().collect();
        let undone = match to {
            0 => Ok(()),
            _ if !voters.remove(&to) => group.remove_learner(to).await,
            _ if to == self.node.node_id() => {
                hand_over(group, 0, &voters).await?;
                return Ok(at(MoveStep::MoveCatchingUp));
            }
            _ => group.change_voters(&voters).await,
        };
        undone.map_err(|error| error.to_string())?;
        Ok(v1::AdvanceMoveResponse { done: true, ..at(MoveStep::MoveCatchingUp) })
    }
}

/// Hands the leadership of a shard to one of these: to the replica that is preferred if it has nearly everything,
/// else to the one that lacks least.
async fn hand_over(
    group: &Group,
    preferred: NodeId,
    voters: &BTreeSet<NodeId>,
) -> Result<(), String> {
    // The shard waits until its next leader has every entry, so who lacks more than is under way does not become it.
    let lacks = |node: &NodeId| match group.catch_up(*node) {
        Some(progress) if progress.matched.is_some() => progress.behind(),
        _ => u64::MAX,
    };
    let is_near = voters.contains(&preferred) && lacks(&preferred) <= HAND_OVER_ENTRIES_MAX;
    let first = || voters.iter().copied().min_by_key(|node| (lacks(node), *node));
    let heir = is_near.then_some(preferred).or_else(first);
    let heir = heir.ok_or_else(|| "no other replica is left".to_owned())?;
    group.transfer_leader(heir).await.map_err(|error| error.to_string())
}

fn at(step: MoveStep) -> v1::AdvanceMoveResponse {
    v1::AdvanceMoveResponse { step: step.into(), ..Default::default() }
}
