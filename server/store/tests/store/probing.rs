//! Nodes measure themselves and their ways to the others.

use switchboard_api::v1::ProbeRequest;
use tonic::Code;

use crate::{harness::assert_error, members::Nodes};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_measures_its_disk_and_its_ways_to_the_others() {
    let nodes = Nodes::made().await;
    let mut cluster = nodes.stores[0].cluster.clone();
    let mut again = cluster.clone();
    let request = ProbeRequest { syncs: 3 };
    let (probed, second) = tokio::join!(cluster.probe(request), again.probe(request));
    // One at a time: two would measure each other.
    let (probed, refused) = if probed.is_ok() { (probed, second) } else { (second, probed) };
    assert_error(&refused.unwrap_err(), Code::ResourceExhausted, "PROBE_UNDER_WAY", false);
    let probed = probed.unwrap().into_inner();
    assert_eq!((probed.node_id, probed.sync_us.len()), (1, 3));
    let peers: Vec<u64> = probed.peers.iter().map(|peer| peer.node_id).collect();
    assert_eq!(peers, [2, 3]);
    for peer in probed.peers {
        assert!(!peer.round_trip_us.is_empty(), "node {} answers", peer.node_id);
        // They run on one machine.
        assert!(peer.clock_ahead_ms.abs() < 1_000, "{}", peer.clock_ahead_ms);
    }
    nodes.shutdown().await;
}
