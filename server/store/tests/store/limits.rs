//! Every limit of the contract, and bad input: each with its typed answer, and nothing lost.

use bytes::Bytes;
use switchboard_api::v1::{
    self, DeviceRef, ItemStatus, ack_request, claim_request, enqueue_request, message::Kind,
    register_request, stat_request,
};
use tonic::Code;

use crate::harness::{
    Store, assert_error, assert_status, config, device, id, message, start, start_configured,
};

const KIB: usize = 1024;

async fn one_message_waits(store: &mut Store) -> u64 {
    let sent = store.enqueue(message("alice", "bob", 1, b"kept")).await;
    assert_status(sent.status, ItemStatus::Ok);
    sent.stored[0].seq
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_items_fail_alone_with_their_status() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    one_message_waits(&mut store).await;
    let good = |n| message("alice", "bob", n, b"x");
    let from = |user: &[u8], device| Some(DeviceRef { user: Bytes::copy_from_slice(user), device });
    let body = |len| Bytes::from(vec![b'x'; len]);
    use ItemStatus::{Invalid, Ok, TooLarge};
    let cases = [
        (enqueue_request::Item { message_id: Bytes::from_static(&[1; 15]), ..good(10) }, Invalid),
        (enqueue_request::Item { message_id: Bytes::from_static(&[1; 17]), ..good(10) }, Invalid),
        (enqueue_request::Item { message_id: Bytes::new(), ..good(10) }, Invalid),
        (enqueue_request::Item { to: from(b"", 1), ..good(11) }, Invalid),
        (enqueue_request::Item { to: from(&[b'u'; 65], 1), ..good(12) }, Invalid),
        (enqueue_request::Item { to: from(&[0xff; 64], 1), ..good(13) }, Ok),
        (enqueue_request::Item { to: from(b"bob", 65_536), ..good(14) }, Invalid),
        (enqueue_request::Item { to: None, ..good(15) }, Invalid),
        (enqueue_request::Item { from: None, ..good(16) }, Invalid),
        (enqueue_request::Item { from: from(b"alice", 0), ..good(17) }, Invalid),
        (enqueue_request::Item { kind: 7, ..good(18) }, Invalid),
        (enqueue_request::Item { body: body(64 * KIB), ..good(19) }, Ok),
        (enqueue_request::Item { body: body(64 * KIB + 1), ..good(20) }, TooLarge),
        (good(21), Ok),
    ];
    let items = cases.iter().map(|(item, _)| item.clone()).collect();
    let response = store.mailboxes.enqueue(v1::EnqueueRequest { items }).await.unwrap();
    for ((item, expected), result) in cases.iter().zip(response.into_inner().results) {
        assert_eq!(result.status, i32::from(*expected), "{:?}", item.message_id);
    }
    let page = store.fetch(device("bob", 1)).await;
    let ids: Vec<_> = page.messages.iter().map(|m| m.message_id.clone()).collect();
    assert_eq!(ids, [id(1), id(19), id(21)]);
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_acks_and_stats_with_bad_devices_are_invalid() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let (gateway_id, incarnation) = store.register("one", register_request::Kind::Gateway).await;
    let bad = [None, Some(device("", 1)), Some(device("bob", 0)), Some(device("bob", 65_536))];
    let claims = bad.clone().map(|device| claim_request::Item { device, ..Default::default() });
    let mut items = claims.to_vec();
    items.push(claim_request::Item {
        device: Some(device("bob", 1)),
        push_token: "t".repeat(513),
        ..Default::default()
    });
    let request = v1::ClaimRequest { items, gateway_id, incarnation };
    let results = store.sessions.claim(request).await.unwrap().into_inner().results;
    assert_eq!(results.len(), 5);
    results.iter().for_each(|result| assert_status(result.status, ItemStatus::Invalid));

    let items = bad.clone().map(|device| ack_request::Item { device, ..Default::default() });
    let mut items = items.to_vec();
    items.push(ack_request::Item {
        device: Some(device("bob", 1)),
        seqs: vec![1; 1_025],
        ..Default::default()
    });
    let results = store.mailboxes.ack(v1::AckRequest { items }).await.unwrap().into_inner().results;
    results.iter().for_each(|result| assert_status(result.status, ItemStatus::Invalid));

    let items = bad.map(|device| stat_request::Item { device, ..Default::default() }).to_vec();
    let results =
        store.mailboxes.stat(v1::StatRequest { items }).await.unwrap().into_inner().results;
    results.iter().for_each(|result| assert_status(result.status, ItemStatus::Invalid));
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_up_to_the_end_of_numbers_takes_what_is_there_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let seq = one_message_waits(&mut store).await;
    let ack = store.ack(device("bob", 1), 0, u64::MAX).await;
    assert_status(ack.status, ItemStatus::Ok);
    assert!(ack.ack_floor >= seq && ack.ack_floor <= i64::MAX as u64);
    assert!(store.fetch(device("bob", 1)).await.messages.is_empty());
    let later = store.enqueue(message("alice", "bob", 2, b"later")).await;
    assert_status(later.status, ItemStatus::Ok);
    assert_eq!(&store.fetch(device("bob", 1)).await.messages[0].body[..], b"later");
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_a_limit_fail_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    one_message_waits(&mut store).await;
    // 1,025 items.
    let items: Vec<_> = (100..1_125).map(|n| message("alice", "bob", n, b"")).collect();
    let error = store.mailboxes.enqueue(v1::EnqueueRequest { items }).await.unwrap_err();
    assert_error(&error, Code::InvalidArgument, "TOO_MANY_ITEMS", false);
    let users = vec![Bytes::from_static(b"bob"); 1_025];
    let error = store.sessions.locate(v1::LocateRequest { users, read: 0 }).await.unwrap_err();
    assert_error(&error, Code::InvalidArgument, "TOO_MANY_ITEMS", false);
    let items =
        vec![stat_request::Item { device: Some(device("bob", 1)), ..Default::default() }; 1_025];
    let error = store.mailboxes.stat(v1::StatRequest { items }).await.unwrap_err();
    assert_error(&error, Code::InvalidArgument, "TOO_MANY_ITEMS", false);
    let items = vec![ack_request::Item::default(); 1_025];
    let error = store.mailboxes.ack(v1::AckRequest { items }).await.unwrap_err();
    assert_error(&error, Code::InvalidArgument, "TOO_MANY_ITEMS", false);

    // A little over 4 MiB, and more than is decoded at all.
    for bodies in [65, 400] {
        let body = vec![b'x'; 64 * KIB];
        let items = (0..bodies).map(|n| message("alice", "bob", 2_000 + n, &body)).collect();
        let error = store.mailboxes.enqueue(v1::EnqueueRequest { items }).await.unwrap_err();
        assert_error(&error, Code::InvalidArgument, "REQUEST_TOO_LARGE", false);
    }
    assert_eq!(store.fetch(device("bob", 1)).await.messages.len(), 1, "nothing of it was stored");

    // Just below: taken.
    let body = vec![b'x'; 64 * KIB];
    let items = (0..63).map(|n| message("alice", "bob", 3_000 + n, &body)).collect();
    let response = store.mailboxes.enqueue(v1::EnqueueRequest { items }).await.unwrap();
    for result in response.into_inner().results {
        assert_status(result.status, ItemStatus::Ok);
    }
    store.running.shutdown().await;
}

