//! A whole messenger in one process: store, chat and gateways on loopback, on ports of the system's
//! choice, with any of them killed and started again at will.
#![allow(dead_code)]

pub(crate) mod certificates;
pub(crate) mod raw;

use std::{net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
use switchboard_chat::ChatConfig;
use switchboard_device::{Device, DeviceOptions, Event, GatewayAddress, Incoming, Outgoing};
use switchboard_gateway::{GatewayConfig, Verifier};
use switchboard_store::StoreConfig;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Far longer than anything takes; a test that needs it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Fails the test instead of hanging.
pub(crate) async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn address_of(addresses: &[(&'static str, SocketAddr)], name: &str) -> SocketAddr {
    addresses.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no {name}")).1
}

pub(crate) async fn store(data: &Path, listen: SocketAddr) -> switchboard_store::Running {
    store_with(data, listen, |_| {}).await
}

pub(crate) async fn store_with(
    data: &Path,
    listen: SocketAddr,
    change: impl FnOnce(&mut StoreConfig),
) -> switchboard_store::Running {
    let mut config = StoreConfig {
        data: data.to_owned(),
        single: true,
        shards: 4,
        listen,
        http: any(),
        segment_bytes: 4 << 20,
        // Longer than any test may take on a busy machine: nobody loses a lease that was not ended.
        lease_ms: 60_000,
        ..StoreConfig::default()
    };
    change(&mut config);
    let running = switchboard_store::start(config).await.unwrap();
    soon("the store's start", running.ready()).await;
    running
}

pub(crate) async fn chat(store: SocketAddr, name: &str) -> switchboard_chat::Running {
    let config = ChatConfig {
        store: vec![store.to_string()],
        name: Some(name.to_owned()),
        listen: any(),
        http: any(),
        ..ChatConfig::default()
    };
    let running = switchboard_chat::start(config).await.unwrap();
    soon("the chat's registration", running.ready()).await;
    running
}

pub(crate) fn gateway_config(store: SocketAddr, name: &str) -> GatewayConfig {
    GatewayConfig {
        store: vec![store.to_string()],
        name: Some(name.to_owned()),
        listen: any(),
        listen_tcp: Some(any()),
        listen_ws: Some(any()),
        http: any(),
        reconcile_ms: 500,
        ..GatewayConfig::default()
    }
}

/// Another gateway of the same store.
pub(crate) async fn any_gateway(store: SocketAddr, name: &str) -> Gateway {
    gateway(gateway_config(store, name)).await
}

pub(crate) async fn gateway(config: GatewayConfig) -> Gateway {
    gateway_with(config, Verifier::accept_any()).await
}

pub(crate) async fn gateway_with(config: GatewayConfig, verifier: Verifier) -> Gateway {
    let running = switchboard_gateway::start_with(config, verifier).await.unwrap();
    soon("the gateway's registration", running.ready()).await;
    Gateway { running }
}

pub(crate) struct Gateway {
    pub(crate) running: switchboard_gateway::Running,
}

impl Gateway {
    pub(crate) fn socket(&self, name: &str) -> SocketAddr {
        address_of(&self.running.addresses(), name)
    }

    pub(crate) fn tcp(&self) -> GatewayAddress {
        GatewayAddress::Tcp(self.socket("gateway-tcp").to_string())
    }

    /// By `tls`, `quic` or `wss`.
    pub(crate) fn secure(&self, scheme: &str) -> GatewayAddress {
        let name = if scheme == "quic" { "gateway-quic" } else { "gateway-tls" };
        format!("{scheme}://{}", self.socket(name)).parse().unwrap()
    }

    pub(crate) fn web_socket(&self) -> GatewayAddress {
        format!("ws://{}", self.socket("gateway-ws")).parse().unwrap()
    }
}

/// Store, chat and one gateway.
pub(crate) struct Messenger {
    pub(crate) store: switchboard_store::Running,
    pub(crate) chat: switchboard_chat::Running,
    pub(crate) gateway: Gateway,
    pub(crate) store_address: SocketAddr,
    pub(crate) data: TempDir,
}

impl Messenger {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        Self::start_changed(change, |_| {}).await
    }

    pub(crate) async fn start_with_store(change: impl FnOnce(&mut StoreConfig)) -> Self {
        Self::start_changed(|_| {}, change).await
    }

    async fn start_changed(
        change: impl FnOnce(&mut GatewayConfig),
        change_store: impl FnOnce(&mut StoreConfig),
    ) -> Self {
        let data = tempfile::tempdir().unwrap();
        let store = store_with(data.path(), any(), change_store).await;
        let store_address = address_of(store.addresses(), "store-grpc");
        let chat = chat(store_address, "chat-1").await;
        let mut config = gateway_config(store_address, "gateway-1");
        change(&mut config);
        let gateway = gateway(config).await;
        Self { store, chat, gateway, store_address, data }
    }

    /// The sessions of a user, as the store has them.
    pub(crate) async fn locate(&self, user: &str) -> Vec<switchboard_api::v1::SessionInfo> {
        let options = switchboard_sdk::ClientOptions::default();
        let store = [self.store_address.to_string()];
        let client = switchboard_sdk::Client::connect(&store, options).unwrap();
        let user = Bytes::copy_from_slice(user.as_bytes());
        let located = client.locate(vec![user], switchboard_api::v1::Read::Lease).await.unwrap();
        located.results.into_iter().flat_map(|result| result.sessions).collect()
    }

    pub(crate) async fn shutdown(self) {
        soon("the gateway's shutdown", self.gateway.running.shutdown()).await;
        soon("the chat's shutdown", self.chat.shutdown()).await;
        soon("the store's shutdown", self.store.shutdown()).await;
    }
}

/// A device, and what has happened to it.
pub(crate) struct Phone {
    pub(crate) device: Device,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) user: Bytes,
}

impl Phone {
    pub(crate) fn start(user: &str, gateways: Vec<GatewayAddress>) -> Self {
        Self::start_with(user, gateways, |_| {})
    }

    pub(crate) fn start_with(
        user: &str,
        gateways: Vec<GatewayAddress>,
        change: impl FnOnce(&mut DeviceOptions),
    ) -> Self {
        let user = Bytes::copy_from_slice(user.as_bytes());
        let mut options = DeviceOptions::new(user.clone(), 1, gateways);
        options.backoff.1 = Duration::from_millis(500);
        change(&mut options);
        let (device, events) = Device::start(options);
        Self { device, events, user }
    }

    pub(crate) async fn event(&mut self) -> Event {
        soon("an event", self.events.recv()).await.expect("the device has ended")
    }

    /// The first event for which `pick` has an answer; the rest is dropped.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(Event) -> Option<T>,
    ) -> T {
        soon(what, async {
            loop {
                if let Some(found) = pick(self.events.recv().await.expect("the device has ended")) {
                    return found;
                }
            }
        })
        .await
    }

    pub(crate) async fn online(&mut self) -> (u64, u64) {
        self.until("a welcome", |event| match event {
            Event::Online { epoch, backlog, .. } => Some((epoch, backlog)),
            _ => None,
        })
        .await
    }

    pub(crate) async fn drained(&mut self) {
        self.until("Drained", |event| matches!(event, Event::Drained).then_some(())).await;
    }

    pub(crate) async fn message(&mut self) -> Incoming {
        self.until("a message", |event| match event {
            Event::Message(message) => Some(message),
            _ => None,
        })
        .await
    }

    /// Puts a message with this text into the outbox and returns its id.
    pub(crate) fn say(&self, to: &str, text: &str) -> [u8; 16] {
        let message_id = switchboard_device::new_message_id();
        drop(self.device.send(outgoing(message_id, to, text)));
        message_id
    }
}

pub(crate) fn outgoing(message_id: [u8; 16], to: &str, text: &str) -> Outgoing {
    Outgoing {
        message_id,
        to_user: Bytes::copy_from_slice(to.as_bytes()),
        to_device: 0,
        ttl_ms: 0,
        body: Bytes::copy_from_slice(text.as_bytes()),
    }
}
