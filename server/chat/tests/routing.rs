//! The chat process between a gateway and a store: what is answered, what is pushed, and what
//! becomes of both when either dies.

mod gateway;

#[path = "../../../client/sdk/tests/fake_store/mod.rs"]
mod fake_store;

use bytes::Bytes;
use fake_store::{FakeStore, silent_node};
use gateway::{Deliveries, Route, converse, device, send};
use prost::Message as _;
use switchboard_api::{
    device::v1::{Receipt, receipt::State},
    shard_of,
    v1::{
        GatewayInfo, ItemStatus, RouteRequest, SessionInfo, message::Kind, route_request::Receipts,
    },
};
use switchboard_chat::{ChatConfig, Running};

async fn chat(store: &FakeStore) -> (Running, std::net::SocketAddr) {
    let config = ChatConfig {
        store: store.addresses(),
        name: Some("chat-1".into()),
        listen: "127.0.0.1:0".parse().unwrap(),
        http: "127.0.0.1:0".parse().unwrap(),
        ..ChatConfig::default()
    };
    let running = switchboard_chat::start(config).await.unwrap();
    running.ready().await;
    let address = running.addresses()[0].1;
    (running, address)
}

/// Puts a gateway with a connection of `user` into the store.
fn connect(store: &FakeStore, deliveries: &Deliveries, user: &str) {
    store.shared.change_gateways(|stored| {
        let session = SessionInfo {
            device: device(user),
            gateway_id: 70,
            incarnation: 7,
            connection_id: 5,
            epoch: 6,
            connected_at_ms: 1,
        };
        stored.sessions.insert(Bytes::copy_from_slice(user.as_bytes()), session);
        stored.gateways.push(GatewayInfo {
            gateway_id: 70,
            incarnation: 7,
            name: "gateway-70".into(),
            address: deliveries.address.to_string(),
            live: true,
            ..GatewayInfo::default()
        });
    });
}

