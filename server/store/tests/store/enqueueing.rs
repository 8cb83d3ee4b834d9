//! Enqueue and its stream: durable, looked up in the same step, idempotent, in order.

use switchboard_api::v1::{self, ItemStatus, enqueue_request, message::Kind, register_request};

use crate::harness::{assert_status, device, id, message, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_stored_and_its_recipient_found_in_one_step() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let gateway = store.register("one", register_request::Kind::Gateway).await;
    let claim = store.claim(gateway, device("bob", 1), 7).await;
    assert_status(claim.status, ItemStatus::Ok);
    assert_eq!((claim.backlog, claim.tail), (0, 0));

    let sent = store.enqueue(message("alice", "bob", 1, b"hello")).await;
    assert_status(sent.status, ItemStatus::Ok);
    assert_eq!(sent.sessions.len(), 1);
    assert_eq!((sent.sessions[0].connection_id, sent.sessions[0].epoch), (7, claim.epoch));
    let stored = &sent.stored[0];
    assert_eq!((stored.device, stored.prev_seq), (1, 0));
    assert!(stored.seq > claim.epoch);
    assert!(sent.expires_at_ms > sent.enqueued_at_ms);

    let second = store.enqueue(message("alice", "bob", 2, b"")).await;
    assert_eq!(second.stored[0].prev_seq, stored.seq);

    let page = store.fetch(device("bob", 1)).await;
    assert_eq!(page.messages.len(), 2);
    let first = &page.messages[0];
    assert_eq!(
        (first.message_id.clone(), first.seq, &first.body[..]),
        (id(1), stored.seq, &b"hello"[..])
    );
    assert_eq!(first.from, Some(device("alice", 1)));
    assert_eq!(
        (first.enqueued_at_ms, first.expires_at_ms),
        (sent.enqueued_at_ms, sent.expires_at_ms)
    );
    assert_eq!((first.prev_seq, page.messages[1].prev_seq), (0, first.seq));
    assert_eq!((page.more, page.tail), (false, second.stored[0].seq));
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_a_duplicate_with_the_original_seq_and_the_current_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let sent = store.enqueue(message("alice", "bob", 1, b"x")).await;
    assert!(sent.sessions.is_empty());
    let gateway = store.register("one", register_request::Kind::Gateway).await;
    let claim = store.claim(gateway, device("bob", 1), 7).await;
    assert_eq!((claim.backlog, claim.tail), (1, sent.stored[0].seq));

    let again = store.enqueue(message("alice", "bob", 1, b"x")).await;
    assert_status(again.status, ItemStatus::Duplicate);
    assert_eq!((again.stored[0].seq, again.stored[0].prev_seq), (sent.stored[0].seq, 0));
    assert_eq!(again.sessions[0].epoch, claim.epoch);
    // The id is the sender's own: the same one from somebody else is another message.
    let other = store.enqueue(message("mallory", "bob", 1, b"x")).await;
    assert_status(other.status, ItemStatus::Ok);
    assert_eq!(store.fetch(device("bob", 1)).await.messages.len(), 2);

    // Also after it was acknowledged.
    let tail = other.stored[0].seq;
    assert_status(store.ack(device("bob", 1), claim.epoch, tail).await.status, ItemStatus::Ok);
    let late = store.enqueue(message("alice", "bob", 1, b"x")).await;
    assert_status(late.status, ItemStatus::Duplicate);
    assert!(store.fetch(device("bob", 1)).await.messages.is_empty());
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn device_0_reaches_all_devices_and_a_number_only_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let gateway = store.register("one", register_request::Kind::Gateway).await;
    for number in [1, 2] {
        store.claim(gateway, device("bob", number), u64::from(number)).await;
    }
    let all = store.enqueue(message("alice", "bob", 1, b"all")).await;
    let mut devices: Vec<_> = all.stored.iter().map(|stored| stored.device).collect();
    devices.sort_unstable();
    assert_eq!(devices, [1, 2]);
    assert_eq!(all.sessions.len(), 2);

    let item = enqueue_request::Item {
        to: Some(device("bob", 2)),
        kind: Kind::Receipt.into(),
        ttl_ms: 60_000,
        ..message("alice", "bob", 2, b"one")
    };
    let one = store.enqueue(item).await;
    assert_eq!(one.stored.iter().map(|s| s.device).collect::<Vec<_>>(), [2]);
    assert_eq!(one.sessions.iter().map(|s| s.connection_id).collect::<Vec<_>>(), [2]);
    assert_eq!(one.expires_at_ms - one.enqueued_at_ms, 60_000);
    let page = store.fetch(device("bob", 2)).await;
    assert_eq!(
        page.messages.iter().map(|m| m.kind()).collect::<Vec<_>>(),
        [Kind::Content, Kind::Receipt]
    );
    assert_eq!(store.fetch(device("bob", 1)).await.messages.len(), 1);
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_over_all_shards_is_answered_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let mut items: Vec<_> =
        (0..200).map(|n| message("alice", &format!("user-{n}"), n, &n.to_be_bytes())).collect();
    items[17].message_id = bytes::Bytes::from_static(b"fifteen bytes!!");
    items[100].to = None;
    let response = store.mailboxes.enqueue(v1::EnqueueRequest { items }).await.unwrap();
    let results = response.into_inner().results;
    assert_eq!(results.len(), 200);
    for (n, result) in (0..200_u64).zip(results) {
        let expected = if [17, 100].contains(&n) { ItemStatus::Invalid } else { ItemStatus::Ok };
        assert_status(result.status, expected);
        if expected == ItemStatus::Ok {
            let page = store.fetch(device(&format!("user-{n}"), 1)).await;
            assert_eq!(&page.messages[0].body[..], n.to_be_bytes());
            assert_eq!(page.messages[0].seq, result.stored[0].seq);
        }
    }
    store.running.shutdown().await;
}

