//! What an operator does to a cluster, for simulations.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use switchboard_engine::GroupId;
use tokio::time::sleep;

use crate::checkpointer::checkpoint;
use crate::error::MembershipError;
use crate::group::Group;
use crate::node::Node;
use crate::types::{NodeId, to_engine};

/// How often it is looked whether a new replica has caught up: longer than a heartbeat takes.
const CATCH_UP_LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Looks before the change is given up.
const CATCH_UP_LOOKS_MAX: u32 = 20;
/// Entries that it may lack.
const CATCH_UP_ENTRIES_MAX: u64 = 16;

/// Opens a group that the node's log may know nothing of.
pub async fn open_group(node: &Node, id: GroupId) -> Option<Arc<Group>> {
    node.ensure_group(id).await.ok()
}

/// Drops the replica of a group if nobody counts on it, and opens a new one in its place. Whether it was
/// dropped.
pub async fn renew(node: &Node, id: GroupId) -> bool {
    let dropped = node.drop_if_forgotten(id).await;
    // It fails when the disk does.
    let _ = node.ensure_group(id).await;
    dropped
}

/// Begins a group with these voters; to be done on each of them. False if it has begun already or cannot.
pub async fn form(group: &Group, voters: BTreeSet<NodeId>) -> bool {
    group.begin(voters).await.is_ok()
}

/// Adds a replica that does not vote, and waits until it has what the others have.
pub async fn add_learner(group: &Group, id: NodeId) -> bool {
    if group.add_learner(id).await.is_err() {
        return false;
    }
    for _ in 0..CATCH_UP_LOOKS_MAX {
        sleep(CATCH_UP_LOOK_INTERVAL).await;
        let progress = group.catch_up(id);
        if progress.is_some_and(|p| p.matched.is_some() && p.behind() <= CATCH_UP_ENTRIES_MAX) {
            return true;
        }
    }
    false
}

/// Changes the voters, over a joint configuration, and waits until it is done. Who leaves goes.
pub async fn change_voters(group: &Group, voters: BTreeSet<NodeId>) -> bool {
    for _ in 0..CATCH_UP_LOOKS_MAX {
        match group.change_voters(&voters).await {
            // It hears with the next heartbeat what is committed, and is new no more then.
            Err(MembershipError::TooNew { .. }) => sleep(CATCH_UP_LOOK_INTERVAL).await,
            changed => return changed.is_ok(),
        }
    }
    false
}

/// Who is in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Who has a replica and does not vote.
    pub learners: BTreeSet<NodeId>,
}

/// Who is in a group, if no change of it is half done or uncommitted.
pub fn settled_members(group: &Group) -> Option<Members> {
    let upto = group.status().committed;
    let metrics = group.raft().metrics();
    let metrics = metrics.borrow_watched();
    let membership = &metrics.membership_config;
    let committed = membership.log_id().as_ref().map(to_engine) <= upto;
    let settled = committed && membership.membership().get_joint_config().len() == 1;
    settled.then(|| Members {
        voters: membership.membership().voter_ids().collect(),
        learners: membership.membership().learner_ids().collect(),
    })
}

/// Ends a change of voters that was begun by somebody who is gone.
pub async fn end_change(group: &Group) -> bool {
    group.end_change().await.is_ok()
}

/// Takes a node out, whether it votes or not.
pub async fn remove(group: &Group, id: NodeId) -> bool {
    group.remove_voters(&BTreeSet::from([id])).await.is_ok()
        && group.remove_learner(id).await.is_ok()
}

/// Hands leadership over. Returns when it is under way.
pub async fn transfer_leader(group: &Group, to: NodeId) -> bool {
    group.raft().trigger().transfer_leader(to).await.is_ok()
}

/// Has the replica stand for election, whatever it heard.
pub async fn stand(group: &Group) -> bool {
    group.raft().trigger().elect(false).await.is_ok()
}

/// Takes a checkpoint and purges the log up to it, also on a group that others replicate.
pub async fn checkpoint_and_purge(group: &Arc<Group>) -> bool {
    checkpoint(group, true).await.is_some()
}

/// Why openraft has stopped the replica, if it has.
pub fn stopped_by(group: &Group) -> Option<String> {
    let metrics = group.raft().metrics();
    let running = metrics.borrow_watched().running_state.clone();
    // A panic leaves the last metrics as they were.
    let panicked = metrics.is_closed().then(|| "a panic".to_owned());
    running.err().map(|error| error.to_string()).or(panicked)
}