fn sends(sends: Vec<switchboard_api::v1::route_request::Send>) -> RouteRequest {
    RouteRequest { sends, ..RouteRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_stored_answered_and_pushed_to_where_its_recipient_is() {
    let store = FakeStore::start().await;
    let (chat, address) = chat(&store).await;
    let mut deliveries = Deliveries::start().await;
    connect(&store, &deliveries, "bob");
    let mut route = Route::open(address).await.unwrap();
    route.send(sends(vec![send(1, "alice", "bob", 1), send(2, "alice", "bob", 2)])).await;
    assert_eq!(route.results().await, [(1, ItemStatus::Ok), (2, ItemStatus::Ok)]);
    let (first, second) =
        (deliveries.pushes.recv().await.unwrap(), deliveries.pushes.recv().await.unwrap());
    assert_eq!((first.device, first.connection_id, first.epoch), (device("bob"), 5, 6));
    let (first, second) = (first.message.unwrap(), second.message.unwrap());
    assert_eq!((first.body.as_ref(), first.prev_seq), (&b"alice:1"[..], 0));
    assert_eq!((second.body.as_ref(), second.prev_seq), (&b"alice:2"[..], first.seq));

    // A repeat is pushed again, in a way that fits after nothing.
    route.send(sends(vec![send(3, "alice", "bob", 1)])).await;
    assert_eq!(route.results().await, [(3, ItemStatus::Duplicate)]);
    let repeat = deliveries.pushes.recv().await.unwrap().message.unwrap();
    assert_eq!((repeat.seq, repeat.prev_seq), (first.seq, first.seq));
    chat.shutdown().await;
    assert!(!store.shared.stored.lock().gateways.iter().any(|g| g.name == "chat-1" && g.live));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_holds_up_no_message_for_another() {
    let (store, (_silent, silent_address)) = (FakeStore::start().await, silent_node());
    *store.shared.other.lock() = Some(silent_address);
    let (_chat, address) = chat(&store).await;
    let recipient = |odd: u32| {
        let mut names = (0..).map(|n| format!("bob-{n}"));
        names.find(|name| shard_of(name.as_bytes(), 4) % 2 == odd).unwrap()
    };
    let (answering, silent) = (recipient(0), recipient(1));
    let mut route = Route::open(address).await.unwrap();
    // Until the chat has seen the shard map it has one node for both.
    for n in 0.. {
        let to = [send(2 * n, "alice", &answering, n), send(2 * n + 1, "carol", &silent, n)];
        route.send(sends(to.into())).await;
        let results = route.results().await;
        assert!(results.iter().all(|(_, status)| *status == ItemStatus::Ok), "{results:?}");
        if results == [(2 * n, ItemStatus::Ok)] {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_are_merged_and_durable_when_they_are_answered() {
    let store = FakeStore::start().await;
    let (_chat, address) = chat(&store).await;
    let mut route = Route::open(address).await.unwrap();
    let receipts = |id, state: State, messages: std::ops::Range<u8>| Receipts {
        id,
        by: device("bob"),
        to: device("alice"),
        state: state.into(),
        message_ids: messages.map(|m| Bytes::from(vec![m; 16])).collect(),
        at_ms: 44,
    };
    let request = RouteRequest {
        receipts: vec![receipts(1, State::Delivered, 0..3), receipts(2, State::Read, 1..3)],
        ..RouteRequest::default()
    };
    route.send(request).await;
    let mut results = Vec::new();
    while results.len() < 2 {
        results.extend(route.results().await);
    }
    results.sort_by_key(|(id, _)| *id);
    assert_eq!(results, [(1, ItemStatus::Ok), (2, ItemStatus::Ok)]);
    let stored = store.shared.stored.lock();
    let mailbox = &stored.mailboxes[&b"alice"[..]];
    let mut read = Vec::new();
    for message in mailbox {
        assert_eq!((message.kind(), message.from.clone()), (Kind::Receipt, device("bob")));
        let receipt = Receipt::decode(message.body.clone()).unwrap();
        assert_eq!((receipt.by_user.as_ref(), receipt.by_device, receipt.seq), (&b"bob"[..], 1, 0));
        if receipt.state() == State::Read {
            read.push(receipt.message_id[0]);
        }
    }
    read.sort_unstable();
    assert_eq!(read, [1, 2]);
    // Of messages 1 and 2 only the higher state was stored: they came in one request.
    assert_eq!(mailbox.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_items_fail_alone() {
    let store = FakeStore::start().await;
    let (_chat, address) = chat(&store).await;
    let mut route = Route::open(address).await.unwrap();
    let mut short_id = send(1, "alice", "bob", 1);
    short_id.message_id.truncate(15);
    let mut large = send(2, "alice", "bob", 2);
    large.body = Bytes::from(vec![0; 65_537]);
    let no_user = send(3, "alice", "", 3);
    let good = send(4, "alice", "bob", 4);
    let receipts = vec![Receipts { id: 5, ..Receipts::default() }];
    let sends = vec![short_id, large, no_user, good];
    route.send(RouteRequest { sends, receipts, failures_seen: 0 }).await;
    let mut results = Vec::new();
    while results.len() < 5 {
        results.extend(route.results().await);
    }
    results.sort_by_key(|(id, _)| *id);
    let statuses: Vec<_> = results.into_iter().map(|(_, status)| status).collect();
    use ItemStatus::{Invalid, Ok, TooLarge};
    assert_eq!(statuses, [Invalid, TooLarge, Invalid, Ok, Invalid]);
    assert_eq!(store.bodies("bob").len(), 1);

    let many = (0..1_025).map(|n| send(n, "alice", "bob", n)).collect();
    route.send(self::sends(many)).await;
    let refused = route.responses.message().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_killed_under_load_loses_and_reorders_nothing() {
    const SENDERS: usize = 6;
    const COUNT: u64 = 300;
    let mut store = FakeStore::start().await;
    let (chat, address) = chat(&store).await;
    let senders: Vec<_> = (0..SENDERS)
        .map(|n| tokio::spawn(converse(address, format!("sender-{n}"), "bob".into(), COUNT, 8 + n)))
        .collect();
    for _ in 0..6 {
        store.mute_after(SENDERS * COUNT as usize / 8);
        store.is_mute().await;
        store.kill();
        store.restart();
    }
    for sender in senders {
        sender.await.unwrap();
    }
    let bodies = store.bodies("bob");
    assert_eq!(bodies.len(), SENDERS * COUNT as usize);
    for n in 0..SENDERS {
        let prefix = format!("sender-{n}:");
        let of_sender = bodies.iter().filter(|body| body.starts_with(prefix.as_bytes()));
        let expected: Vec<_> = (0..COUNT).map(|n| Bytes::from(format!("{prefix}{n}"))).collect();
        assert!(of_sender.eq(expected.iter()));
    }
    assert!(store.shared.stored.lock().duplicates > 0, "nothing was under way at the kills");
    chat.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_gone_delays_nothing_and_gets_pushes_again_when_it_is_back() {
    let store = FakeStore::start().await;
    let (_chat, address) = chat(&store).await;
    let mut deliveries = Deliveries::start().await;
    connect(&store, &deliveries, "bob");
    let mut route = Route::open(address).await.unwrap();
    route.send(sends(vec![send(1, "alice", "bob", 1)])).await;
    assert_eq!(route.results().await, [(1, ItemStatus::Ok)]);
    deliveries.pushes.recv().await.unwrap();
    deliveries.kill();
    for n in 2..50 {
        route.send(sends(vec![send(n, "alice", "bob", n)])).await;
        assert_eq!(route.results().await, [(n, ItemStatus::Ok)]);
    }
    deliveries.restart();
    // What waited or is sent now arrives; nothing comes twice or out of order.
    route.send(sends(vec![send(50, "alice", "bob", 50)])).await;
    let mut last = 0;
    loop {
        let message = deliveries.pushes.recv().await.unwrap().message.unwrap();
        assert!(message.seq > last);
        last = message.seq;
        if message.body == "alice:50" {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_answers_what_is_under_way() {
    let store = FakeStore::start().await;
    let (chat, address) = chat(&store).await;
    let mut route = Route::open(address).await.unwrap();
    for n in 0..20 {
        route.send(sends(vec![send(n, "alice", "bob", n)])).await;
    }
    let mut answered = route.results().await.len();
    let shutdown = tokio::spawn(chat.shutdown());
    while let Ok(Some(response)) = route.responses.message().await {
        assert!(response.results.iter().all(|result| result.status() == ItemStatus::Ok));
        answered += response.results.len();
    }
    drop(route);
    shutdown.await.unwrap();
    // Everything that was stored was answered; what was not read is the gateway's to send again.
    assert_eq!(store.bodies("bob").len(), answered);
}
