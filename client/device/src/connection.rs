//! One connection to a gateway, frame by frame, without any memory of the conversation. Above the
//! byte stream, all transports are one.
//!
//! Writing goes into a buffer; whoever waits for the next frame also writes what is buffered, so
//! neither side can wait for the other for ever. All waits can be dropped without losing anything.

use std::{
    future::poll_fn,
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use futures::{Sink as _, Stream as _};
use prost::Message as _;
use switchboard_api::{
    device::v1::{ClientFrame, ServerFrame},
    frame::{self, Decoder, FrameError},
    limits::DEVICE_FRAME_BYTES_MAX,
};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        ClientRequestBuilder, Error as WsError, Message, http::Uri, protocol::WebSocketConfig,
    },
};

use crate::{
    address::GatewayAddress,
    error::{ConnectError, ConnectionError},
    limits::READ_CHUNK_BYTES,
    stream::{self, AnyStream},
    trust::Trust,
};

/// The WebSocket subprotocol that names the device protocol.
pub const SUBPROTOCOL: &str = "switchboard.v1";

/// A connection over TCP, TLS, QUIC or WebSocket.
///
/// ```no_run
/// use std::time::Duration;
/// use switchboard_api::device::v1::{ClientFrame, Hello, client_frame::Frame};
/// use switchboard_device::{Connection, GatewayAddress};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let gateway: GatewayAddress = "127.0.0.1:7410".parse()?;
/// let mut connection = Connection::connect(&gateway, Duration::from_secs(5)).await?;
/// let hello = Hello { user: "alice".into(), device: 1, ..Hello::default() };
/// connection.send(&ClientFrame { frame: Some(Frame::Hello(hello)) }).await?;
/// println!("{:?}", connection.next().await?);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    resumed: bool,
    /// Of a QUIC connection, which alone can move to another network.
    endpoint: Option<quinn::Endpoint>,
}

#[derive(Debug)]
enum Socket {
    Delimited { stream: AnyStream, read: BytesMut, write: BytesMut },
    WebSocket { stream: Box<WebSocketStream<AnyStream>>, queued: usize },
}

impl Connection {
    /// Connects within `timeout`; a gateway that has to prove who it is is believed as the system
    /// believes.
    ///
    /// # Errors
    /// When the transport or a handshake fails or takes too long.
    pub async fn connect(
        gateway: &GatewayAddress,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let trust = gateway.is_secure().then(Trust::system).transpose()?;
        Self::connect_with(gateway, trust.as_ref(), timeout).await
    }

    /// As [`Connection::connect`], believing these authorities. Sessions of TLS are resumed that
    /// were made with the same `trust` or a clone of it.
    ///
    /// # Errors
    /// When the transport or a handshake fails or takes too long.
    pub async fn connect_with(
        gateway: &GatewayAddress,
        trust: Option<&Trust>,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        Self::connect_from(gateway, trust, None, timeout).await
    }

    /// As [`Connection::connect_with`], from this address of the machine.
    ///
    /// # Errors
    /// When the transport or a handshake fails or takes too long.
    pub async fn connect_from(
        gateway: &GatewayAddress,
        trust: Option<&Trust>,
        from: Option<IpAddr>,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let open = Box::pin(Self::open(gateway, trust, from));
        tokio::time::timeout(timeout, open).await.map_err(|_| ConnectError::Timeout(timeout))?
    }

