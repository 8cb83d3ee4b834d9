//! Which node gets what: the shard map as the client sees it.

use std::sync::Arc;

use switchboard_api::{shard_of, v1::ShardMapResponse};

use crate::node::Node;

/// A snapshot; replaced as a whole when the map changes.
///
/// Any node answers any request by passing it on, so a wrong or missing leader costs a hop and
/// never an error.
pub(crate) struct Routes {
    /// Index into `nodes` of each shard's leader. One entry when no map is known yet.
    leaders: Vec<usize>,
    /// The nodes of the map, then the seeds that are not among them. Not empty.
    nodes: Vec<Arc<Node>>,
}

impl Routes {
    /// Before the first shard map: every node is as good as another.
    pub(crate) fn seeds(nodes: Vec<Arc<Node>>) -> Self {
        Self { leaders: vec![0], nodes }
    }

    /// `node` finds or makes the node of an address.
    pub(crate) fn new(
        map: &ShardMapResponse,
        seeds: &[Arc<Node>],
        mut node: impl FnMut(&str) -> Option<Arc<Node>>,
    ) -> Self {
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        let mut ids: Vec<(u64, usize)> = Vec::new();
        for info in &map.nodes {
            if let Some(node) = node(&info.address) {
                ids.push((info.node_id, nodes.len()));
                nodes.push(node);
            }
        }
        for seed in seeds {
            if !nodes.iter().any(|node| node.health.address() == seed.health.address()) {
                nodes.push(seed.clone());
            }
        }
        let shards = map.shards.max(1);
        let mut leaders: Vec<usize> =
            (0..shards as usize).map(|shard| shard % nodes.len().max(1)).collect();
        for info in &map.placement {
            let leader = ids.iter().find(|(id, _)| *id == info.leader_node_id);
            if let (Some(slot), Some((_, at))) = (leaders.get_mut(info.shard as usize), leader) {
                *slot = *at;
            }
        }
        Self { leaders, nodes }
    }

    /// Whether all goes to one node anyway.
    pub(crate) fn is_single(&self) -> bool {
        self.nodes.len() == 1
    }

    /// The node for a user: the leader of its shard, or while that is avoided any other.
    /// `attempt` turns to further nodes at each retry.
    pub(crate) fn for_user(&self, user: &[u8], attempt: usize) -> &Arc<Node> {
        self.from(self.leader(user), attempt)
    }

    fn leader(&self, user: &[u8]) -> usize {
        let shard = shard_of(user, self.leaders.len() as u32) as usize;
        self.leaders.get(shard).copied().unwrap_or(0)
    }

    /// A node for what concerns no user.
    pub(crate) fn any(&self, attempt: usize) -> &Arc<Node> {
        self.from(0, attempt)
    }

    /// All nodes but one; those that are avoided come last.
    pub(crate) fn others(&self, node: &Arc<Node>) -> Vec<&Arc<Node>> {
        let mut others: Vec<_> =
            self.nodes.iter().filter(|other| !Arc::ptr_eq(other, node)).collect();
        others.sort_by_cached_key(|other| other.health.is_avoided());
        others
    }

    fn from(&self, first: usize, attempt: usize) -> &Arc<Node> {
        let count = self.nodes.len();
        let in_turn = (0..count).map(|n| &self.nodes[(first + attempt + n) % count]);
        let preferred = &self.nodes[(first + attempt) % count];
        in_turn.into_iter().find(|node| !node.health.is_avoided()).unwrap_or(preferred)
    }
}

/// Items for one node, with their places in the call.
pub(crate) struct Part<T> {
    pub(crate) node: Arc<Node>,
    pub(crate) items: Vec<T>,
    /// `places[i]` is the index of `items[i]` in the whole call.
    pub(crate) places: Vec<usize>,
}

/// Deals the items of a call out to nodes; the order within each part is that of the call, and the
/// items of one user are in one part.
pub(crate) fn split<T>(
    routes: &Routes,
    items: Vec<T>,
    attempt: usize,
    user: impl Fn(&T) -> &[u8],
) -> Vec<Part<T>> {
    let mut parts: Vec<Part<T>> = Vec::new();
    if routes.is_single() && !items.is_empty() {
        let places = (0..items.len()).collect();
        return vec![Part { node: routes.any(attempt).clone(), items, places }];
    }
    // Looked up once: a node may come to be avoided meanwhile.
    let takers: Vec<_> =
        (0..routes.nodes.len()).map(|leader| routes.from(leader, attempt)).collect();
    for (place, item) in items.into_iter().enumerate() {
        let node = takers[routes.leader(user(&item))];
        let part = match parts.iter_mut().find(|part| Arc::ptr_eq(&part.node, node)) {
            Some(part) => part,
            None => {
                let node = node.clone();
                parts.push(Part { node, items: Vec::new(), places: Vec::new() });
                let last = parts.len() - 1;
                &mut parts[last]
            }
        };
        part.items.push(item);
        part.places.push(place);
    }
    parts
}

