use super::*;

fn node(node_id: NodeId, zone: &str) -> Node {
    Node { node_id, zone: zone.to_owned(), stays: true, is_full: false }
}

fn shards(count: u32, replicas: &[NodeId]) -> Vec<Shard> {
    let shard = |shard| Shard { shard, replicas: replicas.to_vec(), moving: None };
    (0..count).map(shard).collect()
}

/// The shards as they are when all moves are done; each must be possible.
fn carried_out(shards: &[Shard], moves: &[ReplicaMove]) -> Vec<Shard> {
    let mut after = shards.to_vec();
    for ReplicaMove { shard, from, to } in moves {
        let found = after.iter_mut().find(|known| known.shard == *shard).unwrap();
        assert!(found.replicas.contains(from), "{from} has no replica of {shard}");
        assert!(!found.replicas.contains(to), "{to} has a replica of {shard} already");
        found.replicas.retain(|node| node != from);
        found.replicas.push(*to);
    }
    after
}

fn counts(nodes: &[Node], shards: &[Shard]) -> Vec<usize> {
    let count = |node: &Node| shards.iter().filter(|s| s.replicas.contains(&node.node_id)).count();
    nodes.iter().map(count).collect()
}

/// Plans and carries out until nothing is left to do.
fn settle(nodes: &[Node], shards: &[Shard]) -> (Vec<Shard>, usize) {
    let (mut now, mut moved) = (shards.to_vec(), 0);
    for _ in 0..100 {
        let moves = plan(nodes, &now);
        if moves.is_empty() {
            return (now, moved);
        }
        moved += moves.len();
        now = carried_out(&now, &moves);
    }
    panic!("it never ends");
}

#[test]
fn a_balanced_cluster_gets_no_moves() {
    let nodes = [node(1, ""), node(2, ""), node(3, "")];
    assert_eq!(plan(&nodes, &shards(16, &[1, 2, 3])), []);
}

#[test]
fn new_nodes_get_their_share_with_the_fewest_moves() {
    let nodes: Vec<Node> = (1..=5).map(|id| node(id, "")).collect();
    let (after, moved) = settle(&nodes, &shards(16, &[1, 2, 3]));
    let mut counts = counts(&nodes, &after);
    // Two of 48 / 5 replicas each are missing, and no more are moved.
    assert_eq!(moved, counts[3] + counts[4]);
    counts.sort_unstable();
    assert_eq!(counts, [9, 9, 10, 10, 10]);
}

#[test]
fn a_node_that_is_drained_is_emptied() {
    let mut nodes: Vec<Node> = (1..=4).map(|id| node(id, "")).collect();
    nodes[0].stays = false;
    let (after, moved) = settle(&nodes, &shards(8, &[1, 2, 3]));
    assert_eq!((counts(&nodes, &after)[0], moved), (0, 8));
    nodes[3].stays = false;
    assert_eq!(stuck(&nodes, &shards(2, &[1, 2, 3])), [0, 1]);
    assert_eq!(plan(&nodes, &shards(2, &[1, 2, 3])), []);
}

#[test]
fn a_node_whose_disk_is_almost_full_keeps_what_it_has_and_gets_no_more() {
    let mut nodes: Vec<Node> = (1..=5).map(|id| node(id, "")).collect();
    nodes[3].is_full = true;
    let (after, _) = settle(&nodes, &shards(8, &[1, 2, 3]));
    assert_eq!(counts(&nodes, &after), [6, 6, 6, 0, 6]);
    nodes[0].stays = false;
    nodes[4].is_full = true;
    assert_eq!(stuck(&nodes, &shards(1, &[1, 2, 3])), [0]);
    assert_eq!(settle(&nodes, &shards(1, &[2, 3, 4])).1, 0);
}

#[test]
fn replicas_stand_in_as_many_zones_as_they_can() {
    let nodes = [node(1, "a"), node(2, "a"), node(3, "b"), node(4, "c")];
    let (after, _) = settle(&nodes, &shards(4, &[1, 2, 3]));
    for shard in after {
        assert!(!(shard.replicas.contains(&1) && shard.replicas.contains(&2)), "{shard:?}");
    }
}

#[test]
fn what_is_on_its_way_counts_as_done() {
    let nodes = [node(1, ""), node(2, ""), node(3, ""), node(4, "")];
    let mut all = shards(4, &[1, 2, 3]);
    let moves = plan(&nodes, &all);
    for moving in &moves {
        all[moving.shard as usize].moving = Some(*moving);
    }
    assert!(!moves.is_empty());
    assert_eq!(plan(&nodes, &all), []);
}

/// Any cluster: a plan is possible, it ends, and at its end nobody that takes none has a replica if
/// others could take it, and no move would make it better.
#[test]
fn any_cluster_comes_to_rest() {
    let mut seed = 1_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..300 {
        let count = 1 + random(7);
        let zones = 1 + random(4);
        let mut nodes: Vec<Node> = (1..=count)
            .map(|id| Node {
                node_id: id,
                zone: ["", "a", "b", "c"][random(zones) as usize].to_owned(),
                stays: random(5) > 0,
                is_full: random(8) == 0,
            })
            .collect();
        nodes[0].stays = true;
        let all: Vec<Shard> = (0..random(20) as u32)
            .map(|shard| {
                let mut replicas: Vec<NodeId> = (1..=count).filter(|_| random(2) == 0).collect();
                replicas.truncate(3);
                if replicas.is_empty() {
                    replicas.push(1 + random(count));
                }
                Shard { shard, replicas, moving: None }
            })
            .collect();
        let (after, _) = settle(&nodes, &all);
        let left: BTreeSet<u32> = stuck(&nodes, &after).into_iter().collect();
        for (before, shard) in all.iter().zip(&after) {
            let distinct: BTreeSet<_> = shard.replicas.iter().collect();
            assert_eq!(
                (distinct.len(), shard.replicas.len()),
                (before.replicas.len(), before.replicas.len())
            );
            let lingers = |id: &NodeId| nodes.iter().any(|n| n.node_id == *id && !n.stays);
            let is_stuck = left.contains(&shard.shard);
            assert!(is_stuck || !shard.replicas.iter().any(lingers), "{shard:?}");
            let got = shard.replicas.iter().filter(|node| !before.replicas.contains(node));
            for node in got {
                assert!(nodes.iter().any(|n| n.node_id == *node && n.takes()), "{shard:?}");
            }
        }
    }
}
