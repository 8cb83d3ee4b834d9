//! Where replicas are and where they go: what operators ask for, what is planned, and who is told.
//!
//! ```text
//!  operator ─▶ changing.rs ─▶ meta group ◀─ mover.rs ─▶ stepping.rs, on the shard's leader
//!                  ▲                          (on meta's leader)
//!              planner.rs (pure)
//! ```

mod asking;
mod changing;
mod members;
pub(crate) mod planner;
mod stepping;
pub(crate) mod voters;

use std::collections::BTreeSet;

use switchboard_engine::{MetaState, NodeState};
use switchboard_raft::NodeId;

use self::planner::{Node, Shard};

/// What a plan is made from; `full` are the nodes whose disks are almost full.
pub(crate) fn layout(meta: &MetaState, full: &BTreeSet<NodeId>) -> (Vec<Node>, Vec<Shard>) {
    let placement = meta.placement();
    let node = |node: &switchboard_engine::NodeInfo| {
        let role = placement.role(node.node_id);
        let (node_id, stays) = (node.node_id, role.state == NodeState::Active);
        // One that comes back without its disk gets nothing before it has what it had.
        let is_full = full.contains(&node_id) || placement.is_returning(node_id);
        Node { node_id, zone: role.zone, stays, is_full }
    };
    let shard = |shard: u32| {
        let replicas = placement.replicas(shard)?.to_vec();
        Some(Shard { shard, replicas, moving: placement.move_of(shard).map(|m| m.replica) })
    };
    (meta.nodes().map(node).collect(), (0..meta.shards()).filter_map(shard).collect())
}
