//! Log time under clocks that step back and leap, and ticks.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{START_MS, enqueue, options, sim};
use switchboard_engine::command::Enqueue;
use switchboard_engine::{Command, ManualClock, Reply};
use switchboard_raft::{Group, Node};

async fn node_with(disk: &switchboard_engine::fs::sim::SimFiles, clock: &Arc<ManualClock>) -> Node {
    let mut options = options(disk);
    options.clock = clock.clone();
    let node = Node::open(options).await.expect("opens");
    node.initialize_single(1).await.expect("made");
    node
}

/// Enqueues a message and returns its time.
async fn enqueued_at(group: &Group, number: u64) -> u64 {
    let proposed = group.propose(vec![enqueue("alice", number, "tick tock")]).expect("room");
    match proposed.await.expect("applied").remove(0) {
        Reply::Enqueued(enqueued) => enqueued.enqueued_at_ms,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn log_time_never_goes_back_and_follows_no_leap() {
    let clock = Arc::new(ManualClock::at_unix_ms(START_MS));
    let node = node_with(&sim(1), &clock).await;
    let group = node.shards()[0].clone();
    assert_eq!(enqueued_at(&group, 1).await, START_MS);
    clock.advance(Duration::from_secs(10));
    assert_eq!(enqueued_at(&group, 2).await, START_MS + 10_000);

    clock.set_unix_ms(START_MS - 3_600_000);
    assert_eq!(enqueued_at(&group, 3).await, START_MS + 10_000, "it stands still");
    assert_eq!(group.status().clock_alarms, 0);

    clock.set_unix_ms(START_MS + 3_600_000);
    clock.advance(Duration::from_secs(8));
    assert_eq!(enqueued_at(&group, 4).await, START_MS + 18_000, "what time has passed");
    clock.advance(Duration::from_secs(8));
    assert_eq!(enqueued_at(&group, 5).await, START_MS + 18_000 + 9_000, "an eighth more");
    assert_eq!((group.status().clock_alarms, group.status().clock_leaping), (1, true));

    clock.set_unix_ms(START_MS + 27_200);
    assert_eq!(enqueued_at(&group, 6).await, START_MS + 27_200);
    assert_eq!((group.status().clock_alarms, group.status().clock_leaping), (1, false));
    node.shutdown().await;
}

#[tokio::test]
async fn a_restart_with_a_clock_behind_goes_on_at_the_last_stamp() {
    let disk = sim(1);
    let clock = Arc::new(ManualClock::at_unix_ms(START_MS));
    let node = node_with(&disk, &clock).await;
    enqueued_at(&node.shards()[0].clone(), 1).await;
    node.shutdown().await;
    drop(node);

    let behind = Arc::new(ManualClock::at_unix_ms(START_MS - 3_600_000));
    let node = node_with(&disk, &behind).await;
    assert_eq!(enqueued_at(&node.shards()[0].clone(), 2).await, START_MS);
    node.shutdown().await;
}

#[tokio::test]
async fn ticks_come_while_something_is_due_and_not_before() {
    let clock = Arc::new(ManualClock::at_unix_ms(START_MS));
    let node = node_with(&sim(1), &clock).await;
    let group = node.shards()[0].clone();
    let Command::Enqueue(message) = enqueue("alice", 1, "short-lived") else { unreachable!() };
    let message = Command::Enqueue(Enqueue { ttl_ms: 5_000, ..message });
    group.propose(vec![message]).expect("room").await.expect("applied");
    let mut events = group.applied_events();
    let due_ms = group.shard().next_due_ms().expect("the message will expire");
    assert!(due_ms >= START_MS + 5_000, "{due_ms}");

    // The next look of the ticker finds it due; until it is gone, further looks do too.
    clock.advance(Duration::from_millis(due_ms - START_MS));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while group.shard().stats().messages > 0 {
        let applied = tokio::time::timeout_at(deadline, events.recv()).await;
        let applied = applied.expect("a tick in time").expect("a tick");
        assert!(applied.items().all(|(command, _)| matches!(command, Command::Tick)));
        clock.advance(Duration::from_secs(40));
    }
    node.shutdown().await;
}
