//! Accepts devices' connections: one loop a listener, one task a connection. What is spoken inside
//! is the same on all of them.
//!
//! ```text
//!   TCP ──────────────▶ frames                 TLS ── handshake ──┬─▶ frames
//!   WebSocket ─ upgrade ─▶ messages                   first bytes └─▶ upgrade ─▶ messages
//! ```
//! QUIC has a loop of its own, in `quic`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use switchboard_api::device::v1::error::Code;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::{
    addresses::Admitted,
    connection,
    gateway::Gateway,
    handshake::{no_hello, refusal},
    limits::ACCEPT_PAUSE,
    socket::Socket,
    tls_stream::TlsStream,
};

/// What is spoken on a listener.
#[derive(Debug, Clone)]
pub(crate) enum Transport {
    Tcp,
    WebSocket,
    Tls(Arc<ServerConfig>),
}

/// How a WebSocket begins. A frame never does: its second byte would open a field that no frame
/// has.
const UPGRADE: &[u8] = b"GE";

/// Accepts until the gateway drains.
pub(crate) async fn accept(gateway: Arc<Gateway>, listener: TcpListener, transport: Transport) {
    let draining = gateway.draining.clone();
    loop {
        let accepted = tokio::select! {
            () = draining.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let (gateway, transport) = (gateway.clone(), transport.clone());
                let tasks = gateway.tasks.clone();
                tasks.spawn(async move { open(&gateway, stream, address, transport).await });
            }
            Err(error) => {
                // Too many open files, mostly: those who wait must not spin.
                warn!(%error, ?transport, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn open(
    gateway: &Arc<Gateway>,
    stream: TcpStream,
    address: SocketAddr,
    transport: Transport,
) {
    let admitted = gateway.addresses.admit(address.ip());
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "a connection ended at once");
        return;
    }
    match transport {
        Transport::Tcp => begin(gateway, Socket::delimited(stream), admitted).await,
        Transport::WebSocket => Box::pin(upgrade(gateway, stream, admitted)).await,
        Transport::Tls(config) => Box::pin(open_tls(gateway, stream, config, admitted)).await,
    }
}

async fn open_tls(
    gateway: &Arc<Gateway>,
    stream: TcpStream,
    config: Arc<ServerConfig>,
    admitted: Option<Admitted>,
) {
    let limit = Duration::from_millis(gateway.config.hello_timeout_ms);
    let mut stream = match timeout(limit, TlsStream::accept(stream, config)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "a TLS handshake failed"),
        Err(_) => return debug!("a TLS handshake took too long"),
    };
    let is_upgrade = match timeout(limit, stream.peek(UPGRADE.len())).await {
        Ok(Ok(bytes)) => bytes.starts_with(UPGRADE),
        Ok(Err(error)) => return debug!(%error, "a TLS connection ended at once"),
        Err(_) => return connection::refuse(Socket::delimited(stream), no_hello(limit)).await,
    };
    match is_upgrade {
        true => upgrade(gateway, stream, admitted).await,
        false => begin(gateway, Socket::delimited(stream), admitted).await,
    }
}

async fn upgrade<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    gateway: &Arc<Gateway>,
    stream: S,
    admitted: Option<Admitted>,
) {
    let limit = Duration::from_millis(gateway.config.hello_timeout_ms);
    match timeout(limit, Box::pin(Socket::web_socket(stream))).await {
        Ok(Ok(socket)) => begin(gateway, socket, admitted).await,
        Ok(Err(error)) => debug!(%error, "a WebSocket handshake failed"),
        Err(_) => debug!("a WebSocket handshake took too long"),
    }
}

/// Serves a connection on which frames are spoken, or says why not.
pub(crate) async fn begin<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    gateway: &Arc<Gateway>,
    socket: Socket<S>,
    admitted: Option<Admitted>,
) {
    let Some(admitted) = admitted else {
        let message = "too many connections from this address";
        let refused = refusal(Code::TooManyConnections, message, Duration::from_secs(5));
        connection::refuse(socket, refused).await;
        return;
    };
    connection::serve(gateway, socket, admitted).await;
}
