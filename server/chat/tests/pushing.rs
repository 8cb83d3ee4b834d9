//! Wake-ups over the real store and real HTTP: who gets one, how often, and through which failures.

mod gateway;
mod receiver;

use std::{net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
use gateway::{Route, device, send};
use receiver::{Answer, Receiver};
use switchboard_api::v1::{
    ItemStatus, Read, RouteRequest, claim_request, register_request::Kind, release_request,
};
use switchboard_chat::{ChatConfig, PushConfig};
use switchboard_device::{Device, DeviceOptions, Event, GatewayAddress, Offline, Outgoing};
use switchboard_gateway::GatewayConfig;
use switchboard_sdk::{Client, ClientOptions, Lease, Load, Registration};
use switchboard_store::StoreConfig;
use tempfile::TempDir;
use tokio::sync::mpsc;

const ANY: &str = "127.0.0.1:0";
const SECRET: &str = "a secret of more than thirty-two bytes";

struct Cluster {
    store: switchboard_store::Running,
    chat: switchboard_chat::Running,
    client: Client,
    store_address: SocketAddr,
    _data: TempDir,
}

async fn store(data: &Path) -> (switchboard_store::Running, SocketAddr) {
    let config = StoreConfig {
        data: data.to_owned(),
        single: true,
        shards: 1,
        segment_bytes: 4 << 20,
        listen: ANY.parse().unwrap(),
        http: ANY.parse().unwrap(),
        ..StoreConfig::default()
    };
    let store = switchboard_store::start(config).await.unwrap();
    let grpc = store.addresses().iter().find(|(name, _)| *name == "store-grpc").unwrap().1;
    (store, grpc)
}

impl Cluster {
    /// Wakes up by `webhook`, at most once an hour.
    async fn start(webhook: String) -> Self {
        let data = tempfile::tempdir().unwrap();
        let secret = data.path().join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        let (store, store_address) = store(&data.path().join("store")).await;
        let config = ChatConfig {
            store: vec![store_address.to_string()],
            name: Some("chat-1".into()),
            listen: ANY.parse().unwrap(),
            http: ANY.parse().unwrap(),
            push: PushConfig {
                webhook: Some(webhook),
                webhook_secret_file: Some(secret),
                interval_ms: 3_600_000,
                attempts_max: 20,
                timeout_ms: 500,
                backoff_ms: 5,
                backoff_max_ms: 100,
                ..PushConfig::default()
            },
            ..ChatConfig::default()
        };
        let chat = switchboard_chat::start(config).await.unwrap();
        chat.ready().await;
        let client =
            Client::connect(&[store_address.to_string()], ClientOptions::default()).unwrap();
        Self { store, chat, client, store_address, _data: data }
    }

    fn chat(&self) -> SocketAddr {
        self.chat.addresses()[0].1
    }

    /// Users who were connected once, with a token, and are not any more.
    async fn offline_users(&self, users: &[&str]) {
        let registration = Registration::start(
            self.client.clone(),
            "gateway-1",
            ANY,
            Kind::Gateway,
            Load::default,
        )
        .unwrap();
        let lease = *registration.lease().wait_for(Lease::is_held).await.unwrap();
        let claim = |user: &&str| claim_request::Item {
            device: device(user),
            connection_id: 5,
            push_token: format!("apns:{user}"),
        };
        let claims = users.iter().map(claim).collect();
        let claimed = self.client.claim(lease.gateway_id, lease.incarnation, claims).await.unwrap();
        let release = |(user, claimed): (&&str, &switchboard_api::v1::claim_response::Result)| {
            release_request::Item { device: device(user), epoch: claimed.epoch }
        };
        let releases = users.iter().zip(&claimed).map(release).collect();
        for released in self.client.release(releases).await.unwrap() {
            assert_eq!(released.status(), ItemStatus::Ok);
        }
        registration.deregister().await;
    }

    async fn end(self) {
        self.chat.shutdown().await;
        self.store.shutdown().await;
    }
}

async fn say(route: &mut Route, to: &str, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let sends = vec![send(n, "alice", to, n)];
        route.send(RouteRequest { sends, ..RouteRequest::default() }).await;
        assert_eq!(route.results().await, [(n, ItemStatus::Ok)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_and_slow_answers_are_met_by_attempts_each_signed_anew() {
    let mut receiver = Receiver::start().await;
    receiver.answers([
        Answer::Now(500),
        Answer::Now(503),
        Answer::Late(Duration::from_secs(3600)),
        Answer::Now(429),
    ]);
    let cluster = Cluster::start(receiver.url()).await;
    cluster.offline_users(&["bob"]).await;
    let mut route = Route::open(cluster.chat()).await.unwrap();
    say(&mut route, "bob", 1..2).await;
    let first = receiver.next().await;
    let body = first.json();
    assert_eq!(body["wake_ups"][0]["user"], "bob");
    assert_eq!(body["wake_ups"][0]["push_token"], "apns:bob");
    assert_eq!(body["wake_ups"][0]["messages"], 1);
    for _ in 0..4 {
        let again = receiver.next().await;
        assert_eq!(again.body, first.body, "the id tells repeats");
        let time: u64 = again.header("switchboard-timestamp").parse().unwrap();
        assert!(time >= first.header("switchboard-timestamp").parse().unwrap());
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
        let signed = [format!("{time}.").as_bytes(), &again.body].concat();
        let tag = aws_lc_rs::hmac::sign(&key, &signed);
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(again.header("switchboard-signature"), format!("v1={hex}"));
    }
    cluster.end().await;
    assert!(receiver.is_quiet(), "the fifth was answered well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_starts_later_gets_the_wake_ups_of_meanwhile() {
    let gone = tokio::net::TcpListener::bind(ANY).await.unwrap().local_addr().unwrap();
    let cluster = Cluster::start(format!("http://{gone}/wake")).await;
    cluster.offline_users(&["bob", "carol"]).await;
    let mut route = Route::open(cluster.chat()).await.unwrap();
    say(&mut route, "bob", 1..2).await;
    say(&mut route, "carol", 2..3).await;
    let mut receiver = Receiver::start_at(gone).await;
    let mut users = Vec::new();
    while users.len() < 2 {
        for wake_up in receiver.next().await.json()["wake_ups"].as_array().unwrap() {
            users.push(wake_up["user"].as_str().unwrap().to_owned());
        }
    }
    users.sort();
    assert_eq!(users, ["bob", "carol"]);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_final_and_a_shutdown_sends_what_is_owed_once_more() {
    let mut receiver = Receiver::start().await;
    receiver.answers([Answer::Now(400)]);
    let cluster = Cluster::start(receiver.url()).await;
    cluster.offline_users(&["bob"]).await;
    let mut route = Route::open(cluster.chat()).await.unwrap();
    say(&mut route, "bob", 1..2).await;
    assert_eq!(receiver.next().await.json()["wake_ups"][0]["messages"], 1);
    say(&mut route, "bob", 2..4).await;
    // Nobody else has anything to say while the hour lasts; the end of the process ends it.
    drop(route);
    cluster.end().await;
    let last = receiver.next().await.json();
    assert_eq!(last["wake_ups"].as_array().unwrap().len(), 1);
    assert_eq!(last["wake_ups"][0]["messages"], 3);
    assert!(receiver.is_quiet());
}

struct Phone {
    device: Device,
    events: mpsc::Receiver<Event>,
}

impl Phone {
    fn start(user: &str, gateway: SocketAddr) -> Self {
        let gateways = vec![GatewayAddress::Tcp(gateway.to_string())];
        let options = DeviceOptions {
            push_token: format!("apns:{user}"),
            ..DeviceOptions::new(Bytes::copy_from_slice(user.as_bytes()), 1, gateways)
        };
        let (device, events) = Device::start(options);
        Self { device, events }
    }

    async fn until<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = pick(self.events.recv().await.expect("the device runs")) {
                    return found;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), found).await.expect("in time")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offline_device_gets_one_wake_up_connects_and_finds_its_messages() {
    let mut receiver = Receiver::start().await;
    let cluster = Cluster::start(receiver.url()).await;
    let config = GatewayConfig {
        store: vec![cluster.store_address.to_string()],
        name: Some("gateway-1".into()),
        listen: ANY.parse().unwrap(),
        listen_tcp: Some(ANY.parse().unwrap()),
        listen_ws: None,
        http: ANY.parse().unwrap(),
        ..GatewayConfig::default()
    };
    let gateway = switchboard_gateway::start(config).await.unwrap();
    gateway.ready().await;
    let tcp = gateway.addresses().iter().find(|(name, _)| *name == "gateway-tcp").unwrap().1;
    let mut bob = Phone::start("bob", tcp);
    bob.until(|event| matches!(event, Event::Online { .. }).then_some(())).await;
    let alice = Phone::start("alice", tcp);
    let text = |n: u32| Outgoing {
        message_id: switchboard_device::new_message_id(),
        to_user: Bytes::from_static(b"bob"),
        to_device: 0,
        ttl_ms: 0,
        body: Bytes::from(n.to_string()),
    };
    // To a device that is connected: nobody is woken up.
    alice.device.send(text(0)).await.unwrap();
    bob.until(|event| matches!(event, Event::Message(_)).then_some(())).await;
    bob.device.go_offline(Offline::Goodbye).await;
    while !cluster.client.locate(vec!["bob".into()], Read::Lease).await.unwrap().results[0]
        .sessions
        .is_empty()
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for n in 1..=20 {
        alice.device.send(text(n)).await.unwrap();
    }
    let wake_up = receiver.next().await.json();
    assert_eq!(wake_up["wake_ups"][0]["user"], "bob");
    assert_eq!(wake_up["wake_ups"][0]["device"], 1);
    assert_eq!(wake_up["wake_ups"][0]["push_token"], "apns:bob");

    bob.device.go_online();
    for n in 1..=20_u32 {
        let body = bob
            .until(|event| match event {
                Event::Message(message) => Some(message.body),
                _ => None,
            })
            .await;
        assert_eq!(body, n.to_string());
    }
    bob.device.shutdown().await;
    alice.device.shutdown().await;
    gateway.shutdown().await;
    cluster.end().await;
    assert!(
        receiver.is_quiet(),
        "one wake-up for twenty messages, and none once they were fetched"
    );
}
