//! Status and the shard map.

use switchboard_api::v1;
use tonic::Code;

use crate::harness::{address, assert_error, message, start};

#[tokio::test(flavor = "multi_thread")]
async fn the_shard_map_names_this_node_for_every_shard() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let map = store.cluster.shard_map(v1::ShardMapRequest {}).await.unwrap().into_inner();
    assert_eq!((map.shards, map.nodes.len(), map.placement.len()), (4, 1, 4));
    assert!(map.placement_version > 0);
    assert_eq!(map.nodes[0].node_id, 1);
    assert_eq!(map.nodes[0].address, address(&store.running, "store-grpc").to_string());
    for (shard, info) in (0..).zip(&map.placement) {
        assert_eq!((info.shard, info.leader_node_id), (shard, 1));
        assert_eq!(info.replica_node_ids, [1]);
    }
    let request = v1::WatchShardMapRequest {};
    let mut maps = store.cluster.watch_shard_map(request).await.unwrap().into_inner();
    assert_eq!(maps.message().await.unwrap().unwrap().map, Some(map));
    store.running.shutdown().await;
    assert_error(&maps.message().await.unwrap_err(), Code::Unavailable, "STOPPING", true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_counts_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    for n in 0..20 {
        store.enqueue(message("alice", &format!("user-{n}"), n, b"12345")).await;
    }
    let status = store.cluster.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.node_id, status.disk_id.len()), (1, 32));
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert!(status.log_segments > 0 && status.log_bytes > 0);
    assert_eq!(status.shards.len(), 4);
    assert_eq!(status.shards.iter().map(|s| s.messages).sum::<u64>(), 20);
    assert_eq!(status.shards.iter().map(|s| s.message_bytes).sum::<u64>(), 100);
    for shard in &status.shards {
        assert!(shard.purged_index <= shard.checkpoint_index || shard.checkpoint_index == 0);
        assert!(shard.applied_index <= shard.committed_index.max(shard.last_log_index));
        assert!(shard.term > 0 && shard.log_time_ms > 0);
    }
    store.running.shutdown().await;
}
