//! Which replicas should move: a pure function of where they are and what the nodes are there for.
//!
//! In this order: replicas leave nodes that are drained; the replicas of a shard stand in as many zones as
//! they can; nodes have as many replicas as each other. Each move is taken only if it makes that better,
//! so there are no more than needed, a balanced cluster gets none, and planning ends. A shard moves one
//! replica a plan: what is left is in the next one.

use std::collections::{BTreeMap, BTreeSet};

use switchboard_engine::ReplicaMove;
use switchboard_raft::NodeId;

/// A node that replicas may be on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) node_id: NodeId,
    /// Empty: it shares no fate with another.
    pub(crate) zone: String,
    /// Whether it keeps its replicas; a node that is drained gets no others either.
    pub(crate) stays: bool,
    /// Whether there is no room for others on its disk.
    pub(crate) is_full: bool,
}

impl Node {
    fn takes(&self) -> bool {
        self.stays && !self.is_full
    }
}

/// A shard and its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) shard: u32,
    pub(crate) replicas: Vec<NodeId>,
    /// What is on its way: it counts as done, and the shard gets no other move.
    pub(crate) moving: Option<ReplicaMove>,
}

/// The moves that would balance the cluster.
pub(crate) fn plan(nodes: &[Node], shards: &[Shard]) -> Vec<ReplicaMove> {
    let mut layout = Layout::new(nodes, shards);
    layout.empty_the_drained();
    layout.spread_over_zones();
    layout.even_out();
    layout.moves
}

/// The replicas of these nodes that no other node could take.
pub(crate) fn stuck(nodes: &[Node], shards: &[Shard]) -> Vec<u32> {
    let stays = |id: &NodeId| nodes.iter().any(|node| node.node_id == *id && node.stays);
    let crowded = shards.iter().filter(|shard| {
        let leave = shard.replicas.iter().filter(|node| !stays(node)).count();
        let free = |node: &&Node| node.takes() && !shard.replicas.contains(&node.node_id);
        leave > nodes.iter().filter(free).count()
    });
    crowded.map(|shard| shard.shard).collect()
}

struct Layout {
    nodes: BTreeMap<NodeId, Node>,
    replicas: BTreeMap<u32, Vec<NodeId>>,
    counts: BTreeMap<NodeId, usize>,
    settled: BTreeSet<u32>,
    moves: Vec<ReplicaMove>,
}

impl Layout {
    fn new(nodes: &[Node], shards: &[Shard]) -> Self {
        let mut layout = Self {
            nodes: nodes.iter().map(|node| (node.node_id, node.clone())).collect(),
            replicas: BTreeMap::new(),
            counts: nodes.iter().map(|node| (node.node_id, 0)).collect(),
            settled: BTreeSet::new(),
            moves: Vec::new(),
        };
        for Shard { shard, replicas, moving } in shards {
            let mut replicas = replicas.clone();
            if let Some(ReplicaMove { from, to, .. }) = moving {
                replicas.retain(|node| node != from);
                replicas.extend((*to != 0).then_some(*to));
                layout.settled.insert(*shard);
            }
            for node in &replicas {
                *layout.counts.entry(*node).or_default() += 1;
            }
            layout.replicas.insert(*shard, replicas);
        }
        layout
    }

    fn count(&self, node: NodeId) -> usize {
        self.counts.get(&node).copied().unwrap_or(0)
    }

