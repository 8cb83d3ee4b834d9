//! The client against a store that answers, dies between storing and answering, and comes back.

mod fake_store;

use std::time::Duration;

use bytes::Bytes;
use fake_store::{Cable, FakeStore, silent_node};
use switchboard_api::v1::{
    DeviceRef, FetchRequest, ItemStatus, Read, ack_request, claim_request, enqueue_request::Item,
    register_request::Kind, release_request,
};
use switchboard_sdk::{Client, ClientOptions, Error, Load, Registration};

fn device(user: impl Into<Bytes>) -> Option<DeviceRef> {
    Some(DeviceRef { user: user.into(), device: 1 })
}

/// Message `n` of `from` to bob, named by both.
fn item(from: &str, n: usize) -> Item {
    let mut id = [0_u8; 16];
    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
    Item {
        to: device("bob"),
        from: device(from.to_owned()),
        message_id: Bytes::copy_from_slice(&id),
        body: Bytes::from(format!("{from}:{n}")),
        ..Item::default()
    }
}

fn connect(store: &FakeStore) -> Client {
    Client::connect(&store.addresses(), ClientOptions::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_answers_item_by_item() {
    let store = FakeStore::start().await;
    let client = connect(&store);
    client.ready(Duration::from_secs(60)).await.unwrap();
    assert_eq!(client.shard_map().await.unwrap().shards, 4);
    let claim =
        claim_request::Item { device: device("bob"), connection_id: 9, ..Default::default() };
    let claimed = client.claim(3, 1, vec![claim]).await.unwrap();
    let epoch = claimed[0].epoch;
    let bad = Item { to: None, ..item("alice", 0) };
    let results = client.enqueue(vec![item("alice", 1), bad, item("alice", 1)]).await.unwrap();
    let statuses: Vec<_> = results.iter().map(|result| result.status()).collect();
    assert_eq!(statuses, [ItemStatus::Ok, ItemStatus::Invalid, ItemStatus::Duplicate]);
    assert_eq!(results[0].sessions[0].epoch, epoch);
    let located =
        client.locate(vec!["bob".into(), "eve".into()], Read::Linearizable).await.unwrap();
    assert_eq!(located.results[0].sessions[0].connection_id, 9);
    assert!(located.results[1].sessions.is_empty());
    assert_eq!(located.staleness_ms, Read::Linearizable as u64);
    let fetch = FetchRequest { device: device("bob"), ..FetchRequest::default() };
    let page = client.fetch(fetch.clone()).await.unwrap();
    assert_eq!(page.messages[0].body, "alice:1");
    let up_to_seq = page.tail;
    let ack = ack_request::Item { device: device("bob"), epoch, up_to_seq, seqs: Vec::new() };
    assert_eq!(client.ack(vec![ack]).await.unwrap()[0].ack_floor, up_to_seq);
    assert!(client.fetch(fetch).await.unwrap().messages.is_empty());
    let stale = release_request::Item { device: device("bob"), epoch: epoch - 1 };
    let released = client.release(vec![stale]).await.unwrap();
    assert_eq!(released[0].status(), ItemStatus::Fenced);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_typed() {
    let store = FakeStore::start().await;
    let client = connect(&store);
    let too_many = vec![item("alice", 1); 1_025];
    let Err(Error::Rejected { reason, .. }) = client.enqueue(too_many).await else {
        panic!("taken");
    };
    assert_eq!(reason, "TOO_MANY_ITEMS");
    let no_user = client.fetch(FetchRequest::default()).await;
    assert!(matches!(no_user, Err(Error::Rejected { .. })));
    let purged = client.purge(device("bob").unwrap(), "test").await;
    assert!(matches!(purged, Err(Error::Rejected { reason, .. }) if reason == "UNIMPLEMENTED"));
    assert!(Client::connect(&["nowhere".into()], ClientOptions::default()).is_err());
    assert!(Client::connect(&[], ClientOptions::default()).is_err());
}

/// Sends `count` messages in order, in batches of one to three, each again until it is answered.
async fn send_all(client: Client, from: String, count: usize) {
    let mut next = 0;
    while next < count {
        let batch: Vec<_> =
            (next..count.min(next + 1 + next % 3)).map(|n| item(&from, n)).collect();
        let size = batch.len();
        let results = client.enqueue(batch).await.unwrap();
        assert_eq!(results.len(), size);
        let stored = results
            .iter()
            .take_while(|r| matches!(r.status(), ItemStatus::Ok | ItemStatus::Duplicate))
            .count();
        for result in &results[stored..] {
            assert_eq!(result.status(), ItemStatus::Unavailable);
        }
        next += stored;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_dies_between_storing_and_answering_loses_and_reorders_nothing() {
    const SENDERS: usize = 8;
    const COUNT: usize = 300;
    let mut store = FakeStore::start().await;
    let client = connect(&store);
    let senders: Vec<_> = (0..SENDERS)
        .map(|n| tokio::spawn(send_all(client.clone(), format!("sender-{n}"), COUNT)))
        .collect();
    for _ in 0..6 {
        store.mute_after(SENDERS * COUNT / 8);
        store.is_mute().await;
        store.kill();
        store.restart();
    }
    for sender in senders {
        sender.await.unwrap();
    }
    let bodies = store.bodies("bob");
    for n in 0..SENDERS {
        let prefix = format!("sender-{n}:");
        let of_sender: Vec<_> =
            bodies.iter().filter(|body| body.starts_with(prefix.as_bytes())).collect();
        let expected: Vec<_> = (0..COUNT).map(|n| Bytes::from(format!("{prefix}{n}"))).collect();
        assert!(of_sender.into_iter().eq(expected.iter()));
    }
    assert!(store.shared.stored.lock().duplicates > 0, "nothing was under way at the kills");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_handed_over_without_waiting_are_stored_in_their_order() {
    let store = FakeStore::start().await;
    let client = connect(&store);
    client.ready(Duration::from_secs(60)).await.unwrap();
    let (done, answered) = std::sync::mpsc::channel();
    for n in 0..2_000 {
        let done = done.clone();
        let answer = move |results: Vec<switchboard_api::v1::enqueue_response::Result>| {
            done.send((n, results[0].status())).unwrap();
        };
        client.enqueue_then(vec![item("alice", n)], answer).unwrap();
    }
    drop(done);
    let answered = tokio::task::spawn_blocking(move || answered.into_iter().collect::<Vec<_>>());
    let expected: Vec<_> = (0..2_000).map(|n| (n, ItemStatus::Ok)).collect();
    assert_eq!(answered.await.unwrap(), expected);
    let bodies: Vec<_> = (0..2_000).map(|n| Bytes::from(format!("alice:{n}"))).collect();
    assert_eq!(store.bodies("bob"), bodies);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_started_before_its_store_finds_it() {
    let mut store = FakeStore::start().await;
    store.kill();
    let options = ClientOptions::default().with_deadline(Duration::ZERO);
    let hasty = Client::connect(&store.addresses(), options).unwrap();
    let results = hasty.enqueue(vec![item("alice", 1)]).await.unwrap();
    assert_eq!(results[0].status(), ItemStatus::Unavailable);

    let options = ClientOptions::default().with_deadline(Duration::from_secs(60));
    let patient = Client::connect(&store.addresses(), options).unwrap();
    let sending = tokio::spawn(async move { patient.enqueue(vec![item("alice", 1)]).await });
    store.restart();
    assert_eq!(sending.await.unwrap().unwrap()[0].status(), ItemStatus::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_leaves_time_for_another() {
    let (store, (_silent, address)) = (FakeStore::start().await, silent_node());
    let addresses = [vec![address], store.addresses()].concat();
    let client = Client::connect(&addresses, ClientOptions::default()).unwrap();
    let claim = claim_request::Item { device: device("bob"), ..Default::default() };
    let claimed = client.claim(3, 1, vec![claim]).await.unwrap();
    assert_eq!(claimed[0].status(), ItemStatus::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_read_goes_on_to_a_node_that_answers() {
    let store = FakeStore::start().await;
    // It leads the odd shards, and nobody listens there any more.
    let (gone, address) = silent_node();
    drop(gone);
    *store.shared.other.lock() = Some(address);
    let users: Vec<Bytes> = (0..16).map(|n| Bytes::from(format!("user-{n}"))).collect();
    let statuses = async |read| {
        let client = connect(&store);
        client.ready(Duration::from_secs(60)).await.unwrap();
        let located = client.locate(users.clone(), read).await.unwrap();
        located.results.iter().map(|result| result.status()).collect::<Vec<_>>()
    };
    assert_eq!(statuses(Read::Local).await, [ItemStatus::Ok; 16]);
    assert!(statuses(Read::Lease).await.contains(&ItemStatus::Unavailable));
}

/// A node that loses its power closes no connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_falls_silent_is_given_up_long_before_its_answers_are_overdue() {
    let store = FakeStore::start().await;
    let cable = Cable::to(&store).await;
    *store.shared.other.lock() = Some(cable.address.clone());
    let mut options = ClientOptions::default().with_deadline(Duration::from_secs(600));
    options.stall_timeout = Duration::from_secs(600);
    options.keep_alive = Duration::from_millis(50);
    options.keep_alive_timeout = Duration::from_millis(200);
    let client = Client::connect(&store.addresses(), options).unwrap();
    client.ready(Duration::from_secs(60)).await.unwrap();
    let to_each = |first: usize| -> Vec<Item> {
        let to = |user: usize| Item { to: device(user.to_string()), ..item("alice", first + user) };
        (0..16).map(to).collect()
    };
    for (first, is_cut) in [(0, false), (100, true)] {
        // That the map names it still does not matter.
        if is_cut {
            cable.cut();
        }
        let sent = tokio::time::timeout(Duration::from_secs(60), client.enqueue(to_each(first)));
        let answers = sent.await.expect("it goes over the other node").unwrap();
        assert!(answers.iter().all(|answer| answer.status() == ItemStatus::Ok), "{answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_reached_no_node_has_not_happened() {
    let (gone, address) = silent_node();
    drop(gone);
    let options = ClientOptions::default().with_deadline(Duration::from_millis(200));
    let client = Client::connect(std::slice::from_ref(&address), options).unwrap();
    let purged = client.purge(device("bob").unwrap(), "test").await;
    let Err(Error::Retryable { reason, message, .. }) = purged else { panic!("{purged:?}") };
    assert_eq!(reason, "NO_CONNECTION");
    assert!(message.contains(&address), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_silent_node_was_asked_once_may_have_happened() {
    let ((_silent, first), (_as_silent, second)) = (silent_node(), silent_node());
    let options = ClientOptions::default().with_deadline(Duration::from_millis(1_500));
    let client = Client::connect(&[first, second], options).unwrap();
    let purged = client.purge(device("bob").unwrap(), "test").await;
    assert!(matches!(purged, Err(Error::OutcomeUnknown { .. })));
    let fetched = client.fetch(FetchRequest::default()).await;
    assert!(matches!(fetched, Err(Error::Retryable { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_renewed_over_another_node_when_one_is_silent() {
    let (store, (_silent, address)) = (FakeStore::with_lease(12_000).await, silent_node());
    // The first process that registers renews at the second node.
    let addresses = [store.addresses(), vec![address]].concat();
    let client = Client::connect(&addresses, ClientOptions::default()).unwrap();
    let registration =
        Registration::start(client, "g", "127.0.0.1:1", Kind::Gateway, Load::default).unwrap();
    let mut lease = registration.lease();
    let first = *lease.wait_for(switchboard_sdk::Lease::is_held).await.unwrap();
    let renewed_or_lost =
        |l: &switchboard_sdk::Lease| !l.is_held() || l.reconnect_budget_per_s == 77;
    let then = *lease.wait_for(renewed_or_lost).await.unwrap();
    assert!(then.is_held(), "fenced");
    assert_eq!(then.incarnation, first.incarnation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_is_kept_up_renewed_and_begun_anew() {
    let mut store = FakeStore::with_lease(3_000).await;
    let client = connect(&store);
    let mut gateways = client.watch_gateways(Kind::Gateway);
    let load = || Load { connections: 5, load: 0.5 };
    let registration =
        Registration::start(client.clone(), "g", "127.0.0.1:1", Kind::Gateway, load).unwrap();
    let mut lease = registration.lease();
    let renewed = |l: &switchboard_sdk::Lease| l.is_held() && l.reconnect_budget_per_s == 77;
    let first = *lease.wait_for(renewed).await.unwrap();
    gateways.wait_for(|live| live.iter().any(|g| g.name == "g")).await.unwrap();
    assert_eq!(client.list_gateways(Kind::Gateway, false).await.unwrap()[0].connections, 5);

    // Another process takes the name.
    store.shared.change_gateways(|stored| stored.gateways[0].live = false);
    lease.wait_for(|lease| !lease.is_held()).await.unwrap();
    let second = *lease.wait_for(switchboard_sdk::Lease::is_held).await.unwrap();
    assert_eq!(second.gateway_id, first.gateway_id);
    assert!(second.incarnation > first.incarnation);

    // The store is gone for longer than the lease.
    store.kill();
    lease.wait_for(|lease| !lease.is_held()).await.unwrap();
    store.restart();
    let third = *lease.wait_for(switchboard_sdk::Lease::is_held).await.unwrap();
    assert!(third.incarnation > second.incarnation, "a fenced incarnation is not taken up again");

    registration.deregister().await;
    gateways.wait_for(|live| live.is_empty()).await.unwrap();
}
