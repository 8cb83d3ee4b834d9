//! Starting and ending a chat process.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use switchboard_api::{
    FILE_DESCRIPTOR_SET,
    limits::REQUEST_BYTES_MAX,
    v1::{chat_service_server::ChatServiceServer, register_request::Kind},
};
use switchboard_process::{BindError, Readiness, Shutdown, bind, http};
use switchboard_sdk::{Client, ClientOptions, Lease, Load, Registration};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::TcpIncoming};
use tracing::{error, warn};

use crate::{
    ChatConfig,
    delivery::Dispatcher,
    limits::{DRAIN_MAX, KEEP_ALIVE},
    meters::Meters,
    notifier::{Notifier, PushError},
    route::router::{Gate, Router},
    service::Service,
};

/// Why a chat process did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A listener does not know its address.
    #[error("cannot tell the address of a listener: {0}")]
    Listener(#[from] std::io::Error),
    /// A store address or the name is not valid.
    #[error(transparent)]
    Store(#[from] switchboard_sdk::Error),
    /// Devices cannot be woken up as configured.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The descriptors of the services cannot be read.
    #[error("cannot set up reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A chat process that runs.
#[derive(Debug)]
pub struct Running {
    grpc: SocketAddr,
    http: SocketAddr,
    /// Its token says: no new requests.
    shutdown: Shutdown,
    /// Ends the tasks that outlive the drain.
    stop: CancellationToken,
    died: CancellationToken,
    registration: Registration,
    lease: watch::Receiver<Lease>,
    notifier: Option<Arc<Notifier>>,
}

/// Starts a chat process: listens, then registers in the background for as long as it takes.
///
/// # Errors
/// See [`StartError`]. A store that cannot be reached is none; see [`Running::ready`].
pub async fn start(config: ChatConfig) -> Result<Running, StartError> {
    let listener = bind("listen", config.listen)?;
    let http_listener = bind("http", config.http)?;
    let grpc = listener.local_addr()?;
    let advertise = config.advertise.clone().unwrap_or_else(|| grpc.to_string());
    let name = config.name.clone().unwrap_or_else(|| format!("chat@{advertise}"));
    let store = Client::connect(&config.store, ClientOptions::default())?;

    let (shutdown, stop) = (Shutdown::new(), CancellationToken::new());
    let readiness = Readiness::new();
    // No pages of its own.
    let http = http::serve(http_listener, &readiness, Default::default(), &shutdown)?;
    let notifier = Notifier::start(&config.push, store.clone(), &stop)?;
    let router = Arc::new(Router {
        dispatcher: Dispatcher::start(
            store.watch_gateways(Kind::Gateway),
            notifier.clone(),
            stop.clone(),
        ),
        gate: Mutex::new(Gate::new(Duration::from_millis(config.store_latency_ms))),
        notifier: notifier.clone(),
        store: store.clone(),
        receipt_merge: Duration::from_millis(config.receipt_merge_ms),
        meters: Meters::new(),
        draining: shutdown.token(),
    });
    let died = CancellationToken::new();
    serve(listener, Service::new(router, shutdown.clone()), &shutdown, died.clone()).await?;

    let registration = Registration::start(store, &name, &advertise, Kind::Chat, Load::default)?;
    let lease = registration.lease();
    follow_readiness(lease.clone(), readiness, stop.clone());
    Ok(Running { grpc, http, shutdown, stop, died, registration, lease, notifier })
}

async fn serve(
    listener: TcpListener,
    service: Service,
    shutdown: &Shutdown,
    died: CancellationToken,
) -> Result<(), StartError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (reporter, health) = tonic_health::server::health_reporter();
    let chat = ChatServiceServer::new(service).max_decoding_message_size(REQUEST_BYTES_MAX);
    reporter.set_serving::<ChatServiceServer<Service>>().await;
    let server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(health)
        .add_service(chat);
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
    // Watchers of the health service learn of the shutdown, and their streams do not hold it up.
    let token = shutdown.token();
    shutdown.spawn(async move {
        token.cancelled().await;
        reporter.set_not_serving::<ChatServiceServer<Service>>().await;
    });
    Ok(())
}

/// Ready is who is registered: gateways find chats in the registry.
fn follow_readiness(
    mut lease: watch::Receiver<Lease>,
    readiness: Readiness,
    stop: CancellationToken,
) {
    tokio::spawn(async move {
        let follow = async {
            loop {
                readiness.set(lease.borrow_and_update().is_held());
                if lease.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = stop.run_until_cancelled(follow).await;
        readiness.set(false);
    });
}

impl Running {
    /// The addresses bound, by name.
    #[must_use]
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        vec![("chat-grpc", self.grpc), ("chat-http", self.http)]
    }

    /// Resolves once the process is registered, so that gateways find it.
    pub async fn ready(&self) {
        let mut lease = self.lease.clone();
        // The sender lives as long as the registration in `self`.
        let _ = lease.wait_for(Lease::is_held).await;
    }

    /// Resolves if the process cannot serve any more; not at all otherwise.
    pub async fn wait(&self) {
        self.died.cancelled().await;
    }

    /// Reads no new request, finishes and answers those under way, and ends the registration.
    pub async fn shutdown(self) {
        self.shutdown.trigger();
        // At the same time, so that gateways turn to other chats at once: nothing that is under
        // way depends on the registration.
        let (drained, ()) =
            tokio::join!(self.shutdown.drain(DRAIN_MAX), self.registration.deregister());
        if !drained {
            warn!("the shutdown did not wait for everything under way");
        }
        if let Some(notifier) = &self.notifier {
            notifier.finish().await;
        }
        self.stop.cancel();
    }
}
