//! Devices over QUIC: each has a connection with one bidirectional stream, which it opens.
//!
//! A connection is known by its ids, not by addresses, so it lives on when the device changes
//! networks; what is counted for an address is counted for the one it came from first.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TokioRuntime, TransportConfig,
    VarInt, crypto::rustls::QuicServerConfig,
};
use switchboard_api::device::v1::error::Code;
use tokio::{io::join, time::timeout};
use tracing::debug;

use crate::{
    gateway::Gateway,
    limits::{QUIC_IDLE_MAX, QUIC_RECEIVE_WINDOW, QUIC_SEND_WINDOW},
    listener,
    socket::Socket,
};

/// Listens; `tls` says with which identity.
pub(crate) fn endpoint(tls: rustls::ServerConfig, address: SocketAddr) -> io::Result<Endpoint> {
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    let socket = UdpSocket::bind(address)?;
    let runtime = Arc::new(TokioRuntime);
    Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let window = VarInt::from_u32(QUIC_RECEIVE_WINDOW);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(window)
        .receive_window(window)
        .send_window(QUIC_SEND_WINDOW)
        .max_idle_timeout(IdleTimeout::try_from(QUIC_IDLE_MAX).ok());
    transport
}

/// Accepts until the gateway drains. The endpoint goes on for the connections that it has.
pub(crate) async fn accept(gateway: Arc<Gateway>, endpoint: Endpoint) {
    let draining = gateway.draining.clone();
    loop {
        let incoming = tokio::select! {
            () = draining.cancelled() => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let (gateway, tasks) = (gateway.clone(), gateway.tasks.clone());
        tasks.spawn(async move { open(&gateway, incoming).await });
    }
    endpoint.set_server_config(None);
}

async fn open(gateway: &Arc<Gateway>, incoming: Incoming) {
    let limit = Duration::from_millis(gateway.config.hello_timeout_ms);
    let connection = match timeout(limit, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return debug!(%error, "a QUIC handshake failed"),
        Err(_) => return debug!("a QUIC handshake took too long"),
    };
    // Only now is the address known to be the peer's own.
    let admitted = gateway.addresses.admit(connection.remote_address().ip());
    let (send, recv) = match timeout(limit, connection.accept_bi()).await {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => return debug!(%error, "a QUIC connection ended without a stream"),
        // There is no stream to say it on.
        Err(_) => {
            let code = VarInt::from_u32(Code::HandshakeTimeout as u32);
            return connection.close(code, Code::HandshakeTimeout.as_str_name().as_bytes());
        }
    };
    // The connection lives as long as its streams.
    listener::begin(gateway, Socket::delimited(join(recv, send)), admitted).await;
}