    async fn open(
        gateway: &GatewayAddress,
        trust: Option<&Trust>,
        from: Option<IpAddr>,
    ) -> Result<Self, ConnectError> {
        let trusting = || trust.ok_or(ConnectError::NoTrust);
        let (mut resumed, mut endpoint) = (false, None);
        let socket = match gateway {
            GatewayAddress::Tcp(authority) => {
                Socket::delimited(Box::new(stream::tcp(authority, from).await?))
            }
            GatewayAddress::Tls(authority) => {
                let (stream, again) = stream::tls(authority, from, trusting()?, false).await?;
                resumed = again;
                Socket::delimited(stream)
            }
            GatewayAddress::Quic(authority) => {
                let (stream, own) = stream::quic(authority, from, trusting()?).await?;
                endpoint = Some(own);
                Socket::delimited(Box::new(stream))
            }
            GatewayAddress::WebSocket(url) => {
                let uri = uri(url)?;
                let authority = uri.authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
                let stream: AnyStream = if gateway.is_secure() {
                    let (stream, again) = stream::tls(&authority, from, trusting()?, true).await?;
                    resumed = again;
                    stream
                } else {
                    Box::new(stream::tcp(&authority, from).await?)
                };
                web_socket(uri, stream).await?
            }
        };
        Ok(Self { socket, resumed, endpoint })
    }

    /// Whether the handshake of TLS resumed an earlier session.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Goes on from a new socket, as after a change of networks; false if the transport cannot,
    /// which only QUIC can.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn rebind(&self) -> io::Result<bool> {
        match &self.endpoint {
            Some(endpoint) => stream::rebind(endpoint).map(|()| true),
            None => Ok(false),
        }
    }

    /// The address that the other side sees, as far as it is known here: that of a QUIC connection.
    #[must_use]
    pub fn quic_address(&self) -> Option<std::net::SocketAddr> {
        self.endpoint.as_ref()?.local_addr().ok()
    }

    /// Appends a frame to what is to be written.
    ///
    /// # Errors
    /// When the frame is larger than 128 KiB, or the WebSocket is closed.
    pub fn queue(&mut self, frame: &ClientFrame) -> Result<(), ConnectionError> {
        match &mut self.socket {
            Socket::Delimited { write, .. } => Ok(frame::encode(frame, write)?),
            Socket::WebSocket { stream, queued } => {
                let length = frame.encoded_len();
                if length > DEVICE_FRAME_BYTES_MAX {
                    let length = length as u64;
                    return Err(FrameError::TooLarge { length, max: DEVICE_FRAME_BYTES_MAX }.into());
                }
                *queued = queued.saturating_add(length);
                let message = Message::Binary(frame.encode_to_vec().into());
                Ok(Pin::new(stream.as_mut()).start_send(message)?)
            }
        }
    }

    /// Bytes queued and not yet written; on WebSocket an upper bound.
    pub fn queued_bytes(&self) -> usize {
        match &self.socket {
            Socket::Delimited { write, .. } => write.len(),
            Socket::WebSocket { queued, .. } => *queued,
        }
    }

    /// Writes all that is queued.
    ///
    /// # Errors
    /// When the transport fails.
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        poll_fn(|cx| self.socket.poll_flush(cx)).await
    }

    /// Queues a frame and writes all that is queued.
    ///
    /// # Errors
    /// As [`Connection::queue`] and [`Connection::flush`].
    pub async fn send(&mut self, frame: &ClientFrame) -> Result<(), ConnectionError> {
        self.queue(frame)?;
        self.flush().await
    }

    /// The next frame, `None` at the end of the stream. Writes what is queued meanwhile.
    ///
    /// # Errors
    /// When the transport fails or the peer breaks the protocol.
    pub async fn next(&mut self) -> Result<Option<ServerFrame>, ConnectionError> {
        self.drive(true).await
    }

    /// As [`Connection::next`]; without `read` it writes only, and returns only to fail.
    pub(crate) async fn drive(
        &mut self,
        read: bool,
    ) -> Result<Option<ServerFrame>, ConnectionError> {
        poll_fn(|cx| match self.socket.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ if read => self.socket.poll_next(cx),
            _ => Poll::Pending,
        })
        .await
    }

    /// The next frame if it was read from the socket already.
    ///
    /// # Errors
    /// When the peer breaks the protocol.
    pub fn next_buffered(&mut self) -> Result<Option<ServerFrame>, ConnectionError> {
        match &mut self.socket {
            Socket::Delimited { read, .. } => Ok(Decoder::new().next(read)?),
            // Its buffer cannot be looked into; the next wait returns at once.
            Socket::WebSocket { .. } => Ok(None),
        }
    }

    /// Writes what is queued, ends the stream in order, and waits until the gateway has ended it
    /// too: it does so once what was acknowledged counts. Frames that still come are passed over.
    ///
    /// # Errors
    /// When the transport fails before everything is written.
    pub async fn close(mut self) -> Result<(), ConnectionError> {
        match &mut self.socket {
            Socket::Delimited { .. } => {
                self.flush().await?;
                let Socket::Delimited { stream, .. } = &mut self.socket else { return Ok(()) };
                tokio::io::AsyncWriteExt::shutdown(stream).await?;
            }
            Socket::WebSocket { stream, .. } => stream.close(None).await?,
        }
        while let Ok(Some(_)) = self.next().await {}
        Ok(())
    }
}