    fn stays(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.stays)
    }

    /// In how many zones these nodes stand.
    fn zones(&self, nodes: impl Iterator<Item = NodeId>) -> usize {
        let zone = |node: NodeId| {
            let zone = self.nodes.get(&node).map_or("", |node| node.zone.as_str());
            // Without a name, each node is a zone of its own.
            (zone, if zone.is_empty() { node } else { 0 })
        };
        nodes.map(zone).collect::<BTreeSet<_>>().len()
    }

    fn zones_after(&self, shard: u32, from: NodeId, to: NodeId) -> usize {
        let replicas = self.replicas.get(&shard).into_iter().flatten().copied();
        self.zones(replicas.filter(|node| *node != from).chain([to]))
    }

    fn zones_of(&self, shard: u32) -> usize {
        self.zones(self.replicas.get(&shard).into_iter().flatten().copied())
    }

    /// Who could take a replica of the shard.
    fn takers(&self, shard: u32) -> Vec<NodeId> {
        let has = |node: &NodeId| self.replicas.get(&shard).is_some_and(|all| all.contains(node));
        let takers = self.nodes.values().filter(|node| node.takes()).map(|node| node.node_id);
        takers.filter(|node| !has(node)).collect()
    }

    fn commit(&mut self, shard: u32, from: NodeId, to: NodeId) {
        if let Some(replicas) = self.replicas.get_mut(&shard) {
            replicas.retain(|node| *node != from);
            replicas.push(to);
        }
        if let Some(count) = self.counts.get_mut(&from) {
            *count = count.saturating_sub(1);
        }
        *self.counts.entry(to).or_default() += 1;
        self.settled.insert(shard);
        self.moves.push(ReplicaMove { shard, from, to });
    }

    fn unsettled(&self) -> Vec<u32> {
        self.replicas.keys().copied().filter(|shard| !self.settled.contains(shard)).collect()
    }

    fn empty_the_drained(&mut self) {
        for shard in self.unsettled() {
            let replicas = self.replicas.get(&shard).into_iter().flatten().copied();
            let Some(from) = replicas.into_iter().find(|node| !self.stays(*node)) else { continue };
            let best = self.takers(shard).into_iter().max_by_key(|to| {
                let emptiest = std::cmp::Reverse((self.count(*to), *to));
                (self.zones_after(shard, from, *to), emptiest)
            });
            if let Some(to) = best {
                self.commit(shard, from, to);
            }
        }
    }

    fn spread_over_zones(&mut self) {
        for shard in self.unsettled() {
            let replicas = self.replicas.get(&shard).cloned().unwrap_or_default();
            let takers = self.takers(shard);
            let pairs = replicas.iter().flat_map(|from| takers.iter().map(move |to| (*from, *to)));
            let best = pairs.max_by_key(|(from, to)| {
                let evenness = (self.count(*from), std::cmp::Reverse(self.count(*to)));
                (self.zones_after(shard, *from, *to), evenness)
            });
            if let Some((from, to)) = best
                && self.zones_after(shard, from, to) > self.zones_of(shard)
            {
                self.commit(shard, from, to);
            }
        }
    }

    /// Each move lessens the sum of the squares of the counts, so it ends.
    fn even_out(&mut self) {
        while let Some((shard, from, to)) = self.evening_move() {
            self.commit(shard, from, to);
        }
    }

    fn evening_move(&self) -> Option<(u32, NodeId, NodeId)> {
        let ids = |which: fn(&Node) -> bool| -> Vec<NodeId> {
            self.nodes.values().filter(|node| which(node)).map(|node| node.node_id).collect()
        };
        let (givers, takers) = (ids(|node| node.stays), ids(Node::takes));
        let pairs = givers.iter().flat_map(|from| takers.iter().map(move |to| (*from, *to)));
        let gap = |(from, to): &(NodeId, NodeId)| self.count(*from).saturating_sub(self.count(*to));
        let mut pairs: Vec<_> = pairs.filter(|pair| gap(pair) > 1).collect();
        pairs.sort_by_key(|pair| std::cmp::Reverse(gap(pair)));
        let unsettled = self.unsettled();
        pairs.into_iter().find_map(|(from, to)| {
            let fits = |shard: &&u32| {
                let replicas = self.replicas.get(shard).into_iter().flatten();
                let (mut has_from, mut has_to) = (false, false);
                for node in replicas {
                    has_from |= *node == from;
                    has_to |= *node == to;
                }
                has_from && !has_to && self.zones_after(**shard, from, to) >= self.zones_of(**shard)
            };
            unsettled.iter().find(fits).map(|shard| (*shard, from, to))
        })
    }
}

#[cfg(test)]
mod tests;