/// Collects the answers of the parts of a call in the order of the call.
pub(crate) struct Merge<R> {
    answers: Vec<Option<R>>,
    parts_missing: usize,
}

impl<R> Merge<R> {
    pub(crate) fn new(items: usize, parts: usize) -> Self {
        Self { answers: (0..items).map(|_| None).collect(), parts_missing: parts }
    }

    /// Takes the answers of one part; true once all parts are there.
    pub(crate) fn add(&mut self, places: &[usize], answers: Vec<R>) -> bool {
        for (place, answer) in places.iter().zip(answers) {
            if let Some(slot) = self.answers.get_mut(*place) {
                *slot = Some(answer);
            }
        }
        self.parts_missing = self.parts_missing.saturating_sub(1);
        self.parts_missing == 0
    }

    /// All answers; those that never came are `missing()`.
    pub(crate) fn finish(self, mut missing: impl FnMut() -> R) -> Vec<R> {
        self.answers.into_iter().map(|answer| answer.unwrap_or_else(&mut missing)).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use switchboard_api::v1::{NodeInfo, ShardInfo};
    use tokio::sync::Notify;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::ClientOptions;

    fn node(address: &str) -> Arc<Node> {
        let (refresh, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        Arc::new(Node::new(address, &ClientOptions::default(), refresh, &stop).unwrap())
    }

    /// Two nodes; node 7 leads even shards, node 9 odd ones.
    fn routes(seed: &Arc<Node>) -> Routes {
        let info = |node_id, address: &str| NodeInfo { node_id, address: address.into() };
        let map = ShardMapResponse {
            placement_version: 1,
            shards: 4,
            nodes: vec![info(7, "127.0.0.1:7"), info(9, "127.0.0.1:9")],
            placement: (0..4)
                .map(|shard| ShardInfo {
                    shard,
                    leader_node_id: if shard % 2 == 0 { 7 } else { 9 },
                    replica_node_ids: vec![7, 9],
                })
                .collect(),
        };
        Routes::new(&map, std::slice::from_ref(seed), |address| Some(node(address)))
    }

    #[tokio::test]
    async fn items_go_to_their_leaders_and_come_back_in_order() {
        let routes = routes(&node("127.0.0.1:7"));
        assert_eq!(routes.nodes.len(), 2, "the seed is node 7");
        let users: Vec<Bytes> = (0..50).map(|n| Bytes::from(format!("user-{n}"))).collect();
        let parts = split(&routes, users.clone(), 0, |user| user);
        assert_eq!(parts.len(), 2);
        let mut merge = Merge::new(users.len(), parts.len());
        let mut complete = false;
        for part in parts {
            assert!(part.places.is_sorted());
            for user in &part.items {
                let leader =
                    if shard_of(user, 4).is_multiple_of(2) { "127.0.0.1:7" } else { "127.0.0.1:9" };
                assert_eq!(part.node.health.address(), leader);
            }
            assert!(!complete);
            complete = merge.add(&part.places, part.items);
        }
        assert!(complete);
        assert_eq!(merge.finish(Bytes::new), users);
    }

    #[tokio::test]
    async fn a_user_stays_in_one_part_when_a_node_comes_to_be_avoided_meanwhile() {
        let routes = routes(&node("127.0.0.1:7"));
        let parts = split(&routes, vec![1, 2, 3], 0, |_| {
            routes.for_user(b"alice", 0).health.down();
            b"alice"
        });
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].items, [1, 2, 3]);
    }

    #[tokio::test]
    async fn a_leader_that_is_avoided_is_replaced_by_any_other() {
        let routes = routes(&node("127.0.0.1:1"));
        assert_eq!(routes.nodes.len(), 3);
        let user = b"alice";
        let leader = routes.for_user(user, 0).clone();
        leader.health.down();
        let other = routes.for_user(user, 0).clone();
        assert_ne!(other.health.address(), leader.health.address());
        for node in &routes.nodes {
            node.health.down();
        }
        assert!(Arc::ptr_eq(routes.for_user(user, 0), &leader), "when all are, the leader");
    }

    #[tokio::test]
    async fn without_a_map_all_goes_to_a_seed() {
        let routes = Routes::seeds(vec![node("127.0.0.1:1")]);
        assert!(routes.is_single());
        assert_eq!(routes.for_user(b"bob", 3).health.address(), "127.0.0.1:1");
        assert!(split(&routes, Vec::<Bytes>::new(), 0, |user| user).is_empty());
    }
}
