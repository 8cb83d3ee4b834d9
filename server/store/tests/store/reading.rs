//! Fetch, Ack and Stat.

use switchboard_api::v1::{self, ItemStatus, ack_request, register_request::Kind, stat_request};
use tonic::Code;

use crate::harness::{Store, assert_error, assert_status, device, message, only, start};

async fn fill(store: &mut Store, count: u64, body: &[u8]) -> Vec<u64> {
    let items = (0..count).map(|n| message("alice", "bob", n, body)).collect();
    let response = store.mailboxes.enqueue(v1::EnqueueRequest { items }).await.unwrap();
    response.into_inner().results.iter().map(|result| result.stored[0].seq).collect()
}

async fn stat(store: &mut Store) -> v1::stat_response::Result {
    let items = vec![stat_request::Item { device: Some(device("bob", 1)), ..Default::default() }];
    only(store.mailboxes.stat(v1::StatRequest { items }).await.unwrap().into_inner().results)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_within_their_limits() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let seqs = fill(&mut store, 100, &[b'x'; 1000]).await;
    let mut fetch = async |after_seq, messages_max, bytes_max| {
        let request = v1::FetchRequest {
            device: Some(device("bob", 1)),
            after_seq,
            messages_max,
            bytes_max,
            min_position: 0,
        };
        let page = store.mailboxes.fetch(request).await.unwrap().into_inner();
        (page.messages.iter().map(|m| m.seq).collect::<Vec<_>>(), page.more, page.tail)
    };
    let tail = seqs[99];
    assert_eq!(fetch(0, 0, 0).await, (seqs[..64].to_vec(), true, tail), "64 by default");
    assert_eq!(fetch(seqs[63], 0, 0).await, (seqs[64..].to_vec(), false, tail));
    assert_eq!(fetch(0, u32::MAX, u32::MAX).await, (seqs.clone(), false, tail));
    assert_eq!(fetch(seqs[9], 2, 0).await, (seqs[10..12].to_vec(), true, tail));
    assert_eq!(fetch(0, 0, 3_500).await.0, seqs[..3], "bytes bound a page as well");
    assert_eq!(fetch(0, 0, 1).await.0, seqs[..1], "one message comes even if it is larger");
    assert_eq!(fetch(tail, 0, 0).await, (vec![], false, tail));
    assert!(fetch(u64::MAX, 0, 0).await.0.is_empty());
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_messages_are_gone_and_their_bytes_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let gateway = store.register("one", Kind::Gateway).await;
    let epoch = store.claim(gateway, device("bob", 1), 1).await.epoch;
    assert_eq!(stat(&mut store).await, v1::stat_response::Result::default());
    let seqs = fill(&mut store, 10, &[b'x'; 100]).await;
    let full = stat(&mut store).await;
    assert_eq!((full.messages, full.bytes, full.tail), (10, 1_000, seqs[9]));
    assert!(full.oldest_at_ms > 0 && full.ack_floor < seqs[0]);

    let item = ack_request::Item {
        device: Some(device("bob", 1)),
        epoch,
        up_to_seq: seqs[2],
        seqs: vec![seqs[5], seqs[9], 12_345],
    };
    let request = v1::AckRequest { items: vec![item] };
    let acked = only(store.mailboxes.ack(request).await.unwrap().into_inner().results);
    assert_status(acked.status, ItemStatus::Ok);
    assert!(acked.ack_floor >= seqs[2] && acked.ack_floor < seqs[3]);
    let left: Vec<_> = store.fetch(device("bob", 1)).await.messages.iter().map(|m| m.seq).collect();
    assert_eq!(left, [seqs[3], seqs[4], seqs[6], seqs[7], seqs[8]]);
    let some = stat(&mut store).await;
    assert_eq!((some.messages, some.bytes, some.tail), (5, 500, seqs[8]));

    assert_status(store.ack(device("bob", 1), epoch, seqs[9]).await.status, ItemStatus::Ok);
    assert_eq!(stat(&mut store).await.messages, 0);
    // Again: nothing to do, and no error.
    assert_status(store.ack(device("bob", 1), epoch, seqs[9]).await.status, ItemStatus::Ok);
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_sees_everything_up_to_the_position_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let gateway = store.register("one", Kind::Gateway).await;
    for n in 0..50 {
        let sent = store.enqueue(message("alice", "bob", n, b"x")).await;
        let claim = store.claim(gateway, device("bob", 1), n).await;
        for min_position in [claim.epoch, sent.stored[0].seq] {
            let request = v1::FetchRequest {
                device: Some(device("bob", 1)),
                min_position,
                ..v1::FetchRequest::default()
            };
            let page = store.mailboxes.fetch(request).await.unwrap().into_inner();
            assert_eq!(page.messages.len() as u64, n + 1);
            assert_eq!(page.tail, sent.stored[0].seq);
        }
    }
    // A position that nobody was ever told is an error, not a wait.
    let request = v1::FetchRequest {
        device: Some(device("bob", 1)),
        min_position: u64::MAX,
        ..v1::FetchRequest::default()
    };
    let error = store.mailboxes.fetch(request).await.unwrap_err();
    assert_error(&error, Code::InvalidArgument, "POSITION_UNKNOWN", false);
    let request = v1::FetchRequest { device: Some(device("bob", 0)), ..Default::default() };
    let error = store.mailboxes.fetch(request).await.unwrap_err();
    assert_error(&error, Code::InvalidArgument, "DEVICE_RANGE", false);
    store.running.shutdown().await;
}

async fn reached(store: &mut Store) -> (bool, String) {
    let item = stat_request::Item { device: Some(device("bob", 1)), with_push_token: true };
    let request = v1::StatRequest { items: vec![item] };
    let result = only(store.mailboxes.stat(request).await.unwrap().into_inner().results);
    (result.connected, result.push_token)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_told_whether_a_device_is_connected_and_how_to_wake_it_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let (gateway_id, incarnation) = store.register("one", Kind::Gateway).await;
    let claim = v1::claim_request::Item {
        device: Some(device("bob", 1)),
        connection_id: 1,
        push_token: "bob's phone".to_owned(),
    };
    let request = v1::ClaimRequest { items: vec![claim], gateway_id, incarnation };
    store.sessions.claim(request).await.unwrap();
    assert_eq!(stat(&mut store).await, v1::stat_response::Result::default(), "nobody asked");

    assert_eq!(reached(&mut store).await, (true, "bob's phone".to_owned()));
    let ended = v1::DeregisterRequest { gateway_id, incarnation };
    store.gateways.deregister(ended).await.unwrap();
    assert_eq!(
        reached(&mut store).await,
        (false, "bob's phone".to_owned()),
        "its gateway has ended"
    );
    store.running.shutdown().await;
}
