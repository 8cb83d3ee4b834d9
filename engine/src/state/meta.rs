//! The state of the meta group: the cluster, its nodes, and gateway and chat processes.
//!
//! Which sessions are dead is not written anywhere session by session. A process has one incarnation
//! that may be alive, the highest; all before it have ended, and so has that one once `live` is false.

use std::collections::BTreeMap;

use crate::{
    command::{
        BeginMoves, EndIncarnation, GatewayKind, InitCluster, NodeState, RaiseFormat, ReadmitNode,
        RegisterGateway, SetNode, SetNodeState, SetPlacement,
    },
    limits::{GATEWAYS_MAX, GENERATION_MAX, NODES_MAX, SHARDS_MAX},
    reply::{Registered, Status},
    state::placement::{NodeRole, Placement},
};

/// The format in which every cluster begins. Fixed for good: it is what a state without a word about it
/// means.
pub(crate) const FORMAT_FIRST: u32 = 1;

/// What is fixed when a cluster is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Random.
    pub cluster_id: [u8; 16],
    /// A power of two.
    pub shards: u32,
}

/// A store node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Chosen by the operator.
    pub node_id: u64,
    /// host:port of its gRPC service.
    pub address: String,
    /// The disk that it last joined with.
    pub disk_id: [u8; 16],
}

/// A gateway or chat process, alive or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayInfo {
    /// Stays with the name.
    pub gateway_id: u32,
    /// The latest; the position of its registration, so that it rises through any restore.
    pub incarnation: u64,
    /// Unique per kind.
    pub name: String,
    /// host:port of its own gRPC service.
    pub address: String,
    /// Gateway or chat.
    pub kind: GatewayKind,
    /// False once the latest incarnation has ended.
    pub live: bool,
    /// Log time of the latest registration, Unix milliseconds.
    pub registered_at_ms: u64,
}

/// The state of the meta group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaState {
    pub(crate) cluster: Option<ClusterInfo>,
    pub(crate) version: u64,
    pub(crate) nodes: BTreeMap<u64, NodeInfo>,
    pub(crate) gateways: BTreeMap<u32, GatewayInfo>,
    pub(crate) gateway_id_last: u32,
    pub(crate) format: u32,
    pub(crate) placement: Placement,
}

impl Default for MetaState {
    fn default() -> Self {
        Self {
            cluster: None,
            version: 0,
            nodes: BTreeMap::new(),
            gateways: BTreeMap::new(),
            gateway_id_last: 0,
            format: FORMAT_FIRST,
            placement: Placement::default(),
        }
    }
}

impl MetaState {
    /// What was fixed when the cluster was made; `None` until then.
    pub fn cluster(&self) -> Option<ClusterInfo> {
        self.cluster
    }

    /// How many shards the cluster has; 0 until it is made.
    pub fn shards(&self) -> u32 {
        self.cluster.map_or(0, |cluster| cluster.shards)
    }

    /// Position of the last command that changed anything here; 0 if none did.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The format that the cluster is written in: every member reads it.
    pub fn format(&self) -> u32 {
        self.format
    }

    /// Where the shards' replicas are, and what the nodes are there for.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    /// All gateway and chat processes, ended ones too, by id.
    pub fn gateways(&self) -> impl Iterator<Item = &GatewayInfo> {
        self.gateways.values()
    }

    /// One of them.
    pub fn gateway(&self, gateway_id: u32) -> Option<&GatewayInfo> {
        self.gateways.get(&gateway_id)
    }

    /// Whether an incarnation is known to have ended. One that is unknown, or newer than what is known
    /// here, is live.
    pub fn has_ended(&self, gateway_id: u32, incarnation: u64) -> bool {
        self.gateways.get(&gateway_id).is_some_and(|known| {
            incarnation < known.incarnation || (incarnation == known.incarnation && !known.live)
        })
    }

    /// Whether this is the live incarnation of a known process.
    pub fn is_live(&self, gateway_id: u32, incarnation: u64) -> bool {
        let known = self.gateways.get(&gateway_id);
        known.is_some_and(|known| known.live && known.incarnation == incarnation)
    }

    pub(super) fn init_cluster(&mut self, command: &InitCluster) -> Status {
        let shards = command.shards;
        if !shards.is_power_of_two() || shards > SHARDS_MAX || command.generation > GENERATION_MAX {
            return Status::Invalid;
        }
        if self.cluster.is_none() {
            self.cluster = Some(ClusterInfo { cluster_id: command.cluster_id, shards });
        }
        Status::Ok
    }

    pub(super) fn set_node(&mut self, command: &SetNode) -> Status {
        let is_new = !self.nodes.contains_key(&command.node_id);
        if self.placement.role(command.node_id).state == NodeState::Removed {
            return Status::Fenced;
        }
        // With another disk it has lost what it promised and stored: see `readmit_node`.
        let known = self.nodes.get(&command.node_id);
        if known.is_some_and(|known| known.disk_id != command.disk_id) {
            return Status::Fenced;
        }
        if command.address.is_empty() || (is_new && self.nodes.len() >= NODES_MAX) {
            return Status::Invalid;
        }
        let SetNode { node_id, address, disk_id } = command.clone();
        self.nodes.insert(node_id, NodeInfo { node_id, address, disk_id });
        Status::Ok
    }

