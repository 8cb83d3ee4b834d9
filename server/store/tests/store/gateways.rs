//! Register, KeepAlive, Deregister, List and Watch of gateway and chat processes; their leases.

use std::{sync::Arc, time::Duration};

use switchboard_api::v1::{self, ItemStatus, register_request::Kind};
use switchboard_engine::ManualClock;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::harness::{Store, assert_error, assert_status, device, start, start_at};

async fn next_list(lists: &mut Streaming<v1::WatchGatewaysResponse>) -> (u64, Vec<(u32, u64)>) {
    let list = lists.message().await.unwrap().expect("the watch goes on");
    (list.version, list.gateways.iter().map(|g| (g.gateway_id, g.incarnation)).collect())
}

async fn list(store: &mut Store, kind: Kind, include_ended: bool) -> Vec<v1::GatewayInfo> {
    let request = v1::ListRequest { kind: kind.into(), include_ended };
    store.gateways.list(request).await.unwrap().into_inner().gateways
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_listed_by_kind_and_renew_their_leases() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let one = store.register("one", Kind::Gateway).await;
    let chat = store.register("one", Kind::Chat).await;
    assert_ne!(one.0, chat.0, "names are unique by kind only");

    let (requests, receiver) = mpsc::channel(4);
    let stream = ReceiverStream::new(receiver);
    let mut answers = store.gateways.keep_alive(stream).await.unwrap().into_inner();
    let renewal = |(gateway_id, incarnation): (u32, u64), connections| v1::KeepAliveRequest {
        gateway_id,
        incarnation,
        connections,
        load: 0.25,
    };
    requests.send(renewal(one, 42)).await.unwrap();
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!(answer.lease_ms_left, 10_000);
    assert!(answer.reconnect_budget_per_s > 0);
    // An incarnation that never was, and one that has ended, have no lease.
    requests.send(renewal((one.0, one.1 + 1), 0)).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().lease_ms_left, 0);

    let gateways = list(&mut store, Kind::Gateway, false).await;
    assert_eq!(gateways.len(), 1);
    let info = &gateways[0];
    assert_eq!((info.gateway_id, info.incarnation, info.live), (one.0, one.1, true));
    assert_eq!((info.name.as_str(), info.address.as_str()), ("one", "127.0.0.1:1"));
    assert_eq!((info.connections, info.load), (42, 0.25));
    assert!(info.lease_ms_left <= 10_000 && info.registered_at_ms > 0);
    assert_eq!(list(&mut store, Kind::Chat, false).await[0].gateway_id, chat.0);

    let request = v1::DeregisterRequest { gateway_id: one.0, incarnation: one.1 };
    store.gateways.deregister(request).await.unwrap();
    requests.send(renewal(one, 1)).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().lease_ms_left, 0);
    assert!(list(&mut store, Kind::Gateway, false).await.is_empty());
    let ended = list(&mut store, Kind::Gateway, true).await;
    assert_eq!((ended.len(), ended[0].live, ended[0].lease_ms_left), (1, false, 0));

    let request = v1::DeregisterRequest { gateway_id: 99, incarnation: 1 };
    let error = store.gateways.deregister(request).await.unwrap_err();
    assert_error(&error, Code::NotFound, "UNKNOWN_GATEWAY", false);
    drop(requests);
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_the_whole_list_at_first_and_after_each_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let request = v1::WatchGatewaysRequest { kind: Kind::Gateway.into() };
    let mut lists = store.gateways.watch(request).await.unwrap().into_inner();
    assert_eq!(next_list(&mut lists).await.1, []);
    let one = store.register("one", Kind::Gateway).await;
    let (first, who) = next_list(&mut lists).await;
    assert_eq!(who, [one]);
    store.register("other kind", Kind::Chat).await;
    let two = store.register("two", Kind::Gateway).await;
    let (second, who) = next_list(&mut lists).await;
    assert_eq!(who, [one, two]);
    assert!(second > first);
    let again = store.register("one", Kind::Gateway).await;
    assert_eq!(next_list(&mut lists).await.1, [again, two]);
    let request = v1::DeregisterRequest { gateway_id: two.0, incarnation: two.1 };
    store.gateways.deregister(request).await.unwrap();
    assert_eq!(next_list(&mut lists).await.1, [again]);

    // A stopping store says so, in a way that a retry follows from.
    store.running.shutdown().await;
    assert_error(&lists.message().await.unwrap_err(), Code::Unavailable, "STOPPING", true);
}

/// Time is held by the test: the lease ends because the clock is moved, and not before.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_not_renewed_ends_and_takes_its_sessions_along() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at_unix_ms(1_700_000_000_000));
    let mut store = start_at(dir.path(), clock.clone()).await;
    let one = store.register("one", Kind::Gateway).await;
    let two = store.register("two", Kind::Gateway).await;
    assert_status(store.claim(one, device("bob", 1), 7).await.status, ItemStatus::Ok);
    assert_status(store.claim(two, device("carol", 1), 8).await.status, ItemStatus::Ok);
    let request = v1::WatchGatewaysRequest { kind: Kind::Gateway.into() };
    let mut lists = store.gateways.watch(request).await.unwrap().into_inner();
    assert_eq!(next_list(&mut lists).await.1, [one, two]);

    let (requests, receiver) = mpsc::channel(4);
    let stream = ReceiverStream::new(receiver);
    let mut answers = store.gateways.keep_alive(stream).await.unwrap().into_inner();
    let renewal = |(gateway_id, incarnation)| v1::KeepAliveRequest {
        gateway_id,
        incarnation,
        ..v1::KeepAliveRequest::default()
    };
    clock.advance(Duration::from_secs(6));
    requests.send(renewal(two)).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().lease_ms_left, 10_000);
    clock.advance(Duration::from_secs(6));
    // Twelve seconds after its registration the first has ended; the second was renewed.
    assert_eq!(next_list(&mut lists).await.1, [two]);
    assert!(store.locate(b"bob").await.sessions.is_empty());
    assert_eq!(store.locate(b"carol").await.sessions.len(), 1);
    requests.send(renewal(one)).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().lease_ms_left, 0);
    assert_status(store.claim(one, device("bob", 1), 9).await.status, ItemStatus::UnknownGateway);
    drop(requests);
    store.running.shutdown().await;
}
