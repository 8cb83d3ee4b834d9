//! Accepts devices' connections: one loop a listener, one task a connection.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use switchboard_api::device::v1::error::Code;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::{
    addresses::Admitted,
    connection,
    gateway::Gateway,
    handshake::refusal,
    limits::{ACCEPT_PAUSE, UPGRADE_TIMEOUT},
    socket::Socket,
};

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    WebSocket,
}

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
                let gateway = gateway.clone();
                let tasks = gateway.tasks.clone();
                tasks.spawn(async move {
                    gateway.meters.connections.increment(1);
                    open(&gateway, stream, address, transport).await;
                    gateway.meters.connections.decrement(1);
                });
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
        Transport::WebSocket => {
            match timeout(UPGRADE_TIMEOUT, Box::pin(Socket::web_socket(stream))).await {
                Ok(Ok(socket)) => begin(gateway, socket, admitted).await,
                Ok(Err(error)) => debug!(%error, "a WebSocket handshake failed"),
                Err(_) => debug!("a WebSocket handshake took too long"),
            }
        }
    }
}

async fn begin(gateway: &Arc<Gateway>, socket: Socket<TcpStream>, admitted: Option<Admitted>) {
    let Some(admitted) = admitted else {
        let message = "too many connections from this address";
        let refused = refusal(Code::TooManyConnections, message, Duration::from_secs(5));
        connection::refuse(socket, refused).await;
        return;
    };
    connection::serve(gateway.clone(), socket).await;
    drop(admitted);
}