    /// What is left of this state when it is restored into another cluster: who is a gateway or chat
    /// process, every incarnation ended, and no node.
    pub(crate) fn begin_again(&mut self, cluster_id: [u8; 16], version: u64) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.cluster_id = cluster_id;
        self.version = version;
        self.nodes.clear();
        self.placement = Placement::default();
        self.gateways.values_mut().for_each(|gateway| gateway.live = false);
    }

    pub(super) fn raise_format(&mut self, command: &RaiseFormat) -> Status {
        // Not held against what this build reads: apply is the same on every build. A node that cannot
        // read it stops by itself.
        if command.to < self.format {
            return Status::Invalid;
        }
        self.format = command.to;
        Status::Ok
    }

    /// A node that leaves has no replica any more; nothing but its id is kept of it.
    pub(super) fn set_node_state(&mut self, command: &SetNodeState) -> Status {
        let SetNodeState { node_id, state, zone } = command.clone();
        if !self.nodes.contains_key(&node_id) {
            return Status::Invalid;
        }
        if state == NodeState::Removed {
            if !self.placement.shards_on(node_id).is_empty() {
                return Status::Invalid;
            }
            self.nodes.remove(&node_id);
            self.placement.returning.remove(&node_id);
        }
        self.placement.roles.insert(node_id, NodeRole { state, zone });
        Status::Ok
    }

    /// Once the node is forgotten, it has no replica any more, and moves begin that give them back. So do they
    /// when the disk that it had is found again meanwhile; where the node was not taken out yet, its move
    /// finds nothing left to do.
    pub(super) fn readmit_node(
        &mut self,
        command: &ReadmitNode,
        position: u64,
        now_ms: u64,
    ) -> Status {
        let ReadmitNode { node_id, disk_id, is_forgotten } = *command;
        let Some(node) = self.nodes.get_mut(&node_id) else { return Status::Invalid };
        let returning = self.placement.returning.get(&node_id).copied();
        if is_forgotten && returning != Some(disk_id) {
            return Status::Fenced;
        }
        // With the disk that it had it may have been taken out of some groups already, of which nothing says which.
        let is_found_again = returning.is_some() && node.disk_id == disk_id;
        let gets_back = is_forgotten || is_found_again;
        if gets_back && !self.placement.bring_back(node_id, position, now_ms) {
            return Status::Fenced;
        }
        if is_forgotten {
            node.disk_id = disk_id;
        }
        if node.disk_id == disk_id {
            self.placement.returning.remove(&node_id);
        } else {
            self.placement.begin_return(node_id, disk_id);
        }
        Status::Ok
    }

    pub(super) fn set_placement(&mut self, command: &SetPlacement) -> Status {
        let are_nodes = command.replicas.iter().all(|node| self.nodes.contains_key(node));
        if command.shard >= self.shards() || !are_nodes {
            return Status::Invalid;
        }
        self.placement.set_placement(command.shard, &command.replicas)
    }

    pub(super) fn begin_moves(
        &mut self,
        command: &BeginMoves,
        position: u64,
        now_ms: u64,
    ) -> Status {
        let BeginMoves { placement_version, moves } = command;
        let nodes = &self.nodes;
        let returning = self.placement.returning.clone();
        let takes = |node: u64| nodes.contains_key(&node) && !returning.contains_key(&node);
        self.placement.begin_moves(*placement_version, moves, position, now_ms, takes)
    }

    /// Whether a plan that was made for the state before may not fit this one any more. How far a move
    /// is does not matter to that, nor does a node that has no role yet.
    pub(super) fn has_moved_on_from(&self, before: &Self) -> bool {
        let moving = |meta: &Self| {
            meta.placement.moves().map(|m| (m.id, m.replica, m.aborting)).collect::<Vec<_>>()
        };
        self.placement.roles != before.placement.roles
            || self.placement.replicas != before.placement.replicas
            || self.placement.returning != before.placement.returning
            || moving(self) != moving(before)
    }

    pub(super) fn register(
        &mut self,
        command: &RegisterGateway,
        position: u64,
        now_ms: u64,
    ) -> Registered {
        let refused = Registered { status: Status::Invalid, gateway_id: 0, incarnation: 0 };
        if command.name.is_empty() || command.address.is_empty() {
            return refused;
        }
        let Some(gateway_id) = self.id_of(command) else { return refused };
        let RegisterGateway { name, address, kind } = command.clone();
        let info = GatewayInfo {
            gateway_id,
            incarnation: position,
            name,
            address,
            kind,
            live: true,
            registered_at_ms: now_ms,
        };
        self.gateways.insert(gateway_id, info);
        Registered { status: Status::Ok, gateway_id, incarnation: position }
    }

    /// The id that the name has, or the next one if there is room. A chat process that has ended
    /// leaves nothing behind that its id would protect, so the oldest of those makes room.
    fn id_of(&mut self, command: &RegisterGateway) -> Option<u32> {
        let is_same = |g: &&GatewayInfo| g.kind == command.kind && g.name == command.name;
        if let Some(known) = self.gateways.values().find(is_same) {
            return Some(known.gateway_id);
        }
        if self.gateways.len() >= GATEWAYS_MAX {
            let ended = self.gateways.values().filter(|g| g.kind == GatewayKind::Chat && !g.live);
            let oldest = ended.min_by_key(|g| g.incarnation)?.gateway_id;
            self.gateways.remove(&oldest);
        }
        self.gateway_id_last = self.gateway_id_last.checked_add(1)?;
        Some(self.gateway_id_last)
    }

    pub(super) fn end_incarnation(&mut self, command: &EndIncarnation) -> Status {
        let Some(known) = self.gateways.get_mut(&command.gateway_id) else {
            return Status::UnknownGateway;
        };
        if command.incarnation > known.incarnation {
            return Status::UnknownGateway;
        }
        // Ending one that ended long ago is no error: its lease and its goodbye may both arrive.
        if command.incarnation == known.incarnation {
            known.live = false;
        }
        Status::Ok
    }
}
