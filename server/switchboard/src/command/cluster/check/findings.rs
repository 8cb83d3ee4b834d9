//! What is in a cluster's way: measured figures against what `docs/operations.md` says to expect.

use super::load::Measured;
use super::probe::Probed;

/// Every acknowledgement waits for a sync on two of three disks: one that takes longer is felt by all.
const SYNC_P50_MS_MAX: f64 = 2.0;
/// The slowest syncs delay heartbeats of the whole node; elections begin at 250 ms.
const SYNC_P99_MS_MAX: f64 = 50.0;
/// Nodes of one cluster stand near each other; a heartbeat is sent every 100 ms.
const ROUND_TRIP_P50_MS_MAX: f64 = 10.0;
/// Half of the jump of a clock at which a leader waits for the others' clocks.
const CLOCK_MS_MAX: i64 = 250;
/// How many times as slow as the others a node is before it is called slow.
const SLOWER_THAN_OTHERS: f64 = 3.0;
/// Differences of less than this are no matter (ms).
const SLOWER_BY_MS: f64 = 0.5;

/// All that is wrong, in words.
pub(super) fn find(nodes: &[Probed], load: &[Measured]) -> Vec<String> {
    let mut found = Vec::new();
    for node in nodes {
        unreachable(node, &mut found);
        disk(node, nodes, &mut found);
        ways(node, nodes, &mut found);
    }
    clocks(nodes, &mut found);
    for measured in load {
        answers(measured, &mut found);
    }
    found
}

fn unreachable(node: &Probed, found: &mut Vec<String>) {
    if !node.fault.is_empty() {
        found.push(format!("node {} was not measured: {}", node.node_id, node.fault));
    }
    for peer in node.peers.iter().filter(|peer| peer.round_trip_ms.is_none()) {
        found.push(format!("node {} gets no answer from node {}", node.node_id, peer.node_id));
    }
}

fn disk(node: &Probed, nodes: &[Probed], found: &mut Vec<String>) {
    let Some(sync) = &node.sync_ms else { return };
    let id = node.node_id;
    if sync.p50 > SYNC_P50_MS_MAX {
        found.push(format!(
            "the disk of node {id} is slow: {:.1} ms a sync at p50, where {SYNC_P50_MS_MAX} ms are \
             expected; look for a disk without a write cache that survives power loss",
            sync.p50
        ));
    }
    if sync.p99 > SYNC_P99_MS_MAX {
        found.push(format!(
            "the disk of node {id} stalls: {:.0} ms a sync at p99, where {SYNC_P99_MS_MAX} ms are \
             expected; look for what else writes to it",
            sync.p99
        ));
    }
    let others = nodes.iter().filter(|other| other.node_id != id);
    let others = others.filter_map(|other| other.sync_ms.map(|sync| sync.p50));
    if let Some(usual) = median(others)
        && is_slower(sync.p50, usual)
    {
        found.push(format!(
            "the disk of node {id} is slower than the others: {:.2} ms a sync where they need {usual:.2} ms",
            sync.p50
        ));
    }
}

/// A node is far away if all others say so; one that finds another far may be slow itself.
fn ways(node: &Probed, nodes: &[Probed], found: &mut Vec<String>) {
    let id = node.node_id;
    let trips = |about: &dyn Fn(u64, u64) -> bool| {
        let mut trips = Vec::new();
        for from in nodes {
            for peer in from.peers.iter().filter(|peer| about(from.node_id, peer.node_id)) {
                trips.extend(peer.round_trip_ms.map(|trip| trip.p50));
            }
        }
        trips
    };
    let to_it = trips(&|from, to| from == id || to == id);
    let among_others = trips(&|from, to| from != id && to != id);
    let Some(own) = median(to_it.into_iter()) else { return };
    if own > ROUND_TRIP_P50_MS_MAX {
        found.push(format!(
            "node {id} is far from the others: {own:.1} ms a round trip, where {ROUND_TRIP_P50_MS_MAX} ms \
             are expected"
        ));
    }
    if let Some(usual) = median(among_others.into_iter())
        && is_slower(own, usual)
    {
        found.push(format!(
            "node {id} answers slower than the others: {own:.2} ms a round trip where they need {usual:.2} \
             ms; look at its CPU and its network"
        ));
    }
}

