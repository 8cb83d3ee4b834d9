//! A node of its own, from the first start over crashes to the next one.

mod support;

use std::time::Duration;

use support::{ack, claim, enqueue, open, options, sim};
use switchboard_engine::{Command, Reply, Status};
use switchboard_raft::{Consistency, InitializeError, Role};
use tokio::time::Instant;

fn statuses(replies: &[Reply]) -> Vec<Status> {
    replies.iter().map(support::status).collect()
}

#[tokio::test]
async fn a_fresh_directory_has_a_meta_group_without_members() {
    let node = open(&sim(1)).await;
    assert_eq!(node.shard_count(), None);
    assert!(node.shards().is_empty());
    assert!(node.shard_for(b"alice").is_none());
    assert_eq!(node.meta().status().voters, Vec::<u64>::new());
    assert_ne!(node.meta().status().role, Role::Leader);
    node.shutdown().await;
}

#[tokio::test]
async fn initializing_twice_changes_nothing() {
    let node = open(&sim(1)).await;
    node.initialize_single(4).await.expect("made");
    assert_eq!((node.shard_count(), node.shards().len()), (Some(4), 4));
    let applied: Vec<_> = node.groups().iter().map(|group| group.shard().applied()).collect();
    node.initialize_single(4).await.expect("was made");
    let again: Vec<_> = node.groups().iter().map(|group| group.shard().applied()).collect();
    assert_eq!(applied, again);
    let other = node.initialize_single(8).await.expect_err("fixed");
    assert!(matches!(other, InitializeError::OtherShards { asked: 8, found: 4 }));
    let none = node.initialize_single(6).await.expect_err("no power of two");
    assert!(matches!(none, InitializeError::Shards { shards: 6 }));
    for group in node.groups() {
        assert_eq!(group.status().role, Role::Leader);
    }
    node.shutdown().await;
}

#[tokio::test]
async fn commands_are_applied_in_order_and_answered_one_by_one() {
    let node = open(&sim(1)).await;
    node.initialize_single(1).await.expect("made");
    let group = node.shard_for(b"alice").expect("here");
    let first = group.propose(vec![claim("alice", 1), enqueue("alice", 1, "one")]).expect("room");
    let second = group.propose(vec![enqueue("alice", 2, "two")]).expect("room");
    let replies = first.await.expect("applied");
    assert_eq!(statuses(&replies), [Status::Ok, Status::Ok]);
    let Reply::Enqueued(enqueued) = &replies[1] else { panic!("{replies:?}") };
    assert_eq!(enqueued.sessions.len(), 1, "the claim before it is seen");
    let replies = second.await.expect("applied");
    let Reply::Enqueued(enqueued) = &replies[0] else { panic!("{replies:?}") };
    let seqs = support::seqs(&group, "alice");
    assert_eq!(seqs.len(), 2);
    assert_eq!((enqueued.stored[0].prev_seq, enqueued.stored[0].seq), (seqs[0], seqs[1]));
    node.shutdown().await;
}

#[tokio::test]
async fn reads_pass_every_barrier_on_the_only_voter() {
    let node = open(&sim(1)).await;
    node.initialize_single(1).await.expect("made");
    let group = node.shards()[0].clone();
    group.propose(vec![claim("alice", 1)]).expect("room").await.expect("applied");
    for consistency in [Consistency::Local, Consistency::Lease, Consistency::Linearizable] {
        let staleness = group.barrier(consistency).await.expect("leads");
        assert_eq!((staleness.ms, staleness.applied), (Some(0), group.shard().applied()));
    }
    let many = (0..500).map(|_| group.barrier(Consistency::Linearizable));
    for passed in futures::future::join_all(many).await {
        passed.expect("leads");
    }
    let applied = group.shard().applied().expect("entries").index;
    let soon = Instant::now() + Duration::from_millis(20);
    group.wait_applied(applied, soon).await.expect("is applied");
    let later = group.wait_applied(applied + 1, soon).await.expect_err("is not");
    assert!(later.to_string().contains("was not applied in time"));
    let waiting = group.wait_applied(applied + 1, Instant::now() + Duration::from_secs(60));
    let (waited, _) = futures::join!(waiting, async {
        group.propose(vec![ack("alice", 0)]).expect("room").await
    });
    waited.expect("applied meanwhile");
    node.shutdown().await;
}

