//! What a restart keeps, and what a second process may not touch.

use std::{sync::Arc, time::Duration};

use switchboard_api::v1::{self, ItemStatus, message::Kind as MessageKind, register_request::Kind};
use switchboard_engine::ManualClock;
use switchboard_store::StartError;

use crate::harness::{assert_status, config, device, message, start, start_at, start_configured};

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let gateway = store.register("one", Kind::Gateway).await;
    let mut expected = Vec::new();
    for n in 0..100 {
        let user = format!("user-{}", n % 10);
        let body = vec![b'a' + (n % 26) as u8; 500];
        let sent = store.enqueue(message("alice", &user, n, &body)).await;
        expected.push((user, sent.stored[0].seq, body));
    }
    let claim = store.claim(gateway, device("user-3", 2), 7).await;
    let acked = expected[4].1;
    assert_status(store.ack(device("user-4", 1), 0, acked).await.status, ItemStatus::Ok);
    store.running.shutdown().await;

    let mut last_epoch = 0;
    for _ in 0..3 {
        let mut store = start(dir.path()).await;
        for (user, seq, body) in expected.iter().filter(|(_, seq, _)| *seq != acked) {
            let page = store.fetch(device(user, 1)).await;
            let found = page.messages.iter().find(|m| m.seq == *seq).expect("still there");
            assert_eq!(found.body, body);
            assert_eq!(found.kind(), MessageKind::Content);
        }
        let page = store.fetch(device("user-4", 1)).await;
        assert!(page.messages.iter().all(|m| m.seq != acked), "an acknowledgement is kept too");
        let located = store.locate(b"user-3").await;
        assert_eq!(located.sessions[0].epoch, claim.epoch, "its gateway has a whole lease again");
        assert_eq!(located.devices, [1, 2]);
        // Ids are remembered, and positions go on rising.
        let again = store.enqueue(message("alice", "user-0", 0, b"")).await;
        assert_status(again.status, ItemStatus::Duplicate);
        assert_eq!(again.stored[0].seq, expected[0].1);
        let claimed = store.claim(gateway, device("user-5", 1), 1).await;
        assert!(claimed.epoch > last_epoch);
        last_epoch = claimed.epoch;
        store.running.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_incarnation_stays_ended_and_live_ones_get_a_whole_lease() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at_unix_ms(1_700_000_000_000));
    let mut store = start_at(dir.path(), clock.clone()).await;
    let one = store.register("one", Kind::Gateway).await;
    let two = store.register("two", Kind::Gateway).await;
    store.claim(one, device("bob", 1), 1).await;
    store.claim(two, device("carol", 1), 1).await;
    let request = v1::DeregisterRequest { gateway_id: one.0, incarnation: one.1 };
    store.gateways.deregister(request).await.unwrap();
    clock.advance(Duration::from_secs(9));
    store.running.shutdown().await;

    clock.advance(Duration::from_secs(3600));
    let mut store = start_at(dir.path(), clock.clone()).await;
    assert!(store.locate(b"bob").await.sessions.is_empty());
    assert_eq!(store.locate(b"carol").await.sessions.len(), 1);
    let again = store.register("one", Kind::Gateway).await;
    assert_eq!(again.0, one.0);
    assert!(again.1 > one.1);
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_expire_by_log_time() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at_unix_ms(1_700_000_000_000));
    let mut store = start_at(dir.path(), clock.clone()).await;
    let mut short = message("alice", "bob", 1, b"short");
    short.ttl_ms = 1_000;
    store.enqueue(short).await;
    store.enqueue(message("alice", "bob", 2, b"long")).await;
    assert_eq!(store.fetch(device("bob", 1)).await.messages.len(), 2);
    clock.advance(Duration::from_secs(2));
    // Any entry carries the time on.
    store.enqueue(message("alice", "bob", 3, b"now")).await;
    let bodies: Vec<_> =
        store.fetch(device("bob", 1)).await.messages.iter().map(|m| m.body.to_vec()).collect();
    assert_eq!(bodies, [b"long".to_vec(), b"now".to_vec()]);
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_store_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let error = switchboard_store::start(config(dir.path())).await.expect_err("refused");
    assert!(matches!(error, StartError::Open(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&dir.path().display().to_string()), "{text}");
    assert!(text.contains("process"), "{text}");
    // The first is not disturbed, and the directory is free once it has gone.
    assert_status(store.enqueue(message("alice", "bob", 1, b"x")).await.status, ItemStatus::Ok);
    store.running.shutdown().await;
    start(dir.path()).await.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_directory_waits_without_single_and_an_old_one_keeps_its_shards() {
    let dir = tempfile::tempdir().unwrap();
    let mut alone = config(dir.path());
    alone.single = false;
    let mut waiting = start_configured(alone.clone()).await.unwrap();
    let map = waiting.cluster.shard_map(v1::ShardMapRequest {}).await.unwrap().into_inner();
    assert_eq!(map.shards, 0);
    waiting.running.shutdown().await;
    start(dir.path()).await.running.shutdown().await;

    alone.shards = 64;
    let mut store = start_configured(alone).await.unwrap();
    let map = store.cluster.shard_map(v1::ShardMapRequest {}).await.unwrap().into_inner();
    assert_eq!(map.shards, 4);
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_limits_take_effect_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    for n in 0..15 {
        store.enqueue(message("alice", "bob", n, b"x")).await;
    }
    store.running.shutdown().await;
    let mut smaller = config(dir.path());
    smaller.limits.mailbox_messages_max = 10;
    let mut store = start_configured(smaller).await.unwrap();
    assert_eq!(store.fetch(device("bob", 1)).await.messages.len(), 15, "nothing is lost by it");
    let refused = store.enqueue(message("alice", "bob", 15, b"x")).await;
    assert_status(refused.status, ItemStatus::MailboxFull);
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = start(dirs[0].path()).await;
    let mut second = config(dirs[1].path());
    second.listen = crate::harness::address(&store.running, "store-grpc");
    let error = switchboard_store::start(second).await.expect_err("refused");
    assert!(error.to_string().contains("is in use"), "{error}");
    store.running.shutdown().await;
}