/// Requests are handed over as they are read, so seqs follow the order of the stream although many
/// requests are under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_keeps_the_order_of_its_requests_within_a_shard() {
    const REQUESTS: u64 = 500;
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let requests = (0..REQUESTS).map(|n| {
        let items = vec![
            message("alice", "bob", 2 * n, &n.to_be_bytes()),
            message("alice", "carol", 2 * n + 1, &n.to_be_bytes()),
        ];
        v1::EnqueueStreamRequest { id: n, request: Some(v1::EnqueueRequest { items }) }
    });
    let stream = futures::stream::iter(requests.collect::<Vec<_>>());
    let mut answers = store.mailboxes.enqueue_stream(stream).await.unwrap().into_inner();
    let mut seqs = vec![[0; 2]; REQUESTS as usize];
    let mut count = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        let results = answer.response.unwrap().results;
        results.iter().for_each(|result| assert_status(result.status, ItemStatus::Ok));
        seqs[answer.id as usize] = [results[0].stored[0].seq, results[1].stored[0].seq];
        count += 1;
    }
    assert_eq!(count, REQUESTS, "one answer a request, and the stream ends after the last");
    for to in 0..2 {
        assert!(seqs.windows(2).all(|pair| pair[0][to] < pair[1][to]));
    }
    let mut after_seq = 0;
    let mut bodies = Vec::new();
    loop {
        let request =
            v1::FetchRequest { device: Some(device("bob", 1)), after_seq, ..Default::default() };
        let page = store.mailboxes.fetch(request).await.unwrap().into_inner();
        bodies.extend(page.messages.iter().map(|m| m.body.clone()));
        let Some(last) = page.messages.last() else { break };
        after_seq = last.seq;
        if !page.more {
            break;
        }
    }
    let expected: Vec<_> = (0..REQUESTS).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(bodies, expected);
    store.running.shutdown().await;
}
