//! The chat process with the real store: one message from gateway to gateway, and many while the
//! store goes away and comes back.

mod gateway;

use std::{net::SocketAddr, path::Path};

use bytes::Bytes;
use gateway::{Deliveries, Route, converse, device, send};
use switchboard_api::v1::{
    FetchRequest, ItemStatus, Message, RouteRequest, claim_request, register_request::Kind,
};
use switchboard_chat::ChatConfig;
use switchboard_sdk::{Client, ClientOptions, Lease, Load, Registration};
use switchboard_store::StoreConfig;

const ANY: &str = "127.0.0.1:0";

async fn store(data: &Path, listen: SocketAddr) -> (switchboard_store::Running, SocketAddr) {
    let config = StoreConfig {
        data: data.to_owned(),
        single: true,
        shards: 4,
        segment_bytes: 4 << 20,
        listen,
        http: ANY.parse().unwrap(),
        ..StoreConfig::default()
    };
    let store = switchboard_store::start(config).await.unwrap();
    let grpc = store.addresses().iter().find(|(name, _)| *name == "store-grpc").unwrap().1;
    (store, grpc)
}

async fn chat(store: SocketAddr) -> (switchboard_chat::Running, SocketAddr) {
    let config = ChatConfig {
        store: vec![store.to_string()],
        name: Some("chat-1".into()),
        listen: ANY.parse().unwrap(),
        http: ANY.parse().unwrap(),
        ..ChatConfig::default()
    };
    let chat = switchboard_chat::start(config).await.unwrap();
    chat.ready().await;
    let address = chat.addresses()[0].1;
    (chat, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_crosses_from_gateway_to_gateway() {
    let data = tempfile::tempdir().unwrap();
    let (store, store_address) = store(data.path(), ANY.parse().unwrap()).await;
    let (chat, chat_address) = chat(store_address).await;
    let client = Client::connect(&[store_address.to_string()], ClientOptions::default()).unwrap();
    let mut deliveries = Deliveries::start().await;
    let address = deliveries.address.to_string();
    let registration =
        Registration::start(client.clone(), "gateway-1", &address, Kind::Gateway, Load::default)
            .unwrap();
    let lease = *registration.lease().wait_for(Lease::is_held).await.unwrap();
    let claim =
        claim_request::Item { device: device("bob"), connection_id: 5, ..Default::default() };
    let claimed = client.claim(lease.gateway_id, lease.incarnation, vec![claim]).await.unwrap();
    assert_eq!(claimed[0].status(), ItemStatus::Ok);

    let mut route = Route::open(chat_address).await.unwrap();
    let sends = vec![send(1, "alice", "bob", 1), send(2, "alice", "bob", 2)];
    route.send(RouteRequest { sends, ..RouteRequest::default() }).await;
    assert_eq!(route.results().await, [(1, ItemStatus::Ok), (2, ItemStatus::Ok)]);
    let first = deliveries.pushes.recv().await.unwrap();
    assert_eq!((first.connection_id, first.epoch), (5, claimed[0].epoch));
    let first = first.message.unwrap();
    assert_eq!((first.body.as_ref(), first.prev_seq), (&b"alice:1"[..], 0));
    let second = deliveries.pushes.recv().await.unwrap().message.unwrap();
    assert_eq!((second.body.as_ref(), second.prev_seq), (&b"alice:2"[..], first.seq));
    assert!(second.seq > first.seq);

    drop(route);
    registration.deregister().await;
    chat.shutdown().await;
    store.shutdown().await;
}

/// All that waits for a user.
async fn mailbox(client: &Client, user: &str) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    loop {
        let after_seq = messages.last().map_or(0, |message| message.seq);
        let device = device(user);
        let request = FetchRequest { device, after_seq, messages_max: 1_024, ..Default::default() };
        let page = client.fetch(request).await.unwrap();
        messages.extend(page.messages);
        if !page.more {
            return messages;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_comes_and_goes_under_load_loses_and_reorders_nothing() {
    const SENDERS: usize = 4;
    const COUNT: u64 = 400;
    let data = tempfile::tempdir().unwrap();
    let (mut running, address) = store(data.path(), ANY.parse().unwrap()).await;
    let (chat, chat_address) = chat(address).await;
    let client = Client::connect(&[address.to_string()], ClientOptions::default()).unwrap();
    let senders: Vec<_> = (0..SENDERS)
        .map(|n| {
            let (from, to) = (format!("sender-{n}"), format!("user-{}", n % 2));
            tokio::spawn(converse(chat_address, from, to, COUNT, 4))
        })
        .collect();
    for life in 1..4 {
        // So far into the load that sends are under way when the store goes.
        while mailbox(&client, "user-0").await.len() < life * 100 {}
        running.shutdown().await;
        (running, _) = store(data.path(), address).await;
    }
    for sender in senders {
        sender.await.unwrap();
    }
    for user in 0..2 {
        let messages = mailbox(&client, &format!("user-{user}")).await;
        assert_eq!(messages.len(), SENDERS / 2 * COUNT as usize);
        for n in (0..SENDERS).filter(|n| n % 2 == user) {
            let prefix = format!("sender-{n}:");
            let of_sender = messages
                .iter()
                .map(|message| &message.body)
                .filter(|body| body.starts_with(prefix.as_bytes()));
            let expected: Vec<_> =
                (0..COUNT).map(|n| Bytes::from(format!("{prefix}{n}"))).collect();
            assert!(of_sender.eq(expected.iter()), "{prefix}");
        }
    }
    chat.shutdown().await;
    running.shutdown().await;
}
