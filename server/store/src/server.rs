//! Starting, running and stopping a store process.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, response::Html, routing::get};
use switchboard_api::{
    FILE_DESCRIPTOR_SET, limits as contract,
    v1::{
        cluster_service_server::ClusterServiceServer, gateway_service_server::GatewayServiceServer,
        mailbox_service_server::MailboxServiceServer, peer_service_server::PeerServiceServer,
        session_service_server::SessionServiceServer,
    },
};
use switchboard_engine::{
    Clock, META_GROUP, SystemClock,
    fs::{Files, RealFiles},
    log::{Log, LogOpenError},
};
use switchboard_process::{BindError, Readiness, Shutdown, bind, http};
use switchboard_raft::{InitializeError, Node, NodeOpenError, NodeOptions};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tonic::transport::{
    Server,
    server::{Router as Routes, TcpIncoming},
};
use tonic_health::{ServingStatus, pb::FILE_DESCRIPTOR_SET as HEALTH_DESCRIPTORS};

use crate::{
    cluster::Cluster,
    config::StoreConfig,
    events::SessionEvents,
    gauges,
    leaders::Leaders,
    leases::Leases,
    limits,
    mailbox::Mailboxes,
    mover::{self, Mover},
    page,
    peers::{BookError, PeerServer, Peers},
    registry::Registry,
    rpc::Rpc,
    rules,
    service::Service,
    session::Sessions,
    sweep,
};

