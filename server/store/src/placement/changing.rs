//! What operators change, on the node that leads the meta group; refusals say what would be lost.

use std::{collections::BTreeSet, sync::Arc};

use switchboard_api::v1::{self, change_placement_request::Change};
use switchboard_engine::{
    BeginMoves, Command, EndMove, MoveEnd, NodeRole, NodeState, ReadmitNode, ReplicaMove, Reply,
    SetNode, SetNodeState, Status as Applied,
};
use switchboard_raft::{Consistency, Member, NodeId};
use tonic::Status;

use super::{layout, planner};
use crate::{errors, service::Service};

impl Service {
    /// Carries one change out, if this node leads the meta group.
    pub(crate) async fn change_placement_here(
        self: &Arc<Self>,
        request: v1::ChangePlacementRequest,
    ) -> Result<v1::ChangePlacementResponse, Status> {
        // What is checked must be all that was decided before, and still hold when it is proposed.
        let _one_at_a_time = self.founding.lock().await;
        let fresh = self.node.meta().barrier(Consistency::Lease).await;
        fresh
            .map_err(|_| errors::not_yet("the meta group has no leader that a majority follows"))?;
        match request.change {
            Some(Change::AddNode(request)) => self.add_node(request).await?,
            Some(Change::RemoveNode(request)) => self.remove_node(request.node_id).await?,
            Some(Change::DrainNode(request)) => self.drain_node(request).await?,
            Some(Change::BeginMoves(request)) => self.begin_moves(request).await?,
            Some(Change::AbortMove(request)) => self.abort_move(request.shard).await?,
            None => return Err(errors::placement("INVALID", "no change is named".to_owned())),
        }
        let meta = self.node.meta().shard();
        let placement_version = meta.meta(|meta| meta.placement().version());
        Ok(v1::ChangePlacementResponse { placement_version })
    }

    async fn add_node(self: &Arc<Self>, request: v1::AddNodeRequest) -> Result<(), Status> {
        let v1::NodeInfo { node_id, address } = request.node.unwrap_or_default();
        if node_id == 0 || address.is_empty() {
            return Err(errors::placement("INVALID", "name an id and an address".to_owned()));
        }
        let (cluster, unplaced, role) = self.node.meta().shard().meta(|meta| {
            let recorded = |shard: u32| meta.placement().replicas(shard).is_some();
            let unplaced = (0..meta.shards()).any(|shard| !recorded(shard));
            (meta.cluster(), unplaced, meta.placement().role(node_id))
        });
        let cluster = cluster.ok_or_else(errors::not_initialized)?;
        if unplaced {
            return Err(errors::not_yet("where the replicas are is being recorded"));
        }
        if role.state == NodeState::Removed {
            let message = format!(
                "node {node_id} was removed, and no id is used again: start it with another --node-id and an empty --data"
            );
            return Err(errors::placement("NODE_REMOVED", message));
        }
        let member = self.identify_new(node_id, &address, cluster.cluster_id).await?;
        let known = self.node.members().into_iter().find(|known| known.node_id == node_id);
        if let Some(known) = known
            && (known.disk_id != member.disk_id || self.is_returning(node_id))
        {
            return self.readmit_node(&known, &member, request.lost_disk, cluster.cluster_id).await;
        }
        let set = SetNode { node_id, address, disk_id: member.disk_id };
        self.applied(Command::SetNode(set)).await?;
        // A command that is repeated without it does not take the zone away.
        let zone = if request.zone.is_empty() { role.zone } else { request.zone };
        let role = SetNodeState { node_id, state: role.state, zone };
        self.applied(Command::SetNodeState(role)).await?;
        self.tell_new(&member, cluster.cluster_id).await
    }

    fn is_returning(&self, node_id: NodeId) -> bool {
        self.node.meta().shard().meta(|meta| meta.placement().is_returning(node_id))
    }

