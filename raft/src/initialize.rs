//! Making a node a cluster of its own, as often as it is asked to.
//!
//! Each step looks first whether it is done: a node that crashed in between, or has been a cluster
//! of its own for years, ends in the same state. The order matters: the meta group's number of
//! shards is decided first and for good, then the shards' groups are made.

use std::collections::BTreeSet;
use std::sync::Arc;

use openraft::errors::RaftError;
use switchboard_engine::command::{Init, InitCluster, SetNode, SetPlacement};
use switchboard_engine::{Command, group_of_shard};
use tokio::time::Instant;

use crate::error::InitializeError;
use crate::group::Group;
use crate::limits::{SHARDS_MAX, SOLE_LEADER_WAIT_MAX};
use crate::node::Node;
use crate::types::NodeId;

impl Node {
    /// Makes this node a cluster of its own with `shards` shards, and waits until every group has
    /// elected it and has applied what its log held. Idempotent.
    pub async fn initialize_single(&self, shards: u32) -> Result<(), InitializeError> {
        if !shards.is_power_of_two() || shards > SHARDS_MAX {
            return Err(InitializeError::Shards { shards });
        }
        let deadline = Instant::now() + SOLE_LEADER_WAIT_MAX;
        let meta = self.meta();
        make_sole(meta, self.node_id()).await?;
        wait_ready(meta, self.node_id(), deadline).await?;
        match self.shard_count() {
            Some(found) if found != shards => {
                return Err(InitializeError::OtherShards { asked: shards, found });
            }
            Some(_) => {}
            None => {
                let cluster_id = self.random()?;
                let command = InitCluster { cluster_id, shards, generation: 0 };
                propose(meta, Command::InitCluster(command)).await?;
            }
        }
        self.set_own_node().await?;
        self.record_placement(shards, &[self.node_id()]).await?;
        self.make_shards(shards, deadline).await?;
        self.adopt_shards();
        Ok(())
    }

    /// Records where this node is and which disk it has, if meta knows it otherwise.
    async fn set_own_node(&self) -> Result<(), InitializeError> {
        let (node_id, disk_id) = (self.node_id(), self.disk_id());
        let address = self.options().address.clone();
        let known = self.meta().shard().meta(|meta| {
            meta.nodes().any(|node| {
                node.node_id == node_id && node.disk_id == disk_id && node.address == address
            })
        });
        if known {
            return Ok(());
        }
        propose(self.meta(), Command::SetNode(SetNode { node_id, address, disk_id })).await
    }

    /// All groups at once: each waits for syncs, which the log shares.
    async fn make_shards(&self, shards: u32, deadline: Instant) -> Result<(), InitializeError> {
        let made = (0..shards).map(|shard| async move {
            let group = self.ensure_group(group_of_shard(shard)).await?;
            make_sole(&group, self.node_id()).await?;
            wait_ready(&group, self.node_id(), deadline).await?;
            self.init_shard(&group).await
        });
        futures::future::try_join_all(made).await.map(drop)
    }

    /// Begins the state of a shard that has none.
    pub(crate) async fn init_shard(&self, group: &Arc<Group>) -> Result<(), InitializeError> {
        if group.shard().is_initialized() {
            return Ok(());
        }
        let init = Init { generation: 0, dedup_key: self.random()?, rules: self.options().rules };
        propose(group, Command::Init(init)).await
    }

    /// Records where the shards are that nothing is recorded of.
    pub(crate) async fn record_placement(
        &self,
        shards: u32,
        nodes: &[NodeId],
    ) -> Result<(), InitializeError> {
        let meta = self.meta();
        let unrecorded =
            |shard: &u32| meta.shard().meta(|meta| meta.placement().replicas(*shard).is_none());
        let set = |shard| Command::SetPlacement(SetPlacement { shard, replicas: nodes.to_vec() });
        let commands: Vec<Command> = (0..shards).filter(unrecorded).map(set).collect();
        if commands.is_empty() {
            return Ok(());
        }
        let proposed = meta.propose(commands).map_err(|error| not_ready(meta, &error))?;
        proposed.await.map(drop).map_err(|error| not_ready(meta, &error))
    }

    /// Random bytes from where the disk comes from, so that a simulation repeats itself.
    pub fn random(&self) -> Result<[u8; 16], InitializeError> {
        let mut bytes = [0; 16];
        self.options().files.fill_random(&mut bytes).map_err(InitializeError::Random)?;
        Ok(bytes)
    }
}

/// Makes this node the only voter of a group that has none.
pub(crate) async fn make_sole(group: &Group, node_id: NodeId) -> Result<(), InitializeError> {
    let voters = group.voters().await.map_err(|error| not_ready(group, &error))?;
    if voters == [node_id] {
        return Ok(());
    }
    if !voters.is_empty() {
        return Err(InitializeError::OtherNode { node_id, voters });
    }
    match group.begin(BTreeSet::from([node_id])).await {
        Ok(()) => Ok(()),
        // A vote or entries without a membership: a first start that crashed before its first
        // entry was durable leaves nothing, so this is another's data.
        Err(RaftError::APIError(error)) => Err(not_ready(group, &error)),
        Err(RaftError::Fatal(error)) => Err(not_ready(group, &error)),
    }
}

/// Waits until the node leads the group and has applied everything that was committed before.
pub(crate) async fn wait_ready(
    group: &Group,
    node_id: NodeId,
    deadline: Instant,
) -> Result<(), InitializeError> {
    let timeout = deadline.saturating_duration_since(Instant::now());
    let ready = group
        .raft()
        .wait(Some(timeout))
        .metrics(
            |metrics| {
                // An entry of its own term is applied, and with it all before.
                let applied = metrics.last_applied.map(|at| at.leader_id.term);
                metrics.current_leader == Some(node_id) && applied == Some(metrics.current_term)
            },
            "the only voter leads",
        )
        .await;
    ready.map(drop).map_err(|error| not_ready(group, &error))
}

pub(crate) async fn propose(group: &Arc<Group>, command: Command) -> Result<(), InitializeError> {
    let proposed = group.propose(vec![command]).map_err(|error| not_ready(group, &error))?;
    proposed.await.map(drop).map_err(|error| not_ready(group, &error))
}

fn not_ready(group: &Group, error: &dyn std::error::Error) -> InitializeError {
    InitializeError::NotReady { group: group.id(), reason: error.to_string() }
}