/// Of each pair once, and by whoever is ahead.
fn clocks(nodes: &[Probed], found: &mut Vec<String>) {
    for node in nodes {
        for peer in node.peers.iter().filter(|peer| peer.round_trip_ms.is_some()) {
            if peer.clock_ahead_ms > CLOCK_MS_MAX {
                found.push(format!(
                    "the clock of node {} is {} ms ahead of that of node {}; let both follow a time \
                     server",
                    peer.node_id, peer.clock_ahead_ms, node.node_id
                ));
            }
        }
    }
}

fn answers(measured: &Measured, found: &mut Vec<String>) {
    let what = measured.what;
    if measured.refused > 0 {
        found.push(format!("{} {what} were refused", measured.refused));
    }
    if let Some(expected) = measured.p99_ms_expected
        && measured.p99_ms > expected
    {
        found.push(format!(
            "{what} take {:.1} ms at p99, where {expected} ms are expected at this rate",
            measured.p99_ms
        ));
    }
}

fn is_slower(own: f64, usual: f64) -> bool {
    own > usual * SLOWER_THAN_OTHERS && own - usual > SLOWER_BY_MS
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::super::probe::{Peer, Times};
    use super::*;

    fn times(p50: f64, p99: f64) -> Option<Times> {
        Some(Times { p50, p99, max: p99 })
    }

    /// Three nodes in which nothing is wrong.
    fn cluster() -> Vec<Probed> {
        let peer = |node_id| Peer { node_id, round_trip_ms: times(0.2, 1.0), clock_ahead_ms: 3 };
        let node = |node_id: u64| Probed {
            node_id,
            sync_ms: times(0.3, 2.0),
            peers: (1..=3).filter(|other| *other != node_id).map(peer).collect(),
            ..Probed::default()
        };
        (1..=3).map(node).collect()
    }

    #[test]
    fn a_sound_cluster_has_nothing_in_its_way() {
        assert_eq!(find(&cluster(), &[]), Vec::<String>::new());
    }

    #[test]
    fn one_slow_disk_is_named() {
        let mut nodes = cluster();
        nodes[1].sync_ms = times(1.5, 4.0);
        let found = find(&nodes, &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("node 2 is slower than the others"), "{found:?}");
        nodes[1].sync_ms = times(8.0, 90.0);
        let found = find(&nodes, &[]).join("\n");
        assert!(found.contains("is slow") && found.contains("stalls"), "{found}");
    }

    #[test]
    fn one_node_that_answers_slowly_is_named_once() {
        let mut nodes = cluster();
        for node in &mut nodes {
            let own = node.node_id;
            for peer in node.peers.iter_mut().filter(|peer| own == 3 || peer.node_id == 3) {
                peer.round_trip_ms = times(4.0, 9.0);
            }
        }
        let found = find(&nodes, &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("node 3 answers slower"), "{found:?}");
    }

    #[test]
    fn clocks_and_nodes_that_do_not_answer_are_named() {
        let mut nodes = cluster();
        nodes[0].peers[1].clock_ahead_ms = 700;
        nodes[2].peers[0].clock_ahead_ms = -700;
        nodes[1].peers[0].round_trip_ms = None;
        nodes[2].fault = "it does not answer".to_owned();
        let found = find(&nodes, &[]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().any(|one| one.contains("clock of node 3 is 700 ms ahead")));
        assert!(found.iter().any(|one| one.contains("node 2 gets no answer from node 1")));
        assert!(found.iter().any(|one| one.contains("node 3 was not measured")));
    }

    #[test]
    fn load_that_is_refused_or_slow_is_named() {
        let measured = Measured {
            what: "claims",
            offered_per_s: Some(500.0),
            items_per_s: 480.0,
            p50_ms: 2.0,
            p99_ms: 80.0,
            p99_ms_expected: Some(25.0),
            refused: 7,
        };
        let found = find(&cluster(), &[measured]);
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
