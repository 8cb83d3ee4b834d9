//! A rolling upgrade: nodes of two releases in one cluster, and the format that rises when the last of
//! them can read it.

use switchboard_api::v1;
use switchboard_engine::Formats;
use switchboard_raft::NodeOpenError;
use switchboard_store::{StartError, StoreConfig};
use tonic::Code;

use crate::harness::{address, assert_error, member, start_configured};
use crate::members::{Nodes, send};
use crate::waiting::{refused, retried, until};

const OLD: Formats = Formats { oldest: 1, newest: 1 };
const NEW: Formats = Formats { oldest: 1, newest: 2 };

/// Stops the third node, and starts it as a release that reads these formats.
async fn restart_third(nodes: &mut Nodes, formats: Formats) -> Result<(), StartError> {
    let stopped = nodes.stores.remove(2);
    let listen = address(&stopped.running, "store-grpc");
    stopped.running.shutdown().await;
    let dir = nodes.dirs[2].path();
    let again = StoreConfig { listen, formats, ..member(dir, 3) };
    let started = start_configured(again).await?;
    started.running.ready().await;
    nodes.stores.push(started);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_format_rises_only_when_every_node_reads_it() {
    let mut nodes = Nodes::made_reading([NEW, NEW, OLD]).await;
    let upgrade = v1::UpgradeRequest::default();
    let refusal = refused(async || nodes.stores[1].cluster.upgrade(upgrade).await).await;
    assert_error(&refusal, Code::FailedPrecondition, "FORMAT_NOT_READ", false);
    assert!(refusal.message().contains("node 3"), "{refusal:?}");
    for n in 0..9 {
        send(&mut nodes.stores[n % 3], "bob", n as u64).await;
    }

    restart_third(&mut nodes, NEW).await.expect("it starts");
    // It takes a moment until the others can reach it again.
    let plan = v1::UpgradeRequest { to_format: 2, dry_run: true };
    until("the third node is heard", async || nodes.stores[0].cluster.upgrade(plan).await.is_ok())
        .await;
    let raised = retried(async || nodes.stores[0].cluster.upgrade(upgrade).await).await;
    let raised = raised.into_inner();
    assert_eq!((raised.format_before, raised.format_active, raised.nodes.len()), (1, 2, 3));
    for store in &mut nodes.stores {
        until("every node knows", async || {
            let status = store.cluster.status(v1::StatusRequest {}).await.unwrap().into_inner();
            status.format_active == 2
        })
        .await;
    }
    send(&mut nodes.stores[2], "bob", 9).await;
    nodes.assert_equal_replicas().await;

    let found = restart_third(&mut nodes, OLD).await;
    let refused =
        matches!(found, Err(StartError::Open(NodeOpenError::Format { active: 2, formats: OLD })));
    assert!(refused, "{found:?}");
    nodes.shutdown().await;
}
