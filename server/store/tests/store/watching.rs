//! Watches of sessions: start, changes in order, resume, and the end of an incarnation.

use bytes::Bytes;
use switchboard_api::v1::{
    self, DeviceRef, WatchRequest, register_request::Kind, release_request, watch_response::Change,
};
use tonic::{Code, Streaming};

use crate::harness::{Store, assert_error, device, start};

async fn watch(
    store: &mut Store,
    users: &[&str],
    gateway_id: u32,
    resume_version: u64,
) -> Streaming<v1::WatchResponse> {
    let users = users.iter().map(|user| Bytes::copy_from_slice(user.as_bytes())).collect();
    let request = WatchRequest { users, gateway_id, resume_version };
    store.sessions.watch(request).await.unwrap().into_inner()
}

/// Change, device and connection of the next event, and its version.
async fn next(events: &mut Streaming<v1::WatchResponse>) -> (Change, Option<DeviceRef>, u64, u64) {
    let event = events.message().await.unwrap().expect("the watch goes on");
    let session = event.session.clone().unwrap_or_default();
    (event.change(), session.device, session.connection_id, event.version)
}

async fn release(store: &mut Store, device: DeviceRef, epoch: u64) {
    let items = vec![release_request::Item { device: Some(device), epoch }];
    store.sessions.release(v1::ReleaseRequest { items }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_followed_and_a_watch_resumes_where_it_broke() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let gateway = store.register("one", Kind::Gateway).await;
    let mut events = watch(&mut store, &["bob"], 0, 0).await;
    let (change, session, _, started) = next(&mut events).await;
    assert_eq!((change, session), (Change::Started, None));

    store.claim(gateway, device("carol", 1), 5).await;
    store.claim(gateway, device("bob", 1), 6).await;
    let (change, who, connection, first) = next(&mut events).await;
    assert_eq!((change, who, connection), (Change::Claimed, Some(device("bob", 1)), 6));
    assert!(first > started);
    let newer = store.claim(gateway, device("bob", 1), 7).await;
    assert_eq!(next(&mut events).await.0, Change::Released);
    let (change, _, connection, _) = next(&mut events).await;
    assert_eq!((change, connection), (Change::Claimed, 7));
    drop(events);
    release(&mut store, device("bob", 1), newer.epoch).await;

    let mut events = watch(&mut store, &["bob"], 0, first).await;
    let (change, _, _, version) = next(&mut events).await;
    assert_eq!((change, version), (Change::Started, first));
    // The claim of connection 7, unless the watch knows already that it has gone, and its release.
    loop {
        let (change, _, connection, version) = next(&mut events).await;
        assert!(version > first);
        if (change, connection) == (Change::Released, 7) {
            break;
        }
    }
    // A version of long ago: start over, and go on from there.
    let mut events = watch(&mut store, &["bob"], 0, 1).await;
    assert_eq!(next(&mut events).await.0, Change::Started);
    assert_eq!(next(&mut events).await.0, Change::Compacted);
    store.claim(gateway, device("bob", 1), 9).await;
    let (change, _, connection, _) = next(&mut events).await;
    assert_eq!((change, connection), (Change::Claimed, 9));

    store.running.shutdown().await;
    assert_error(&events.message().await.unwrap_err(), Code::Unavailable, "STOPPING", true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_incarnation_expires_the_sessions_watched() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let one = store.register("one", Kind::Gateway).await;
    let two = store.register("two", Kind::Gateway).await;
    store.claim(one, device("bob", 1), 1).await;
    store.claim(two, device("carol", 1), 2).await;
    let mut by_user = watch(&mut store, &["bob", "carol"], 0, 0).await;
    let mut by_gateway = watch(&mut store, &[], one.0, 0).await;
    let (.., started) = next(&mut by_user).await;
    assert_eq!(next(&mut by_gateway).await.0, Change::Started);
    store.claim(one, device("bob", 2), 3).await;
    assert_eq!(next(&mut by_user).await.1, Some(device("bob", 2)));
    assert_eq!(next(&mut by_gateway).await.1, Some(device("bob", 2)));

    let request = v1::DeregisterRequest { gateway_id: one.0, incarnation: one.1 };
    store.gateways.deregister(request).await.unwrap();
    for number in [1, 2] {
        let (change, who, ..) = next(&mut by_user).await;
        assert_eq!((change, who), (Change::Expired, Some(device("bob", number))));
    }
    let event = by_gateway.message().await.unwrap().unwrap();
    assert_eq!(event.change(), Change::Expired);
    let session = event.session.unwrap();
    assert_eq!(session.device, None, "all sessions of the incarnation, in one event");
    assert_eq!((session.gateway_id, session.incarnation), one);

    // Whoever resumes across an end starts over: what ended may be gone already.
    let mut resumed = watch(&mut store, &["bob"], 0, started).await;
    assert_eq!(next(&mut resumed).await.0, Change::Started);
    assert_eq!(next(&mut resumed).await.0, Change::Compacted);
    store.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_nothing_or_of_too_much_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = start(dir.path()).await;
    let error = store.sessions.watch(WatchRequest::default()).await.unwrap_err();
    assert_error(&error, Code::InvalidArgument, "EMPTY_LIST", false);
    let users = vec![Bytes::from_static(b"bob"); 1_025];
    let request = WatchRequest { users, ..WatchRequest::default() };
    let error = store.sessions.watch(request).await.unwrap_err();
    assert_error(&error, Code::InvalidArgument, "TOO_MANY_ITEMS", false);
    let request = WatchRequest { users: vec![Bytes::new()], ..WatchRequest::default() };
    let error = store.sessions.watch(request).await.unwrap_err();
    assert_error(&error, Code::InvalidArgument, "USER_LENGTH", false);
    store.running.shutdown().await;
}
