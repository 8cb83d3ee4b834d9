//! Which node a backup takes which group from.

use std::collections::{BTreeMap, BTreeSet};

use switchboard_api::v1::{list_nodes_response, list_shards_response};

/// The group that knows gateways and placement.
const META_GROUP: u32 = 0;

/// Groups of one node, in the order in which they are asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) node_id: u64,
    pub(super) address: String,
    pub(super) groups: Vec<u32>,
}

/// Who can be asked for what.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// The node that the operator named: it is asked for all that it has.
    named: u64,
    addresses: BTreeMap<u64, String>,
    shards: Vec<list_shards_response::Shard>,
}

impl Sources {
    /// `address` is where the operator reaches the node that he named.
    pub(super) fn new(
        named: u64,
        address: &str,
        nodes: Vec<list_nodes_response::Node>,
        shards: Vec<list_shards_response::Shard>,
    ) -> Sources {
        let infos = nodes.into_iter().filter_map(|node| node.node);
        let mut addresses: BTreeMap<u64, String> =
            infos.map(|info| (info.node_id, info.address)).collect();
        addresses.insert(named, address.to_owned());
        Sources { named, addresses, shards }
    }

    /// All groups of the cluster.
    pub(super) fn groups(&self) -> BTreeSet<u32> {
        let shards = self.shards.iter().map(|shard| shard.shard + 1);
        shards.chain([META_GROUP]).collect()
    }

    /// Who is asked next for those that are missing: each of the others, then the node that was named, and
    /// the meta group at the very end, so that every gateway of which a session speaks is in it. Nodes in
    /// `failed` are not asked again. `None` if a group has nobody left.
    pub(super) fn next(&self, missing: &BTreeSet<u32>, failed: &BTreeSet<u64>) -> Option<Source> {
        let mut by_node: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for group in missing.iter().filter(|group| **group != META_GROUP) {
            let shard = self.shards.iter().find(|shard| shard.shard + 1 == *group)?;
            by_node.entry(self.of_shard(shard, failed)?).or_default().push(*group);
        }
        if by_node.is_empty() {
            by_node.insert(self.of_meta(failed)?, vec![META_GROUP]);
        }
        let others = by_node.keys().copied().find(|node| *node != self.named);
        let node_id = others.or_else(|| by_node.keys().next().copied())?;
        let groups = by_node.remove(&node_id)?;
        Some(Source { node_id, address: self.addresses.get(&node_id)?.clone(), groups })
    }

    /// The node that was named, if it has a replica; else the freshest follower, else the leader, which has
    /// other things to do.
    fn of_shard(&self, shard: &list_shards_response::Shard, failed: &BTreeSet<u64>) -> Option<u64> {
        let usable = |replica: &&list_shards_response::Replica| {
            replica.reachable && !failed.contains(&replica.node_id)
        };
        let rank = |replica: &&list_shards_response::Replica| {
            let leads = replica.node_id == shard.leader_node_id;
            (replica.node_id == self.named, !leads, replica.applied_index)
        };
        shard.replicas.iter().filter(usable).max_by_key(rank).map(|replica| replica.node_id)
    }

    /// Every node has the meta group.
    fn of_meta(&self, failed: &BTreeSet<u64>) -> Option<u64> {
        let known = self.addresses.keys().copied().filter(|node| !failed.contains(node));
        known.max_by_key(|node| *node == self.named)
    }
}

#[cfg(test)]
mod tests {
    use switchboard_api::v1::NodeInfo;

    use super::*;

    fn node(node_id: u64) -> list_nodes_response::Node {
        let info = NodeInfo { node_id, address: format!("10.0.0.{node_id}:7400") };
        list_nodes_response::Node { node: Some(info), ..Default::default() }
    }

    fn shard(shard: u32, leader: u64, replicas: [(u64, u64); 3]) -> list_shards_response::Shard {
        let replica = |(node_id, applied_index)| list_shards_response::Replica {
            node_id,
            applied_index,
            reachable: applied_index > 0,
            ..Default::default()
        };
        list_shards_response::Shard {
            shard,
            leader_node_id: leader,
            replicas: replicas.into_iter().map(replica).collect(),
            ..Default::default()
        }
    }

    /// Shard 0 is on the node named; shard 1 and 2 are not, and one of its replicas is down.
    fn sources() -> Sources {
        let shards = vec![
            shard(0, 2, [(1, 7), (2, 8), (3, 8)]),
            shard(1, 2, [(2, 9), (3, 5), (4, 7)]),
            shard(2, 3, [(2, 0), (3, 5), (4, 0)]),
        ];
        Sources::new(1, "localhost:7400", (1..=4).map(node).collect(), shards)
    }

    #[test]
    fn each_group_is_asked_for_once_and_the_meta_group_last() {
        let sources = sources();
        let mut missing = sources.groups();
        let mut asked = Vec::new();
        while !missing.is_empty() {
            let source = sources.next(&missing, &BTreeSet::new()).expect("somebody has it");
            source.groups.iter().for_each(|group| assert!(missing.remove(group)));
            asked.push((source.node_id, source.groups));
        }
        // Shard 1 from the freshest follower, shard 2 from its leader: nobody else is up.
        assert_eq!(asked, [(3, vec![3]), (4, vec![2]), (1, vec![1]), (1, vec![0])]);
    }

    #[test]
    fn a_node_that_failed_is_not_asked_again() {
        let sources = sources();
        let missing = BTreeSet::from([2]);
        let next = |failed: &[u64]| {
            let failed = failed.iter().copied().collect();
            sources.next(&missing, &failed).map(|source| source.node_id)
        };
        assert_eq!(next(&[4]), Some(3));
        assert_eq!(next(&[4, 3]), Some(2), "the leader is better than nobody");
        assert_eq!(next(&[2, 3, 4]), None);
    }
}