    /// Takes a member in again that has another disk, or, while that is not through, the one that it had.
    async fn readmit_node(
        &self,
        known: &Member,
        member: &Member,
        lost_disk: bool,
        cluster_id: [u8; 16],
    ) -> Result<(), Status> {
        let node_id = known.node_id;
        if !lost_disk && known.disk_id != member.disk_id {
            let message = format!(
                "node {node_id} is a member already, with another disk. If that is only not mounted, start the \
                 node on it. If it is lost for good: `switchboard node add {node_id} {} --lost-disk`",
                member.address
            );
            return Err(errors::placement("OTHER_DISK", message));
        }
        if known.disk_id != member.disk_id && self.status_soon(node_id).await.is_some() {
            let message = format!(
                "node {node_id} runs at {} with the disk that it joined with, so it has not lost it. If the node at \
                 {} is a new one, start it with another --node-id",
                known.address, member.address
            );
            return Err(errors::placement("NOT_LOST", message));
        }
        let (address, disk_id) = (member.address.clone(), known.disk_id);
        self.applied(Command::SetNode(SetNode { node_id, address, disk_id })).await?;
        let again = ReadmitNode { node_id, disk_id: member.disk_id, is_forgotten: false };
        match self.propose_meta(Command::ReadmitNode(again)).await? {
            Reply::Done(Applied::Fenced) => {
                let message = format!(
                    "shards of node {node_id} are being moved; once `switchboard shard list` shows no moves of \
                     them, repeat the command"
                );
                return Err(errors::placement("MOVE_UNDER_WAY", message));
            }
            Reply::Done(status) => errors::refused(status)?,
            _ => return Err(errors::internal("a node that returns has no reply".to_owned())),
        }
        self.tell_new(member, cluster_id).await
    }

    async fn remove_node(&self, node_id: NodeId) -> Result<(), Status> {
        let (known, NodeRole { state, zone }, shards, nodes) =
            self.node.meta().shard().meta(|meta| {
                let (known, placement) =
                    (meta.nodes().any(|n| n.node_id == node_id), meta.placement());
                let (role, shards) = (placement.role(node_id), placement.shards_on(node_id));
                (known, role, shards, meta.nodes().count())
            });
        // A removal whose answer was lost is asked for again.
        let is_removed = state == NodeState::Removed;
        if is_removed {
            return Ok(());
        }
        if !known {
            return Err(errors::unknown_node(node_id));
        }
        if nodes == 1 {
            let message = format!("node {node_id} is the last one: all data would be lost");
            return Err(errors::placement("LAST_NODE", message));
        }
        if !shards.is_empty() {
            let message = format!(
                "node {node_id} has a replica of {} shards ({shards:?}), which would each be left with one \
                 less to survive with; `switchboard node drain {node_id}` moves them away first",
                shards.len()
            );
            return Err(errors::placement("HAS_REPLICAS", message));
        }
        self.take_meta_vote(node_id).await?;
        let role = SetNodeState { node_id, state: NodeState::Removed, zone };
        self.applied(Command::SetNodeState(role)).await
    }

    async fn drain_node(&self, request: v1::DrainNodeRequest) -> Result<(), Status> {
        let v1::DrainNodeRequest { node_id, undo } = request;
        let full = if undo { BTreeSet::new() } else { self.full_nodes().await };
        let (known, zone, stuck) = self.node.meta().shard().meta(|meta| {
            let (mut nodes, shards) = layout(meta, &full);
            let known = nodes.iter_mut().find(|node| node.node_id == node_id);
            let is_known = known.map(|node| node.stays = false).is_some();
            let shards: Vec<_> =
                shards.into_iter().filter(|one| one.replicas.contains(&node_id)).collect();
            (is_known, meta.placement().role(node_id).zone, planner::stuck(&nodes, &shards))
        });
        if !known {
            return Err(errors::unknown_node(node_id));
        }
        if !undo && !stuck.is_empty() {
            let message = format!(
                "no other node can take the replicas of {} shards ({stuck:?}): each of their replicas needs \
                 a node of its own that answers and has room on its disk; add a node first (`switchboard node add`)",
                stuck.len()
            );
            return Err(errors::placement("NOWHERE_TO_GO", message));
        }
        let state = if undo { NodeState::Active } else { NodeState::Draining };
        self.applied(Command::SetNodeState(SetNodeState { node_id, state, zone })).await
    }