/// Why a store did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be used.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The data directory cannot be opened.
    #[error(transparent)]
    Open(#[from] NodeOpenError),
    /// A one-node cluster cannot be made, or is not what the configuration says.
    #[error(transparent)]
    Initialize(#[from] InitializeError),
    /// The members of the cluster cannot be read.
    #[error(transparent)]
    Book(#[from] BookError),
    /// Reflection or HTTP could not be set up.
    #[error("the store cannot serve: {reason}")]
    Serve {
        /// What failed.
        reason: String,
    },
}

impl StartError {
    /// Whether another process has the data directory.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Open(NodeOpenError::Log(LogOpenError::InUse { .. })))
    }

    /// Whether the data is another node's, or a cluster's.
    #[must_use]
    pub fn is_of_another_node(&self) -> bool {
        matches!(self, Self::Initialize(InitializeError::OtherNode { .. }))
    }
}

/// Why a running store ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store has failed: {reason}")]
pub struct Failure {
    /// What failed.
    pub reason: String,
}

/// A running store.
pub struct Running {
    addresses: Vec<(&'static str, SocketAddr)>,
    service: Arc<Service>,
    readiness: Readiness,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    health: tonic_health::server::HealthReporter,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Opens the data directory and serves; returns when the store answers requests.
///
/// The configuration must have been validated.
///
/// # Errors
/// See [`StartError`]. Nothing runs on after an error.
pub async fn start(config: StoreConfig) -> Result<Running, StartError> {
    start_with(config, Environment::default()).await
}

/// What a store takes from the machine, so that a test or a simulation can hold it in its hand.
#[derive(Clone)]
#[non_exhaustive]
pub struct Environment {
    /// The clocks of stamps and leases.
    pub clock: Arc<dyn Clock>,
    /// The disk.
    pub files: Arc<dyn Files>,
}

impl Default for Environment {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock::new()), files: Arc::new(RealFiles) }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// [`start`] with clocks and a disk of one's own.
///
/// # Errors
/// See [`StartError`]. Nothing runs on after an error.
pub async fn start_with(
    config: StoreConfig,
    environment: Environment,
) -> Result<Running, StartError> {
    let grpc = bind("listen", config.listen)?;
    let http_listener = bind("http", config.http)?;
    let serve = |reason: String| StartError::Serve { reason };
    let grpc_address = grpc.local_addr().map_err(|e| serve(e.to_string()))?;
    let shutdown = Shutdown::new();
    let peers = Peers::open(config.node_id, config.formats, config.data.clone())?;
    let node = open(&config, &environment, &peers, grpc_address).await?;
    let clock = environment.clock;
    let service = Arc::new(Service {
        node,
        peers,
        founding: tokio::sync::Mutex::default(),
        shards_default: config.shards,
        leaders: Leaders::default(),
        map: watch::Sender::default(),
        mover: Mover::default(),
        leases: Leases::new(Duration::from_millis(config.lease_ms)),
        logins_per_s: config.logins_per_s(),
        events: SessionEvents::new(clock.unix_ms()),
        watches: Arc::new(Semaphore::new(limits::WATCHES_MAX)),
        backups: Arc::new(Semaphore::new(limits::BACKUPS_MAX)),
        probes: Semaphore::new(limits::PROBES_MAX),
        data: config.data.clone(),
        clock,
        shutdown,
        insecure: config.insecure,
        started: tokio::time::Instant::now(),
    });
    service.shutdown.spawn(service.clone().end_lapsed());
    service.shutdown.spawn(rules::run(service.clone()));
    service.shutdown.spawn(sweep::run(service.clone()));
    service.shutdown.spawn(gauges::run(service.clone()));
    service.shutdown.spawn(service.clone().follow_leaders());
    service.shutdown.spawn(service.clone().follow_map());
    service.shutdown.spawn(service.clone().follow_members());
    service.shutdown.spawn(service.clone().renew_book());
    service.shutdown.spawn(mover::run(service.clone()));
    let readiness = Readiness::new();
    let pages = pages(service.clone());
    let http_address = http::serve(http_listener, &readiness, pages, &service.shutdown)
        .map_err(|error| serve(error.to_string()))?;
    let (health, routes) = routes(&service).await.map_err(|error| serve(error.to_string()))?;
    let token = service.shutdown.token();
    let serving = tokio::spawn(routes.serve_with_incoming_shutdown(
        // Answers are small and must not wait for the acknowledgement of the ones before.
        TcpIncoming::from(grpc).with_nodelay(Some(true)),
        async move { token.cancelled().await },
    ));
    service.shutdown.spawn(tell_ready(service.clone(), readiness.clone()));
    let addresses = vec![("store-grpc", grpc_address), ("store-http", http_address)];
    Ok(Running { addresses, service, readiness, serving, health })
}

/// Opens the node and sees to it that it has its shards.
async fn open(
    config: &StoreConfig,
    environment: &Environment,
    peers: &Arc<Peers>,
    address: SocketAddr,
) -> Result<Node, StartError> {
    let advertised = match config.advertise.as_str() {
        "" => address.to_string(),
        named => named.to_owned(),
    };
    let mut options = NodeOptions::new(&config.data, config.node_id, advertised);
    options.clock = environment.clock.clone();
    options.files = environment.files.clone();
    options.transport = peers.clone();
    options.rules = config.limits.rules();
    options.formats = config.formats;
    options.waiting_items_max = config.limits.waiting_items_max;
    options.waiting_bytes_max = config.limits.waiting_bytes_max;
    options.checkpoint_bytes = config.checkpoint_bytes;
    options.log_bytes_max = config.log_bytes_max;
    options.log.segment_bytes = config.segment_bytes;
    let node = Node::open(options).await?;
    peers.connect(node.disk_id());
    if peers.book().is_some() {
        // A member of a cluster, which goes on by itself.
        return Ok(node);
    }
    match make_ready(&node, config).await {
        Ok(()) => Ok(node),
        Err(error) => {
            node.shutdown().await;
            Err(error)
        }
    }
}

async fn make_ready(node: &Node, config: &StoreConfig) -> Result<(), StartError> {
    let is_fresh =
        node.log().group_state(META_GROUP).last.is_none() && node.shard_count().is_none();
    if is_fresh && !config.single {
        tracing::info!("no cluster yet: waiting for `switchboard cluster init`");
        return Ok(());
    }
    // A cluster that is there keeps its number of shards, whatever the configuration's default; how
    // many that is may be known only once its log is applied.
    match node.initialize_single(node.shard_count().unwrap_or(config.shards)).await {
        Err(InitializeError::OtherShards { found, .. }) => node.initialize_single(found).await?,
        other => other?,
    }
    for group in node.shards().iter() {
        rules::set(group, &config.limits.rules()).await.map_err(|error| StartError::Serve {
            reason: format!("the configured limits cannot be set: {error}"),
        })?;
    }
    Ok(())
}

type RoutesError = Box<dyn std::error::Error + Send + Sync>;

async fn routes(
    service: &Arc<Service>,
) -> Result<(tonic_health::server::HealthReporter, Routes), RoutesError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let max = contract::GRPC_MESSAGE_BYTES_MAX;
    let sessions = SessionServiceServer::new(Sessions(service.clone()))
        .max_decoding_message_size(max)
        .max_encoding_message_size(usize::MAX);
    let mailboxes = MailboxServiceServer::new(Mailboxes(service.clone()))
        .max_decoding_message_size(max)
        .max_encoding_message_size(usize::MAX);
    let registry = GatewayServiceServer::new(Registry(service.clone()));
    let cluster = ClusterServiceServer::new(Cluster(service.clone()));
    let peers = PeerServiceServer::new(PeerServer(service.clone()))
        .max_decoding_message_size(max)
        .max_encoding_message_size(usize::MAX);
    health.set_serving::<SessionServiceServer<Sessions>>().await;
    health.set_serving::<MailboxServiceServer<Mailboxes>>().await;
    health.set_serving::<GatewayServiceServer<Registry>>().await;
    health.set_serving::<ClusterServiceServer<Cluster>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(HEALTH_DESCRIPTORS)
    };
    let counted = &service.shutdown;
    let routes = Server::builder()
        .initial_stream_window_size(limits::HTTP2_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_WINDOW_BYTES)
        .max_concurrent_streams(limits::HTTP2_STREAMS_MAX)
        .http2_keepalive_interval(Some(limits::HTTP2_PING_INTERVAL))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(Rpc(sessions, counted.clone()))
        .add_service(Rpc(mailboxes, counted.clone()))
        .add_service(Rpc(registry, counted.clone()))
        .add_service(Rpc(cluster, counted.clone()))
        .add_service(peers);
    Ok((health, routes))
}

