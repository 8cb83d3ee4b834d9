//! Claim, release, unregister, locate: the newest claim wins, and a dead incarnation has no sessions.

use bytes::Bytes;
use switchboard_api::v1::{
    self, ItemStatus, Read, claim_request, register_request::Kind, release_request,
    unregister_request,
};

use crate::harness::{assert_status, device, message, only, start};

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_claim_wins_and_a_stale_epoch_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let one = store.register("one", Kind::Gateway).await;
    let two = store.register("two", Kind::Gateway).await;
    let first = store.claim(one, device("bob", 1), 7).await;
    assert_eq!(first.replaced, None);
    let second = store.claim(two, device("bob", 1), 8).await;
    assert!(second.epoch > first.epoch);
    let replaced = second.replaced.expect("the first session ended");
    assert_eq!((replaced.gateway_id, replaced.connection_id), (one.0, 7));
    assert_eq!((replaced.epoch, replaced.device), (first.epoch, Some(device("bob", 1))));

    let sent = store.enqueue(message("alice", "bob", 1, b"x")).await;
    let stale = store.ack(device("bob", 1), first.epoch, sent.stored[0].seq).await;
    assert_status(stale.status, ItemStatus::Fenced);
    let release = async |store: &mut crate::harness::Store, epoch| {
        let item = release_request::Item { device: Some(device("bob", 1)), epoch };
        let request = v1::ReleaseRequest { items: vec![item] };
        only(store.sessions.release(request).await.unwrap().into_inner().results).status
    };
    assert_status(release(&mut store, first.epoch).await, ItemStatus::Fenced);
    assert_eq!(store.locate(b"bob").await.sessions[0].epoch, second.epoch);
    assert_eq!(store.fetch(device("bob", 1)).await.messages.len(), 1);

    assert_status(release(&mut store, second.epoch).await, ItemStatus::Ok);
    assert!(store.locate(b"bob").await.sessions.is_empty());
    assert_status(release(&mut store, second.epoch).await, ItemStatus::Fenced);
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_needs_a_live_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let chat = store.register("one", Kind::Chat).await;
    let old = store.register("one", Kind::Gateway).await;
    let new = store.register("one", Kind::Gateway).await;
    assert_eq!(old.0, new.0, "a name keeps its id");
    assert!(new.1 > old.1, "and gets a higher incarnation");
    for unknown in [(99, 1), (0, 0), old, (new.0, new.1 + 1), chat] {
        let claim = store.claim(unknown, device("bob", 1), 1).await;
        assert_status(claim.status, ItemStatus::UnknownGateway);
        assert_eq!(claim.epoch, 0);
    }
    assert!(store.locate(b"bob").await.sessions.is_empty());
    assert_status(store.claim(new, device("bob", 1), 1).await.status, ItemStatus::Ok);
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_of_an_ended_incarnation_vanish_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let one = store.register("one", Kind::Gateway).await;
    let two = store.register("two", Kind::Gateway).await;
    for n in 0..50 {
        let gateway = if n % 5 == 0 { two } else { one };
        store.claim(gateway, device(&format!("user-{n}"), 1), n).await;
    }
    let request = v1::DeregisterRequest { gateway_id: one.0, incarnation: one.1 };
    store.gateways.deregister(request).await.unwrap();
    for n in 0..50 {
        let user = format!("user-{n}");
        let expected = usize::from(n % 5 == 0);
        assert_eq!(store.locate(user.as_bytes()).await.sessions.len(), expected, "{user}");
        let sent = store.enqueue(message("alice", &user, n, b"x")).await;
        assert_eq!(sent.sessions.len(), expected, "{user}");
    }
    // Registering again ends the incarnation before, and nobody is told of its sessions any more.
    store.register("two", Kind::Gateway).await;
    assert!(store.locate(b"user-0").await.sessions.is_empty());
    let three = store.register("three", Kind::Gateway).await;
    assert_eq!(store.claim(three, device("user-0", 1), 1).await.replaced, None);
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locate_reads_as_fresh_as_asked_and_streams() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let gateway = store.register("one", Kind::Gateway).await;
    let claim = store.claim(gateway, device("bob", 3), 7).await;
    let users: Vec<_> = ["bob", "nobody", ""].map(|u| Bytes::from_static(u.as_bytes())).into();
    for read in [Read::Local, Read::Lease, Read::Linearizable] {
        let request = v1::LocateRequest { users: users.clone(), read: read.into() };
        let response = store.sessions.locate(request).await.unwrap().into_inner();
        let [bob, nobody, empty] = <[_; 3]>::try_from(response.results).unwrap();
        assert_eq!(bob.devices, [1, 3], "the primary device always exists");
        assert_eq!(bob.sessions.iter().map(|s| s.epoch).collect::<Vec<_>>(), [claim.epoch]);
        assert!(nobody.sessions.is_empty());
        assert_eq!(nobody.devices, [1]);
        assert_status(empty.status, ItemStatus::Invalid);
        if read != Read::Local {
            assert_eq!(response.staleness_ms, 0);
        }
    }
    let requests = (0..100).map(|id| {
        let request = v1::LocateRequest { users: users[..1].to_vec(), read: Read::Lease.into() };
        v1::LocateStreamRequest { id, request: Some(request) }
    });
    let stream = futures::stream::iter(requests.collect::<Vec<_>>());
    let mut answers = store.sessions.locate_stream(stream).await.unwrap().into_inner();
    let mut ids = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let response = answer.response.unwrap().into_message().unwrap();
        assert_eq!(response.results[0].sessions[0].epoch, claim.epoch);
        ids.push(answer.id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..100).collect::<Vec<_>>());
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unregister_removes_a_device_and_empties_the_primary() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let gateway = store.register("one", Kind::Gateway).await;
    for number in [1, 2] {
        store.claim(gateway, device("bob", number), 1).await;
    }
    store.enqueue(message("alice", "bob", 1, b"x")).await;
    let items = [device("bob", 1), device("bob", 2), device("bob", 0)]
        .map(|device| unregister_request::Item { device: Some(device) });
    let request = v1::UnregisterRequest { items: items.into() };
    let results = store.sessions.unregister(request).await.unwrap().into_inner().results;
    assert_status(results[0].status, ItemStatus::Ok);
    assert_status(results[1].status, ItemStatus::Ok);
    assert_status(results[2].status, ItemStatus::Invalid);
    let located = store.locate(b"bob").await;
    assert_eq!((located.devices, located.sessions.len()), (vec![1], 0));
    assert!(store.fetch(device("bob", 1)).await.messages.is_empty());
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_16_devices_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let (gateway_id, incarnation) = store.register("one", Kind::Gateway).await;
    let items = (1..=17).map(|number| claim_request::Item {
        device: Some(device("bob", number)),
        connection_id: number.into(),
        push_token: "token".to_owned(),
    });
    let request = v1::ClaimRequest { items: items.collect(), gateway_id, incarnation };
    let results = store.sessions.claim(request).await.unwrap().into_inner().results;
    for result in &results[..16] {
        assert_status(result.status, ItemStatus::Ok);
    }
    assert_status(results[16].status, ItemStatus::Invalid);
    assert_eq!(store.locate(b"bob").await.devices, (1..=16).collect::<Vec<_>>());
    store.running.shutdown().await;
}
