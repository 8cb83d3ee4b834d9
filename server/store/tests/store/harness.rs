//! A store on port 0 in a directory of its own, and clients of it.

use std::{net::SocketAddr, path::Path, sync::Arc};

use bytes::Bytes;
use switchboard_api::v1::{
    self, DeviceRef, ItemStatus, claim_request, claim_response,
    cluster_service_client::ClusterServiceClient, enqueue_request, enqueue_response,
    gateway_service_client::GatewayServiceClient, mailbox_service_client::MailboxServiceClient,
    register_request::Kind, session_service_client::SessionServiceClient,
};
use switchboard_engine::{ManualClock, fs::Files};
use switchboard_store::{Environment, Running, StartError, StoreConfig};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::waiting::{found, retried};

/// Enough for every test, and small to fill with zeros.
const SEGMENT_BYTES: u64 = 8 << 20;

/// A running store, its directory and its clients.
pub(crate) struct Store {
    pub(crate) running: Running,
    pub(crate) sessions: SessionServiceClient<Channel>,
    pub(crate) mailboxes: MailboxServiceClient<Channel>,
    pub(crate) gateways: GatewayServiceClient<Channel>,
    pub(crate) cluster: ClusterServiceClient<Channel>,
    pub(crate) channel: Channel,
}

/// The configuration of a test's store: port 0, few shards.
pub(crate) fn config(data: &Path) -> StoreConfig {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = StoreConfig {
        data: data.to_owned(),
        single: true,
        shards: 4,
        listen: any,
        http: any,
        ..StoreConfig::default()
    };
    config.segment_bytes = SEGMENT_BYTES;
    config
}

/// The configuration of a node that waits for a cluster, or is in one. Leases outlast every test: no gateway
/// renews them.
pub(crate) fn member(data: &Path, node_id: u64) -> StoreConfig {
    StoreConfig { node_id, single: false, lease_ms: 3_600_000, ..config(data) }
}

/// Starts a store in a directory.
pub(crate) async fn start(data: &Path) -> Store {
    connect(switchboard_store::start(config(data)).await.expect("the store starts")).await
}

/// Starts a store with a clock that stands until it is moved.
pub(crate) async fn start_at(data: &Path, clock: Arc<ManualClock>) -> Store {
    let mut environment = Environment::default();
    environment.clock = clock;
    let running = switchboard_store::start_with(config(data), environment).await;
    connect(running.expect("the store starts")).await
}

/// Starts a store on a disk of the test's own.
pub(crate) async fn start_on(
    files: Arc<dyn Files>,
    config: StoreConfig,
) -> Result<Store, StartError> {
    let mut environment = Environment::default();
    environment.files = files;
    Ok(connect(switchboard_store::start_with(config, environment).await?).await)
}

pub(crate) async fn start_configured(config: StoreConfig) -> Result<Store, StartError> {
    Ok(connect(switchboard_store::start(config).await?).await)
}

async fn connect(running: Running) -> Store {
    let address = address(&running, "store-grpc");
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("a URI");
    let channel = endpoint.connect().await.expect("the store listens");
    let max = switchboard_api::limits::GRPC_MESSAGE_BYTES_MAX;
    Store {
        sessions: SessionServiceClient::new(channel.clone()),
        mailboxes: MailboxServiceClient::new(channel.clone())
            .max_decoding_message_size(max)
            .max_encoding_message_size(usize::MAX),
        gateways: GatewayServiceClient::new(channel.clone()),
        cluster: ClusterServiceClient::new(channel.clone()),
        channel,
        running,
    }
}

/// An address by its contractual name.
pub(crate) fn address(running: &Running, name: &str) -> SocketAddr {
    let found = running.addresses().iter().find(|(known, _)| *known == name);
    found.expect("the address is known").1
}

impl Store {
    /// Registers a process; answers its id and incarnation.
    pub(crate) async fn register(&mut self, name: &str, kind: Kind) -> (u32, u64) {
        let request = v1::RegisterRequest {
            name: name.to_owned(),
            address: "127.0.0.1:1".to_owned(),
            kind: kind.into(),
        };
        let register = async || self.gateways.register(request.clone()).await;
        let registered = retried(register).await.into_inner();
        (registered.gateway_id, registered.incarnation)
    }

