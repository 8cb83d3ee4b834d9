//! Starting and ending a gateway process.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use switchboard_api::{
    FILE_DESCRIPTOR_SET,
    device::v1::redirect::Reason,
    limits::GRPC_MESSAGE_BYTES_MAX,
    v1::{
        delivery_service_server::DeliveryServiceServer, drain_service_server::DrainServiceServer,
        register_request::Kind,
    },
};
use switchboard_process::{
    BindError, Readiness, Shutdown, bind, http,
    tls::{Identity, IdentityError},
};
use switchboard_sdk::{Client, ClientOptions, Lease, Load, Registration};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::TcpIncoming};
use tracing::{error, warn};

use crate::{
    GatewayConfig, Verifier,
    drain::Drains,
    gateway::{Gateway, Parts},
    lease,
    limits::{CALLER_KEEP_ALIVE, DRAIN_MAX},
    listener::{self, Transport},
    meters::Meters,
    peers::Peers,
    quic, reconcile,
    service::Service,
    silence,
};

/// The application protocol of TLS and QUIC (ALPN): frames of the device protocol.
const ALPN: &[u8] = b"switchboard.v1";
/// What browsers name before they speak WebSocket.
const ALPN_HTTP: &[u8] = b"http/1.1";

/// Why a gateway process did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Devices would be let in unchecked from other machines.
    #[error("`{key}` is {address}: {what} beyond loopback needs `insecure = true` (--insecure)")]
    Insecure {
        /// The configuration key of the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What is not safe.
        what: &'static str,
    },
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// QUIC cannot be set up.
    #[error("cannot listen for QUIC on {address} (`listen_quic`): {source}")]
    Quic {
        /// The address asked for.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A listener does not know its address.
    #[error("cannot tell the address of a listener: {0}")]
    Listener(#[from] std::io::Error),
    /// A store address or the name is not valid.
    #[error(transparent)]
    Store(#[from] switchboard_sdk::Error),
    /// The descriptors of the services cannot be read.
    #[error("cannot set up reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A gateway process that runs.
pub struct Running {
    addresses: Vec<(&'static str, SocketAddr)>,
    gateway: Arc<Gateway>,
    registration: Registration,
    /// gRPC and HTTP.
    shutdown: Shutdown,
    /// Ends the tasks that outlive the drain.
    stop: CancellationToken,
    died: CancellationToken,
    readiness: Readiness,
    lease: watch::Receiver<Lease>,
}

/// Starts a gateway that takes any token; see [`start_with`].
///
/// # Errors
/// See [`StartError`].
pub async fn start(config: GatewayConfig) -> Result<Running, StartError> {
    let unchecked = [("listen_tls", config.listen_tls), ("listen_quic", config.listen_quic)];
    for (key, address) in unchecked.into_iter().filter(|_| config.tls_cert.is_some()) {
        refuse_beyond_loopback(&config, key, address, "taking any token")?;
    }
    start_with(config, Verifier::accept_any()).await
}

/// Starts a gateway process: listens, then registers in the background for as long as it takes.
/// Devices are taken in as soon as it is registered.
///
/// # Errors
/// See [`StartError`]. A store that cannot be reached is none; see [`Running::ready`].
pub async fn start_with(config: GatewayConfig, verifier: Verifier) -> Result<Running, StartError> {
    let Doors { listeners, quic, identity } = Doors::open(&config)?;
    let grpc = bind("listen", config.listen)?;
    let http_listener = bind("http", config.http)?;
    let grpc_address = grpc.local_addr()?;
    let mut addresses = Vec::new();
    for (name, listener, _) in &listeners {
        addresses.push((*name, listener.local_addr()?));
    }
    if let Some(endpoint) = &quic {
        addresses.push(("gateway-quic", endpoint.local_addr()?));
    }
    addresses.push(("gateway-grpc", grpc_address));

    let advertise = config.advertise.clone().unwrap_or_else(|| grpc_address.to_string());
    let name = config.name.clone().unwrap_or_else(|| format!("gateway@{advertise}"));
    let client = Client::connect(&config.store, ClientOptions::default())?;
    let (shutdown, stop) = (Shutdown::new(), CancellationToken::new());
    let (readiness, died) = (Readiness::new(), CancellationToken::new());
    let http = http::serve(http_listener, &readiness, Default::default(), &shutdown)?;
    addresses.push(("gateway-http", http));

    let (peers, meters) = (Arc::new(Peers::default()), Arc::new(Meters::new()));
    let broken = Arc::new(Notify::new());
    let counted = peers.clone();
    let load = move || Load { connections: counted.len() as u64, load: 0.0 };
    let registration = Registration::start(client.clone(), &name, &advertise, Kind::Gateway, load)?;
    let lease = registration.lease();
    let parts = Parts {
        config,
        verifier,
        client: client.clone(),
        lease: lease.clone(),
        peers: peers.clone(),
        meters: meters.clone(),
        broken: broken.clone(),
    };
    let gateway = Gateway::new(parts, &stop);
    let service = Service { gateway: gateway.clone(), broken: broken.clone(), stop: stop.clone() };
    serve(grpc, service, Drains(gateway.clone()), &shutdown, died.clone()).await?;
    let interval = Duration::from_millis(gateway.config.reconcile_ms);
    spawn(&stop, lease::follow(gateway.clone(), readiness.clone()));
    spawn(&stop, silence::run(gateway.clone()));
    spawn(&stop, reconcile::run(client, peers, meters, broken, interval));
    for (_, listener, transport) in listeners {
        gateway.tasks.spawn(listener::accept(gateway.clone(), listener, transport));
    }
    if let Some(endpoint) = quic {
        gateway.tasks.spawn(quic::accept(gateway.clone(), endpoint));
    }
    if let Some(identity) = identity {
        spawn(&stop, identity.follow(Duration::from_millis(gateway.config.tls_reload_ms)));
    }
    Ok(Running { addresses, gateway, registration, shutdown, stop, died, readiness, lease })
}

/// Where devices come in.
struct Doors {
    listeners: Vec<(&'static str, TcpListener, Transport)>,
    quic: Option<quinn::Endpoint>,
    identity: Option<Arc<Identity>>,
}

impl Doors {
    fn open(config: &GatewayConfig) -> Result<Self, StartError> {
        let identity = match (&config.tls_cert, &config.tls_key) {
            (Some(certificate), Some(key)) => Some(Identity::load(certificate, key)?),
            _ => None,
        };
        let mut listeners = Vec::new();
        for (key, name, address, transport) in [
            ("listen_tcp", "gateway-tcp", config.listen_tcp, Transport::Tcp),
            ("listen_ws", "gateway-ws", config.listen_ws, Transport::WebSocket),
        ] {
            refuse_beyond_loopback(config, key, address, "plain text")?;
            if let Some(address) = address {
                listeners.push((name, bind(key, address)?, transport));
            }
        }
        let mut quic = None;
        if let Some(identity) = &identity {
            if let Some(address) = config.listen_tls {
                let tls = identity.server_config(&[ALPN, ALPN_HTTP])?;
                let transport = Transport::Tls(Arc::new(tls));
                listeners.push(("gateway-tls", bind("listen_tls", address)?, transport));
            }
            if let Some(address) = config.listen_quic {
                let endpoint = quic::endpoint(identity.server_config(&[ALPN])?, address);
                quic = Some(endpoint.map_err(|source| StartError::Quic { address, source })?);
            }
        }
        Ok(Self { listeners, quic, identity })
    }
}

fn refuse_beyond_loopback(
    config: &GatewayConfig,
    key: &'static str,
    address: Option<SocketAddr>,
    what: &'static str,
) -> Result<(), StartError> {
    match address {
        Some(address) if !config.insecure && !address.ip().is_loopback() => {
            Err(StartError::Insecure { key, address, what })
        }
        _ => Ok(()),
    }
}

fn spawn(stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move { stop.run_until_cancelled(task).await });
}

async fn serve(
    listener: TcpListener,
    service: Service,
    drains: Drains,
    shutdown: &Shutdown,
    died: CancellationToken,
) -> Result<(), StartError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (reporter, health) = tonic_health::server::health_reporter();
    let delivery =
        DeliveryServiceServer::new(service).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    reporter.set_serving::<DeliveryServiceServer<Service>>().await;
    let server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(CALLER_KEEP_ALIVE))
        .http2_keepalive_timeout(Some(CALLER_KEEP_ALIVE))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(health)
        .add_service(delivery)
        .add_service(DrainServiceServer::new(drains));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let token = shutdown.token();
    let ended = token.clone();
    shutdown.spawn(async move {
        let served = server
            .serve_with_incoming_shutdown(incoming, async move { token.cancelled().await })
            .await;
        if let Err(error) = served {
            error!(%error, "the gRPC server ended");
        }
        if !ended.is_cancelled() {
            died.cancel();
        }
    });
    let token = shutdown.token();
    shutdown.spawn(async move {
        token.cancelled().await;
        reporter.set_not_serving::<DeliveryServiceServer<Service>>().await;
    });
    Ok(())
}

impl Running {
    /// The addresses bound, by name.
    #[must_use]
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        self.addresses.clone()
    }

    /// Resolves once the process is registered and takes devices in.
    pub async fn ready(&self) {
        let mut lease = self.lease.clone();
        // The sender lives as long as the registration in `self`.
        let _ = lease.wait_for(Lease::is_held).await;
    }

    /// Resolves if the process cannot serve any more; not at all otherwise.
    pub async fn wait(&self) {
        self.died.cancelled().await;
    }

    /// Takes no new device in, sends the others away (each told when to come back), applies what
    /// they acknowledged, and ends the registration, with it all sessions in one write.
    pub async fn shutdown(self) {
        self.readiness.set(false);
        self.gateway.draining.cancel();
        self.gateway.send_away(Reason::Draining, |_| true);
        self.gateway.tasks.close();
        if timeout(DRAIN_MAX, self.gateway.tasks.wait()).await.is_err() {
            warn!("the shutdown did not wait for every connection");
        }
        self.registration.deregister().await;
        self.stop.cancel();
        self.shutdown.trigger();
        if !self.shutdown.drain(DRAIN_MAX).await {
            warn!("the shutdown did not wait for everything under way");
        }
    }
}
