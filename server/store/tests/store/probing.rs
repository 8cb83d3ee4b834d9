//! Nodes measure themselves and their ways to the others.

use switchboard_api::v1::ProbeRequest;
use tonic::Code;

use crate::{harness::assert_error, members::Nodes, waiting::found};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_measures_its_disk_and_its_ways_to_the_others() {
    let nodes = Nodes::made().await;
    let mut cluster = nodes.stores[0].cluster.clone();
    let mut again = cluster.clone();
    let request = ProbeRequest { syncs: 3 };
    // One at a time: two would measure each other. That both are under way at once may take several tries.
    let (probed, refusal) = found("two at once", async || {
        match tokio::join!(cluster.probe(request), again.probe(request)) {
            (Ok(probed), Err(refusal)) | (Err(refusal), Ok(probed)) => Some((probed, refusal)),
            (Ok(_), Ok(_)) => None,
            (Err(one), Err(other)) => panic!("{one:?}, {other:?}"),
        }
    })
    .await;
    assert_error(&refusal, Code::ResourceExhausted, "PROBE_UNDER_WAY", false);
    let probed = probed.into_inner();
    assert_eq!((probed.node_id, probed.sync_us.len()), (1, 3));
    let peers: Vec<u64> = probed.peers.iter().map(|peer| peer.node_id).collect();
    assert_eq!(peers, [2, 3]);
    for peer in probed.peers {
        assert!(!peer.round_trip_us.is_empty(), "node {} answers", peer.node_id);
        // They run on one machine; how far a clock is off is known to half of the way there and back.
        let unsure_ms = u64::from(*peer.round_trip_us.iter().max().unwrap()) / 1_000;
        assert!(peer.clock_ahead_ms.unsigned_abs() <= unsure_ms + 1, "{peer:?}");
    }
    nodes.shutdown().await;
}