#[tokio::test]
async fn watchers_see_each_entry_with_its_replies_and_are_told_when_they_lag() {
    let node = open(&sim(1)).await;
    node.initialize_single(1).await.expect("made");
    let group = node.shards()[0].clone();
    let mut events = group.applied_events();
    group.propose(vec![claim("alice", 7), Command::Tick]).expect("room").await.expect("applied");
    let applied = events.recv().await.expect("an entry");
    assert_eq!(Some(applied.log_id), group.shard().applied());
    assert_eq!(applied.stamp_ms, group.shard().log_time_ms());
    let items: Vec<_> = applied.items().collect();
    assert!(matches!(items[0], (Command::Claim(_), Reply::Claimed(_))), "{items:?}");
    assert!(matches!(items[1], (Command::Tick, Reply::Done(Status::Ok))), "{items:?}");
    for _ in 0..=switchboard_raft::limits::APPLIED_EVENTS_MAX {
        group.propose(vec![Command::Tick]).expect("room").await.expect("applied");
    }
    let lagged = events.recv().await.expect_err("too many");
    assert!(matches!(lagged, tokio::sync::broadcast::error::RecvError::Lagged(_)));
    node.shutdown().await;
}

#[tokio::test]
async fn a_restart_has_everything_and_leads_again() {
    let disk = sim(3);
    let node = open(&disk).await;
    node.initialize_single(4).await.expect("made");
    for user in ["alice", "bob", "carol", "dave"] {
        let group = node.shard_for(user.as_bytes()).expect("here");
        group
            .propose(vec![claim(user, 1), enqueue(user, 1, "hello"), enqueue(user, 2, "again")])
            .expect("room")
            .await
            .expect("applied");
    }
    let before: Vec<_> = node.groups().iter().map(|group| support::contents(group)).collect();
    let terms: Vec<_> = node.groups().iter().map(|group| group.status().term).collect();
    node.shutdown().await;
    drop(node);

    let node = open(&disk).await;
    assert_eq!(node.shards().len(), 4, "what was made is known from the disk");
    node.initialize_single(4).await.expect("is made");
    let after: Vec<_> = node.groups().iter().map(|group| support::contents(group)).collect();
    assert_eq!(before, after);
    for (group, term) in node.groups().iter().zip(terms) {
        assert!(group.status().term > term, "the vote was kept: a new term begins");
    }
    assert_eq!(support::bodies(&node.shard_for(b"bob").expect("here"), "bob"), ["hello", "again"]);
    node.shutdown().await;
}

#[tokio::test]
async fn two_nodes_on_one_directory_are_refused() {
    let disk = sim(1);
    let node = open(&disk).await;
    let error = switchboard_raft::Node::open(options(&disk)).await.expect_err("in use");
    assert!(error.to_string().contains("in use"), "{error}");
    node.shutdown().await;
}

#[tokio::test]
async fn another_node_id_is_refused() {
    let disk = sim(1);
    let node = open(&disk).await;
    node.initialize_single(1).await.expect("made");
    node.shutdown().await;
    drop(node);
    let mut options = options(&disk);
    options.node_id = 2;
    let node = switchboard_raft::Node::open(options).await.expect("opens");
    let error = node.initialize_single(1).await.expect_err("not its data");
    assert!(matches!(error, InitializeError::OtherNode { node_id: 2, .. }), "{error}");
    node.shutdown().await;
}

#[tokio::test]
async fn after_a_shutdown_nothing_is_taken() {
    let node = open(&sim(1)).await;
    node.initialize_single(1).await.expect("made");
    let group = node.shards()[0].clone();
    node.shutdown().await;
    let late = group.propose(vec![claim("alice", 1)]).expect("answered");
    assert_eq!(late.await, Err(switchboard_raft::ProposeError::Stopped));
    let barrier = group.barrier(Consistency::Linearizable).await;
    assert_eq!(barrier, Err(switchboard_raft::BarrierError::Stopped));
}