fn uri(url: &str) -> Result<Uri, ConnectError> {
    url.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error).into())
}

async fn web_socket(uri: Uri, stream: AnyStream) -> Result<Socket, ConnectError> {
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_CHUNK_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(DEVICE_FRAME_BYTES_MAX))
        .max_frame_size(Some(DEVICE_FRAME_BYTES_MAX));
    let (stream, _response) = client_async_with_config(request, stream, Some(config)).await?;
    Ok(Socket::WebSocket { stream: Box::new(stream), queued: 0 })
}

impl Socket {
    fn delimited(stream: AnyStream) -> Self {
        Self::Delimited { stream, read: BytesMut::new(), write: BytesMut::new() }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        match self {
            Self::Delimited { stream, write, .. } => {
                while !write.is_empty() {
                    let written = ready!(Pin::new(&mut *stream).poll_write(cx, write))?;
                    if written == 0 {
                        return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
                    }
                    write.advance(written);
                }
                // An idle connection holds no buffer.
                *write = BytesMut::new();
                // What TLS holds is written too.
                Poll::Ready(ready!(Pin::new(stream).poll_flush(cx)).map_err(Into::into))
            }
            Self::WebSocket { stream, queued } => {
                ready!(Pin::new(stream.as_mut()).poll_flush(cx))?;
                *queued = 0;
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<ServerFrame>, ConnectionError>> {
        match self {
            Self::Delimited { stream, read, .. } => loop {
                if let Some(frame) = Decoder::new().next(read)? {
                    return Poll::Ready(Ok(Some(frame)));
                }
                if ready!(poll_read_some(stream, read, cx))? == 0 {
                    Decoder::new().finish(read)?;
                    return Poll::Ready(Ok(None));
                }
            },
            Self::WebSocket { stream, .. } => loop {
                match ready!(Pin::new(stream.as_mut()).poll_next(cx)) {
                    Some(Ok(Message::Binary(bytes))) => {
                        let frame = ServerFrame::decode(bytes).map_err(FrameError::from)?;
                        return Poll::Ready(Ok(Some(frame)));
                    }
                    Some(Ok(Message::Text(_))) => {
                        return Poll::Ready(Err(ConnectionError::NotBinary));
                    }
                    Some(Ok(_)) => {}
                    None | Some(Err(WsError::ConnectionClosed)) => return Poll::Ready(Ok(None)),
                    Some(Err(error)) => return Poll::Ready(Err(error.into())),
                }
            },
        }
    }
}

/// Reads once through a buffer on the stack, so that a connection that waits holds none.
fn poll_read_some(
    stream: &mut AnyStream,
    read: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut chunk = [std::mem::MaybeUninit::uninit(); READ_CHUNK_BYTES];
    let mut chunk = ReadBuf::uninit(&mut chunk);
    ready!(Pin::new(stream).poll_read(cx, &mut chunk))?;
    if read.is_empty() {
        // Frames taken out before may still share the old buffer.
        *read = BytesMut::with_capacity(chunk.filled().len());
    }
    read.extend_from_slice(chunk.filled());
    Poll::Ready(Ok(chunk.filled().len()))
}
