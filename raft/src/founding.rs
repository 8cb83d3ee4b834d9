//! Making a cluster of several nodes: one founds it alone, then takes the others in.
//!
//! ```text
//!  founder alone:  meta group of one voter ─▶ InitCluster ─▶ SetNode for every node, with its disk
//!  then:           meta group: learners ─▶ voters
//!                  shard groups, all at once: made alone ─▶ learners ─▶ voters
//! ```
//! So meta knows every disk before anybody but the founder may vote, and a node that lost its disk is
//! told from the one that was taken in. Every step looks first whether it is done: what a crash or a
//! node that cannot be reached has cut short is ended by the same call on the same node.

use std::collections::BTreeSet;
use std::sync::Arc;

use switchboard_engine::command::{InitCluster, SetNode};
use switchboard_engine::{Command, group_of_shard};
use tokio::time::{Instant, timeout_at};

use crate::error::{FoundError, InitializeError, MembershipError};
use crate::group::Group;
use crate::initialize::{make_sole, propose, wait_ready};
use crate::limits::{CHANGE_RETRY_PAUSE, FOUND_WAIT_MAX, SHARDS_MAX};
use crate::node::Node;
use crate::types::NodeId;

/// A node that a cluster is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Chosen by the operator.
    pub node_id: NodeId,
    /// host:port of its gRPC service.
    pub address: String,
    /// Which disk it has.
    pub disk_id: [u8; 16],
}

impl Node {
    /// Makes the meta group of a new cluster on this node alone, with everybody who will be in it.
    ///
    /// The cluster's id is random and the caller's, who may have to remember it before it is used.
    /// Nothing is changed where it has been made with the same members.
    pub async fn found(
        &self,
        cluster_id: [u8; 16],
        shards: u32,
        members: &[Member],
    ) -> Result<(), FoundError> {
        if !shards.is_power_of_two() || shards > SHARDS_MAX {
            return Err(InitializeError::Shards { shards }.into());
        }
        let deadline = Instant::now() + FOUND_WAIT_MAX;
        self.make_alone(self.meta(), deadline).await?;
        if let Some(found) = self.shard_count().filter(|found| *found != shards) {
            return Err(InitializeError::OtherShards { asked: shards, found }.into());
        }
        if self.shard_count().is_none() {
            let command = InitCluster { cluster_id, shards, generation: 0 };
            propose(self.meta(), Command::InitCluster(command)).await?;
        }
        let known: Vec<Member> = self.members();
        for Member { node_id, address, disk_id } in members.iter().filter(|m| !known.contains(m)) {
            let set = SetNode { node_id: *node_id, address: address.clone(), disk_id: *disk_id };
            propose(self.meta(), Command::SetNode(set)).await?;
        }
        // Of all that meta knows, not of those that are named here: a shard that nothing is recorded of has
        // a replica on each of them.
        let nodes: Vec<NodeId> = self.members().iter().map(|member| member.node_id).collect();
        self.record_placement(shards, &nodes).await?;
        let found = self.meta().shard().meta(|meta| meta.cluster()).map(|found| found.cluster_id);
        if found == Some(cluster_id) { Ok(()) } else { Err(FoundError::NotFounded) }
    }

    /// Takes all members into the meta group, and into every shard those that the placement names, making
    /// the groups that are not there yet. A shard that this node has no part in, or that is being moved, is
    /// left as it is.
    ///
    /// Every member must answer on the transport; one that does not is waited for.
    pub async fn take_in_members(&self) -> Result<(), FoundError> {
        let deadline = Instant::now() + FOUND_WAIT_MAX;
        let voters: BTreeSet<NodeId> = self.members().iter().map(|m| m.node_id).collect();
        let shards = self.shard_count().ok_or(FoundError::NotFounded)?;
        take_in(self.meta(), &voters, deadline).await?;
        let grown = (0..shards).filter_map(|shard| {
            let voters = self.settled_replicas(shard)?;
            Some(async move { self.make_shard(shard, &voters, deadline).await })
        });
        futures::future::try_join_all(grown).await?;
        self.adopt_shards();
        Ok(())
    }

    /// Who has the replicas of a shard, if this node is among them and none of them moves.
    fn settled_replicas(&self, shard: u32) -> Option<BTreeSet<NodeId>> {
        self.meta().shard().meta(|meta| {
            let placement = meta.placement();
            let nodes: BTreeSet<NodeId> = placement.replicas(shard)?.iter().copied().collect();
            let is_settled = placement.move_of(shard).is_none();
            (is_settled && nodes.contains(&self.node_id())).then_some(nodes)
        })
    }

    async fn make_shard(
        &self,
        shard: u32,
        voters: &BTreeSet<NodeId>,
        deadline: Instant,
    ) -> Result<(), FoundError> {
        let opened = self.ensure_group(group_of_shard(shard)).await;
        let group = opened.map_err(InitializeError::Open)?;
        if !has_voters(&group, voters).await {
            self.make_alone(&group, deadline).await?;
            self.init_shard(&group).await?;
        }
        take_in(&group, voters, deadline).await
    }

    /// The nodes that meta knows.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.meta().shard().meta(|meta| {
            let member = |node: &switchboard_engine::NodeInfo| Member {
                node_id: node.node_id,
                address: node.address.clone(),
                disk_id: node.disk_id,
            };
            meta.nodes().map(member).collect()
        })
    }

    /// Makes this node the only voter of a group without voters; leaves one alone that it votes in.
    async fn make_alone(&self, group: &Arc<Group>, deadline: Instant) -> Result<(), FoundError> {
        let voters = group.voters().await.unwrap_or_default();
        if !voters.is_empty() && voters != [self.node_id()] {
            return Ok(());
        }
        make_sole(group, self.node_id()).await?;
        wait_ready(group, self.node_id(), deadline).await?;
        Ok(())
    }
}

async fn has_voters(group: &Group, voters: &BTreeSet<NodeId>) -> bool {
    let found = group.voters().await.unwrap_or_default();
    found.into_iter().collect::<BTreeSet<_>>() == *voters && !group.is_changing_members().await
}

/// Makes `voters` the voters of a group: learners first, so that no majority waits for one of them.
/// What passes is tried again: another change under way, a leader that is replaced, a member that is too
/// new to vote.
async fn take_in(
    group: &Group,
    voters: &BTreeSet<NodeId>,
    deadline: Instant,
) -> Result<(), FoundError> {
    let change = async || {
        for node in voters {
            group.add_learner(*node).await?;
        }
        group.change_voters(voters).await
    };
    let changed = async {
        while !has_voters(group, voters).await {
            match change().await {
                Err(error @ (MembershipError::Refused { .. } | MembershipError::Stopped)) => {
                    return Err(FoundError::Membership { group: group.id(), error });
                }
                Err(_) => tokio::time::sleep(CHANGE_RETRY_PAUSE).await,
                Ok(()) => return Ok(()),
            }
        }
        Ok(())
    };
    let in_time = timeout_at(deadline, changed).await;
    in_time.unwrap_or(Err(FoundError::Unanswered { group: group.id() }))
}
