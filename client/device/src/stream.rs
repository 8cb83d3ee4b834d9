//! The byte streams below frames: TCP, TLS, and the stream of a QUIC connection.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::Pin,
    task::{Context, Poll},
};

use quinn::{Endpoint, RecvStream, SendStream};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream, lookup_host},
};
use tokio_rustls::TlsConnector;

use crate::{error::ConnectError, trust::Trust};

/// Any of them.
pub(crate) trait ByteStream:
    AsyncRead + AsyncWrite + Unpin + Send + Sync + fmt::Debug
{
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync + fmt::Debug> ByteStream for S {}

/// A byte stream, whichever it is.
pub(crate) type AnyStream = Box<dyn ByteStream>;

pub(crate) async fn tcp(authority: &str, from: Option<IpAddr>) -> Result<TcpStream, ConnectError> {
    let stream = match from {
        None => TcpStream::connect(authority).await?,
        Some(from) => {
            let socket = if from.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.bind(SocketAddr::new(from, 0))?;
            socket.connect(resolve(authority).await?).await?
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// TLS to `authority`; `web` says that a WebSocket follows. With whether an earlier session was
/// resumed.
pub(crate) async fn tls(
    authority: &str,
    from: Option<IpAddr>,
    trust: &Trust,
    web: bool,
) -> Result<(AnyStream, bool), ConnectError> {
    let name = server_name(authority)?;
    let connector = TlsConnector::from(if web { trust.web() } else { trust.frames() });
    let stream = connector.connect(name, tcp(authority, from).await?).await?;
    let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    Ok((Box::new(stream), resumed))
}

/// A QUIC connection to `authority` with its one stream.
pub(crate) async fn quic(
    authority: &str,
    from: Option<IpAddr>,
    trust: &Trust,
) -> Result<(QuicStream, Endpoint), ConnectError> {
    let name = server_name(authority)?;
    let address = resolve(authority).await?;
    let here = from.map_or_else(|| any_port(address), |from| SocketAddr::new(from, 0));
    let endpoint = Endpoint::client(here)?;
    let config = trust.quic().map_err(io::Error::other)?;
    let connecting = endpoint
        .connect_with(config, address, &name.to_str())
        .map_err(|error| ConnectError::Quic(error.to_string()))?;
    let connection = connecting.await.map_err(|error| ConnectError::Quic(error.to_string()))?;
    let (send, recv) = connection.open_bi().await.map_err(io::Error::from)?;
    Ok((QuicStream { send, recv, connection }, endpoint))
}

async fn resolve(authority: &str) -> io::Result<SocketAddr> {
    lookup_host(authority).await?.next().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Moves to a socket of its own on whatever network is there now.
pub(crate) fn rebind(endpoint: &Endpoint) -> io::Result<()> {
    let here = endpoint.local_addr()?;
    endpoint.rebind(UdpSocket::bind(any_port(here))?)
}

fn any_port(like: SocketAddr) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

fn server_name(authority: &str) -> Result<ServerName<'static>, ConnectError> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned())
        .map_err(|_| ConnectError::ServerName { host: host.to_owned() })
}

/// The one stream of a QUIC connection, which is closed when this is dropped.
#[derive(Debug)]
pub(crate) struct QuicStream {
    send: SendStream,
    recv: RecvStream,
    connection: quinn::Connection,
}

impl QuicStream {
    /// What the gateway said when it closed the connection, if it did, rather than that it did.
    fn explain(&self, error: io::Error) -> io::Error {
        match self.connection.close_reason() {
            Some(reason) => io::Error::new(error.kind(), reason),
            None => error,
        }
    }
}

impl AsyncRead for QuicStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = AsyncRead::poll_read(Pin::new(&mut this.recv), cx, buf);
        read.map_err(|error| this.explain(error))
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = AsyncWrite::poll_write(Pin::new(&mut this.send), cx, data);
        written.map_err(|error| this.explain(error))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.get_mut().send), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.get_mut().send), cx)
    }
}
