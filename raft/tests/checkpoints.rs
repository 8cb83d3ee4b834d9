//! Checkpoints by bytes: the log is purged, and a restart has everything.

mod support;

use std::time::Duration;

use support::{ack, bodies, contents, enqueue, options, seqs, sim};
use switchboard_engine::fs::sim::SimFiles;
use switchboard_raft::{Group, GroupStatus, Node, NodeOptions};

const DEADLINE: Duration = Duration::from_secs(60);

/// Polls a replica's status until it is as wanted.
async fn until(group: &Group, wanted: impl Fn(&GroupStatus) -> bool) -> GroupStatus {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let status = group.status();
        if wanted(&status) {
            return status;
        }
        assert!(tokio::time::Instant::now() < deadline, "not in time: {status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn made(options: NodeOptions, shards: u32) -> Node {
    let node = Node::open(options).await.expect("opens");
    node.initialize_single(shards).await.expect("made");
    node
}

fn small(disk: &SimFiles, checkpoint_bytes: u64, log_bytes_max: u64) -> NodeOptions {
    let mut options = options(disk);
    options.log.segment_bytes = 4 << 20;
    options.checkpoint_bytes = checkpoint_bytes;
    options.log_bytes_max = log_bytes_max;
    options
}

/// Sends so many messages of about 8 KiB, and acknowledges all but every tenth.
async fn write(group: &Group, user: &str, from: u64, messages: u64) {
    for number in from..from + messages {
        let body = format!("{number}:{}", "x".repeat(8 << 10));
        group.propose(vec![enqueue(user, number, &body)]).expect("room").await.expect("applied");
        if number % 10 == 9 {
            let waiting = seqs(group, user);
            let keep_last = waiting[waiting.len() - 2];
            group.propose(vec![ack(user, keep_last)]).expect("room").await.expect("applied");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_beyond_its_bytes_is_checkpointed_purged_and_restored() {
    let disk = sim(1);
    let node = made(small(&disk, 512 << 10, 1 << 30), 1).await;
    let group = node.shards()[0].clone();
    write(&group, "alice", 0, 100).await;
    let first = until(&group, |status| status.purged.is_some()).await;
    assert!(first.purged <= first.checkpoint && first.checkpoint <= first.applied, "{first:?}");
    write(&group, "alice", 100, 100).await;
    until(&group, |status| status.purged > first.purged).await;
    until(&group, |status| status.log_bytes < 1 << 20).await;

    let (before, kept) = (contents(&group), bodies(&group, "alice"));
    node.shutdown().await;
    drop((node, group));
    let node = made(small(&disk, 512 << 10, 1 << 30), 1).await;
    let group = node.shards()[0].clone();
    assert_eq!(contents(&group), before);
    assert_eq!(bodies(&group, "alice"), kept);
    assert!(group.status().checkpoint >= first.checkpoint);
    write(&group, "alice", 200, 100).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_group_does_not_pin_the_log_of_a_busy_one() {
    let disk = sim(1);
    // No group reaches its own bound; the log as a whole does.
    let node = made(small(&disk, 1 << 30, 1 << 20), 2).await;
    let busy = node.shard_for(b"alice").expect("here");
    let quiet = node.shards().iter().find(|group| group.id() != busy.id()).expect("two").clone();
    write(&busy, "alice", 0, 300).await;
    for group in [&quiet, &busy, node.meta()] {
        until(group, |status| status.purged.is_some()).await;
    }
    node.shutdown().await;
}