    /// One claim on a gateway, repeated while the shard has no leader.
    pub(crate) async fn claim(
        &mut self,
        (gateway_id, incarnation): (u32, u64),
        device: DeviceRef,
        connection_id: u64,
    ) -> claim_response::Result {
        let item =
            claim_request::Item { device: Some(device), connection_id, push_token: String::new() };
        let request = v1::ClaimRequest { items: vec![item], gateway_id, incarnation };
        found("taken or refused", async || {
            let response = retried(async || self.sessions.claim(request.clone()).await).await;
            let result = only(response.into_inner().results);
            (result.status() != ItemStatus::Unavailable).then_some(result)
        })
        .await
    }

    /// One enqueue.
    pub(crate) async fn enqueue(
        &mut self,
        item: enqueue_request::Item,
    ) -> enqueue_response::Result {
        let request = v1::EnqueueRequest { items: vec![item] };
        only(self.mailboxes.enqueue(request).await.expect("answered").into_inner().results)
    }

    /// A page of a mailbox.
    pub(crate) async fn fetch(&mut self, device: DeviceRef) -> v1::FetchResponse {
        let request = v1::FetchRequest { device: Some(device), ..v1::FetchRequest::default() };
        retried(async || self.mailboxes.fetch(request.clone()).await).await.into_inner()
    }

    /// One acknowledgement, repeated while the shard has no leader.
    pub(crate) async fn ack(
        &mut self,
        device: DeviceRef,
        epoch: u64,
        up_to_seq: u64,
    ) -> v1::ack_response::Result {
        let item =
            v1::ack_request::Item { device: Some(device), epoch, up_to_seq, seqs: Vec::new() };
        let request = v1::AckRequest { items: vec![item] };
        found("taken or refused", async || {
            let response = retried(async || self.mailboxes.ack(request.clone()).await).await;
            let result = only(response.into_inner().results);
            (result.status() != ItemStatus::Unavailable).then_some(result)
        })
        .await
    }

    /// Where one user is, as fresh as asked; repeated while the shard has no leader.
    pub(crate) async fn located(
        &mut self,
        request: v1::LocateRequest,
    ) -> v1::locate_response::Result {
        found("located", async || {
            let located = retried(async || self.sessions.locate(request.clone()).await).await;
            let result = only(located.into_inner().results);
            (result.status() != ItemStatus::Unavailable).then_some(result)
        })
        .await
    }

    /// Where one user is.
    pub(crate) async fn locate(&mut self, user: &[u8]) -> v1::locate_response::Result {
        let users = vec![Bytes::copy_from_slice(user)];
        let request = v1::LocateRequest { users, read: v1::Read::Linearizable.into() };
        self.located(request).await
    }
}

/// The one result of a batch of one.
pub(crate) fn only<T>(results: Vec<T>) -> T {
    let [result] = <[T; 1]>::try_from(results).ok().expect("one result for one item");
    result
}

/// Names a device.
pub(crate) fn device(user: &str, device: u32) -> DeviceRef {
    DeviceRef { user: Bytes::copy_from_slice(user.as_bytes()), device }
}

/// A message with an id made of `n`.
pub(crate) fn message(from: &str, to: &str, n: u64, body: &[u8]) -> enqueue_request::Item {
    enqueue_request::Item {
        to: Some(device(to, 0)),
        message_id: id(n),
        from: Some(device(from, 1)),
        body: Bytes::copy_from_slice(body),
        ..enqueue_request::Item::default()
    }
}

/// A message id made of `n`.
pub(crate) fn id(n: u64) -> Bytes {
    Bytes::copy_from_slice(&u128::from(n).to_be_bytes())
}

/// Checks the status of an item.
#[track_caller]
pub(crate) fn assert_status(found: i32, expected: ItemStatus) {
    assert_eq!(ItemStatus::try_from(found), Ok(expected));
}

/// Checks a call's error: code, reason, domain, and whether it says when to come back.
#[track_caller]
pub(crate) fn assert_error(status: &Status, code: Code, reason: &str, is_retryable: bool) {
    assert_eq!(status.code(), code, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().expect("an ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "switchboard"));
    assert_eq!(details.retry_info().is_some(), is_retryable, "{details:?}");
}