fn pages(service: Arc<Service>) -> Router {
    let page = move || {
        let service = service.clone();
        async move { Html(page::render(&service.status())) }
    };
    Router::new().route("/", get(page))
}

/// Resolves when the log has failed. Groups notice by themselves only when they append; on an idle
/// node, or one that refuses what would append because the disk looks full, nothing else would tell.
async fn log_closed(node: &Node) {
    while !node.log().stats().closed {
        tokio::time::sleep(limits::LOG_LOOK_INTERVAL).await;
    }
}

/// Waits until this node knows the shards, and a leader of each.
async fn has_leaders(service: &Service) {
    loop {
        // A node answers for shards that others have as well.
        let count = u32::try_from(service.node.shard_table().len()).unwrap_or(0);
        if count > 0 && (0..count).all(|shard| service.leader_of(shard).is_some()) {
            return;
        }
        tokio::time::sleep(limits::READY_LOOK_INTERVAL).await;
    }
}

async fn tell_ready(service: Arc<Service>, readiness: Readiness) {
    let token = service.shutdown.token();
    if token.run_until_cancelled(has_leaders(&service)).await.is_some() {
        readiness.set(true);
    }
}

impl Running {
    /// Every address bound, by its contractual name.
    #[must_use]
    pub fn addresses(&self) -> &[(&'static str, SocketAddr)] {
        &self.addresses
    }

    /// Resolves when requests are answered: when this node has a cluster, and every shard a leader.
    pub async fn ready(&self) {
        has_leaders(&self.service).await;
    }

    /// Resolves when the store cannot go on: a disk that failed, a server that ended.
    pub async fn wait(&mut self) -> Failure {
        let reason = tokio::select! {
            failure = self.service.node.failed() => failure.to_string(),
            () = log_closed(&self.service.node) => {
                "the log is closed for good after a failed write or sync".to_owned()
            }
            ended = &mut self.serving => format!("the gRPC server ended: {ended:?}"),
        };
        self.readiness.set(false);
        Failure { reason }
    }

    /// Stops: refuses new calls, finishes those under way, syncs the log, and returns when the data directory can
    /// be opened again. False if calls were cut off that did not end in time.
    ///
    /// Until all calls have their answers the node goes on as a replica: it asks the others what it
    /// passed on to them, and hears from them what became of the entries that it proposed.
    pub async fn shutdown(self) -> bool {
        self.readiness.set(false);
        if !self.service.peers.is_alone() {
            self.service.node.hand_over_leadership().await;
        }
        self.health.set_not_serving::<SessionServiceServer<Sessions>>().await;
        self.health.set_not_serving::<MailboxServiceServer<Mailboxes>>().await;
        self.health.set_not_serving::<GatewayServiceServer<Registry>>().await;
        self.health.set_not_serving::<ClusterServiceServer<Cluster>>().await;
        self.health.set_service_status("", ServingStatus::NotServing).await;
        self.service.shutdown.trigger();
        let drained = self.service.shutdown.drain(limits::DRAIN_MAX).await;
        self.service.peers.disconnect();
        let abort = self.serving.abort_handle();
        let ended = tokio::time::timeout(limits::DRAIN_MAX, self.serving).await.is_ok();
        if !drained || !ended {
            tracing::warn!(drained, ended, "some calls did not end in time");
            abort.abort();
        }
        self.service.node.shutdown().await;
        let files = self.service.node.options().files.clone();
        let data = self.service.node.options().data_dir.clone();
        drop((self.service, self.health));
        // Tasks that have ended, as those of connections, are dropped a moment later.
        let is_free = async {
            while !Log::is_free(&*files, &data) {
                tokio::time::sleep(limits::FREE_LOOK_INTERVAL).await;
            }
        };
        if tokio::time::timeout(limits::DRAIN_MAX, is_free).await.is_err() {
            tracing::warn!(data = %data.display(), "the data directory is still in use");
        }
        drained && ended
    }
}
