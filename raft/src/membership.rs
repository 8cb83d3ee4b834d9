//! Who is a member of a group, changed one step at a time.
//!
//! ```text
//!  add_learner ─▶ catch_up: entries, or a snapshot ─▶ change_voters: joint, then the new ones alone
//!  remove_learner ◀─ (undone before the voters changed)
//! ```
//! Each step looks first whether it is done, so whoever was cut short repeats it. There is one change of a
//! group under way at a time, on this replica by a lock and over replicas by openraft, which refuses a
//! change before the one before it is committed.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, RaftState};
use tokio::time::timeout;

use crate::barrier::Consistency;
use crate::error::MembershipError;
use crate::group::Group;
use crate::limits::{IS_NEW_WAIT_MAX, MEMBERSHIP_WAIT_MAX};
use crate::network::{PeerRequest, PeerResponse};
use crate::planted::{self, PlantedBug};
use crate::status::Role;
use crate::types::{NodeId, TypeConfig};

/// How far a replica is, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// Index of the last entry that it is known to hold; none if it holds nothing that is known.
    pub matched: Option<u64>,
    /// Index of the leader's last entry.
    pub last: u64,
}

impl CatchUp {
    /// Entries that it lacks.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.last.saturating_sub(self.matched.unwrap_or(0))
    }

    /// Whether it holds all but so many entries. One that never answered does not, however few there are.
    #[must_use]
    pub fn is_near(&self, entries_max: u64) -> bool {
        self.matched.is_some() && self.behind() <= entries_max
    }
}

type ChangeError = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

impl Group {
    /// Lets a node get the entries of this group, without a vote; it need not answer yet.
    pub async fn add_learner(&self, node: NodeId) -> Result<(), MembershipError> {
        self.change(|members| {
            (!members.nodes.contains(&node))
                .then(|| ChangeMembers::AddNodes(BTreeMap::from([(node, ())])))
        })
        .await
    }

    /// Ends the replica of a node that has no vote.
    pub async fn remove_learner(&self, node: NodeId) -> Result<(), MembershipError> {
        self.change(|members| {
            (members.nodes.contains(&node) && !members.voters.contains(&node))
                .then(|| ChangeMembers::RemoveNodes(BTreeSet::from([node])))
        })
        .await
    }

    /// Takes these nodes out of the voters, and out of the group, whoever else votes when it comes to that.
    pub(crate) async fn remove_voters(
        &self,
        gone: &BTreeSet<NodeId>,
    ) -> Result<(), MembershipError> {
        self.change(|members| {
            let stay: BTreeSet<NodeId> = members.voters.difference(gone).copied().collect();
            // A group that lived on them alone has nobody who could take them out.
            (stay.len() < members.voters.len() && !stay.is_empty())
                .then_some(ChangeMembers::ReplaceAllVoters(stay))
        })
        .await
    }

    /// Makes these nodes, which must be learners or voters, the voters; those that voted and are not
    /// named leave the group. It is through when the new voters alone decide. A learner that is too new to
    /// vote makes no voter, and voters of which no majority answers are not made: a group that counted on them
    /// would stand still, with a change under way that nothing takes back.
    pub async fn change_voters(&self, voters: &BTreeSet<NodeId>) -> Result<(), MembershipError> {
        if voters.is_empty() {
            return Err(MembershipError::Refused { reason: "no voters are named".to_owned() });
        }
        let known = self.raft().with_raft_state(Members::of).await;
        let known = known.map_err(|_| MembershipError::Stopped)?;
        // That the new voters agree would hide what comes of a joint step that is skipped.
        let is_asked = |node: &NodeId| {
            !known.voters.contains(node) || !planted::is(PlantedBug::SkippedJointStep)
        };
        let others = voters.iter().copied().filter(|node| *node != self.node_id());
        let asked = others
            .filter(is_asked)
            .map(|node| async move { (!self.is_ready(node).await).then_some(node) });
        let silent: Vec<NodeId> = join_all(asked).await.into_iter().flatten().collect();
        if let Some(node) = silent.iter().copied().find(|node| !known.voters.contains(node)) {
            return Err(MembershipError::TooNew { node });
        }
        if silent.len() * 2 >= voters.len() {
            let voters = voters.iter().copied().collect();
            return Err(MembershipError::Silent { silent, voters });
        }
        self.change(|members| {
            (members.is_joint || members.voters != *voters)
                .then(|| ChangeMembers::ReplaceAllVoters(voters.clone()))
        })
        .await
    }

    /// Whether a node's replica answers, and would vote.
    pub(crate) async fn is_ready(&self, node: NodeId) -> bool {
        let asked = self.transport.call(node, self.id(), PeerRequest::IsNew, IS_NEW_WAIT_MAX);
        matches!(asked.await, Ok(PeerResponse::IsNew { is_new: false }))
    }