/// Other callers share the stream, so a request beyond a limit is answered and the stream goes on.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_stream_a_request_beyond_a_limit_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let body = vec![b'x'; 64 * KIB];
    let requests = [
        (0..1_025).map(|n| message("alice", "bob", n, b"")).collect(),
        (0..65).map(|n| message("alice", "bob", 2_000 + n, &body)).collect(),
        vec![message("alice", "bob", 3_000, b"good")],
        vec![],
    ];
    let requests = requests.into_iter().zip(0..).map(|(items, id)| v1::EnqueueStreamRequest {
        id,
        request: Some(v1::EnqueueRequest { items }),
    });
    let stream = futures::stream::iter(requests.collect::<Vec<_>>());
    let mut answers = store.mailboxes.enqueue_stream(stream).await.unwrap().into_inner();
    let mut found = [const { Vec::new() }; 4];
    while let Some(answer) = answers.message().await.unwrap() {
        let statuses = answer.response.unwrap().results.iter().map(|r| r.status()).collect();
        found[answer.id as usize] = statuses;
    }
    assert_eq!(found[0], vec![ItemStatus::Invalid; 1_025]);
    assert_eq!(found[1], vec![ItemStatus::TooLarge; 65]);
    assert_eq!(found[2], [ItemStatus::Ok]);
    assert_eq!(found[3], []);

    let users = vec![Bytes::from_static(b"bob"); 1_025];
    let requests = [users, vec![Bytes::from_static(b"bob")]].into_iter().zip(0..);
    let requests = requests.map(|(users, id)| v1::LocateStreamRequest {
        id,
        request: Some(v1::LocateRequest { users, read: 0 }),
    });
    let stream = futures::stream::iter(requests.collect::<Vec<_>>());
    let mut answers = store.sessions.locate_stream(stream).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let first = answer.response.unwrap().into_message().unwrap();
    assert!(first.results.iter().all(|r| r.status() == ItemStatus::Invalid));
    let answer = answers.message().await.unwrap().unwrap();
    let second = answer.response.unwrap().into_message().unwrap();
    assert_status(second.results[0].status, ItemStatus::Ok);
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_refuses_content_and_still_takes_receipts() {
    let dir = tempfile::tempdir().unwrap();
    let mut configured = config(dir.path());
    configured.limits.mailbox_messages_max = 20;
    let mut store = start_configured(configured).await.unwrap();
    for n in 0..20 {
        assert_status(store.enqueue(message("alice", "bob", n, b"x")).await.status, ItemStatus::Ok);
    }
    let refused = store.enqueue(message("alice", "bob", 20, b"x")).await;
    assert_status(refused.status, ItemStatus::MailboxFull);
    assert_eq!((refused.stored[0].status(), refused.stored[0].seq), (ItemStatus::MailboxFull, 0));
    let receipt = |n| enqueue_request::Item {
        kind: Kind::Receipt.into(),
        ..message("alice", "bob", n, b"r")
    };
    for n in 21..23 {
        assert_status(store.enqueue(receipt(n)).await.status, ItemStatus::Ok);
    }
    assert_status(store.enqueue(receipt(23)).await.status, ItemStatus::MailboxFull);
    // Room again, and the id that was refused is not remembered as stored.
    let first = store.fetch(device("bob", 1)).await.messages[0].seq;
    assert_status(store.ack(device("bob", 1), 0, first).await.status, ItemStatus::Ok);
    assert_status(store.enqueue(message("alice", "bob", 20, b"x")).await.status, ItemStatus::Ok);
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_and_purges_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let register = |name: &str, address: &str, kind| v1::RegisterRequest {
        name: name.to_owned(),
        address: address.to_owned(),
        kind,
    };
    for (request, reason) in [
        (register("", "a:1", 0), "TEXT_LENGTH"),
        (register(&"n".repeat(65), "a:1", 0), "TEXT_LENGTH"),
        (register("n", "", 0), "TEXT_LENGTH"),
        (register("n", "a:1", 9), "UNKNOWN_VALUE"),
    ] {
        let error = store.gateways.register(request).await.unwrap_err();
        assert_error(&error, Code::InvalidArgument, reason, false);
    }
    one_message_waits(&mut store).await;
    let purge = |device, reason: &str| v1::PurgeRequest { device, reason: reason.to_owned() };
    for (request, reason) in [
        (purge(None, "why"), "DEVICE_MISSING"),
        (purge(Some(device("", 1)), "why"), "USER_LENGTH"),
        (purge(Some(device("bob", 0)), "why"), "DEVICE_RANGE"),
        (purge(Some(device("bob", 1)), ""), "TEXT_LENGTH"),
        (purge(Some(device("bob", 1)), &"r".repeat(257)), "TEXT_LENGTH"),
    ] {
        let error = store.mailboxes.purge(request).await.unwrap_err();
        assert_error(&error, Code::InvalidArgument, reason, false);
    }
    let request = purge(Some(device("bob", 1)), "asked for by bob");
    let purged = store.mailboxes.purge(request).await.unwrap().into_inner();
    assert_eq!((purged.messages, purged.bytes), (1, 4));
    assert!(store.fetch(device("bob", 1)).await.messages.is_empty());
    store.running.shutdown().await;
}