    async fn begin_moves(&self, request: v1::ApplyPlanRequest) -> Result<(), Status> {
        let replica = |one: v1::ReplicaMove| ReplicaMove {
            shard: one.shard,
            from: one.from_node_id,
            to: one.to_node_id,
        };
        let moves: Vec<ReplicaMove> = request.moves.into_iter().map(replica).collect();
        let placement_version = request.placement_version;
        let now = self.node.meta().shard().meta(|meta| meta.placement().version());
        if placement_version != 0 && placement_version != now {
            return Err(errors::placement_moved_on(placement_version));
        }
        for one in &moves {
            self.check_move(*one)?;
        }
        self.check_majorities(&moves).await?;
        let begin = Command::BeginMoves(BeginMoves { placement_version, moves });
        match self.propose_meta(begin).await? {
            Reply::Done(Applied::Ok) => Ok(()),
            Reply::Done(Applied::Fenced) => Err(errors::placement_moved_on(placement_version)),
            Reply::Done(Applied::Duplicate) => {
                let message = "a shard of these has a move already; see `switchboard shard list`";
                Err(errors::placement("MOVE_UNDER_WAY", message.to_owned()))
            }
            _ => Err(errors::placement("INVALID", "these moves are not possible".to_owned())),
        }
    }

    /// Says which of the reasons for a refusal it is.
    fn check_move(&self, one: ReplicaMove) -> Result<(), Status> {
        let ReplicaMove { shard, from, to } = one;
        self.node.meta().shard().meta(|meta| {
            let replicas = meta.placement().replicas(shard);
            let replicas = replicas.ok_or_else(|| errors::unknown_shard(shard))?;
            if from != 0 && !replicas.contains(&from) {
                let message =
                    format!("node {from} has no replica of shard {shard} ({replicas:?} have)");
                return Err(errors::placement("NO_REPLICA", message));
            }
            if to != 0 && replicas.contains(&to) {
                let message = format!("node {to} has a replica of shard {shard} already");
                return Err(errors::placement("HAS_REPLICA", message));
            }
            if to != 0 && !meta.nodes().any(|node| node.node_id == to) {
                return Err(errors::unknown_node(to));
            }
            if to == 0 && replicas.len() <= 1 {
                let message =
                    format!("it is the last replica of shard {shard}: its data would be lost");
                return Err(errors::placement("LAST_REPLICA", message));
            }
            Ok(())
        })
    }

    /// Refuses moves after which no majority of a shard's replicas would answer.
    async fn check_majorities(&self, moves: &[ReplicaMove]) -> Result<(), Status> {
        let after = |one: &ReplicaMove| {
            self.node.meta().shard().meta(|meta| {
                let replicas = meta.placement().replicas(one.shard).unwrap_or_default();
                let stay = replicas.iter().copied().filter(|node| *node != one.from);
                stay.chain((one.to != 0).then_some(one.to)).collect::<Vec<NodeId>>()
            })
        };
        let after: Vec<_> = moves.iter().map(|one| (one, after(one))).collect();
        let nodes: BTreeSet<NodeId> = after.iter().flat_map(|(_, nodes)| nodes).copied().collect();
        let silent = self.silent(nodes).await;
        for (ReplicaMove { shard, from, .. }, nodes) in after {
            let down: Vec<_> = nodes.iter().filter(|node| silent.contains(node)).collect();
            if nodes.len() - down.len() <= nodes.len() / 2 {
                let message = format!(
                    "shard {shard} would be left on nodes {nodes:?}, of which {down:?} do not answer: without \
                     a majority nobody could write to it; bring them back before node {from} gives it up"
                );
                return Err(errors::placement("NO_MAJORITY", message));
            }
        }
        Ok(())
    }

    async fn abort_move(&self, shard: u32) -> Result<(), Status> {
        let meta = self.node.meta().shard();
        let id = meta.meta(|meta| meta.placement().move_of(shard).map(|moving| moving.id));
        let id =
            id.ok_or_else(|| errors::placement("NO_MOVE", format!("shard {shard} does not move")))?;
        let abort = Command::EndMove(EndMove { shard, id, end: MoveEnd::Abort });
        match self.propose_meta(abort).await? {
            Reply::Done(Applied::Ok) => Ok(()),
            _ => {
                let message = format!(
                    "the voters of shard {shard} are changing already: the move goes on; move it back when it \
                     is through"
                );
                Err(errors::placement("TOO_LATE", message))
            }
        }
    }

    async fn applied(&self, command: Command) -> Result<(), Status> {
        match self.propose_meta(command).await? {
            Reply::Done(status) => errors::refused(status),
            _ => Err(errors::internal("a change of placement has no reply".to_owned())),
        }
    }
}