    /// Ends a change of the voters that another leader left half done.
    pub async fn end_change(&self) -> Result<(), MembershipError> {
        self.change(|members| {
            let target = || ChangeMembers::ReplaceAllVoters(members.next_voters.clone());
            members.is_joint.then(target)
        })
        .await
    }

    /// How far the replica of a member is; none if this replica does not lead, or knows no such member.
    #[must_use]
    pub fn catch_up(&self, node: NodeId) -> Option<CatchUp> {
        let status = self.status();
        if status.role != Role::Leader {
            return None;
        }
        let (_, matched) = status.replication.iter().find(|(known, _)| *known == node)?;
        Some(CatchUp { matched: matched.map(|at| at.index), last: status.last_index.unwrap_or(0) })
    }

    /// The voters that are not known to hold the newest membership. While there is one, a replica that
    /// just left must be kept: that voter might still ask it, and nobody else, for its vote.
    #[must_use]
    pub fn voters_unaware(&self) -> Vec<NodeId> {
        let metrics = self.raft().metrics();
        let (voters, changed_at) = {
            let metrics = metrics.borrow_watched();
            let membership = &metrics.membership_config;
            (membership.membership().voter_ids().collect(), membership.log_id().map(|at| at.index))
        };
        self.unaware(&voters, changed_at)
    }

    fn unaware(&self, voters: &BTreeSet<NodeId>, changed_at: Option<u64>) -> Vec<NodeId> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let matched = |node: &NodeId| {
            let known = metrics.replication.as_ref().and_then(|known| known.get(node));
            known.and_then(|at| at.as_ref()).map(|at| at.index)
        };
        let others = voters.iter().copied().filter(|node| *node != self.node_id());
        others.filter(|node| matched(node) < changed_at).collect()
    }

    /// Whether it is certain that nobody counts on a node's replica any more: this replica leads, which a
    /// majority has just confirmed, the node is no member, and every voter knows that.
    pub(crate) async fn may_forget(&self, node: NodeId) -> bool {
        if self.barrier(Consistency::Linearizable).await.is_err() {
            return false;
        }
        let Ok(members) = self.raft().with_raft_state(Members::of).await else { return false };
        members.is_committed
            && !members.is_joint
            && !members.nodes.contains(&node)
            && self.unaware(&members.voters, members.changed_at).is_empty()
    }

    /// Proposes the change that `wanted` makes of what is there, if any.
    async fn change(
        &self,
        wanted: impl FnOnce(&Members) -> Option<ChangeMembers<NodeId, ()>>,
    ) -> Result<(), MembershipError> {
        let _one_at_a_time = self.changing.lock().await;
        let members = self.raft().with_raft_state(Members::of).await;
        let members = members.map_err(|_| MembershipError::Stopped)?;
        // One that left with its last change goes on as if it led, and openraft takes no further change of it.
        let has_left = self.is_leader() && !members.voters.contains(&self.node_id());
        if has_left {
            return Err(MembershipError::NotLeader { leader: None });
        }
        let Some(change) = wanted(&members) else {
            return if members.is_committed { Ok(()) } else { Err(MembershipError::InProgress) };
        };
        // openraft 0.10.0-alpha.37 can panic when changes follow each other faster than they commit.
        if !members.is_committed {
            return Err(MembershipError::InProgress);
        }
        let changed = self.raft().change_membership(change, false);
        match timeout(MEMBERSHIP_WAIT_MAX, changed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(refused(error)),
            Err(_) => Err(MembershipError::NoQuorum),
        }
    }
}

/// The newest membership that this replica has in its log.
struct Members {
    voters: BTreeSet<NodeId>,
    /// While two sets of voters decide, the one that will decide alone.
    next_voters: BTreeSet<NodeId>,
    nodes: BTreeSet<NodeId>,
    is_joint: bool,
    is_committed: bool,
    changed_at: Option<u64>,
}

impl Members {
    fn of(state: &RaftState<TypeConfig>) -> Self {
        let effective = state.membership_state.effective();
        let membership = effective.membership();
        let committed = state.membership_state.committed();
        Self {
            voters: membership.voter_ids().collect(),
            next_voters: membership.get_joint_config().last().cloned().unwrap_or_default(),
            nodes: membership.nodes().map(|(id, ())| *id).collect(),
            is_joint: membership.get_joint_config().len() > 1,
            is_committed: effective.log_id() == committed.log_id(),
            changed_at: effective.log_id().map(|at| at.index),
        }
    }
}

fn refused(error: ChangeError) -> MembershipError {
    match error {
        RaftError::Fatal(_) => MembershipError::Stopped,
        RaftError::APIError(
            ClientWriteError::ForwardToLeader(forward)
            | ClientWriteError::LogEntryDiscarded(forward),
        ) => MembershipError::NotLeader { leader: forward.leader_id },
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_),
        )) => MembershipError::InProgress,
        RaftError::APIError(other) => MembershipError::Refused { reason: other.to_string() },
    }
}
