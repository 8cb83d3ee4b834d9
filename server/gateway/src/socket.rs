//! Frames of the device protocol over any byte stream, the server's side: delimited by their length,
//! or one a binary WebSocket message.
//!
//! Nothing here knows what a frame means. Invariants: an idle socket holds no buffer of its own (a
//! WebSocket holds its codec's); what waits to be written is bounded by its user; all waits can be
//! dropped without losing anything.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, BytesMut};
use futures::{Sink as _, Stream as _};
use prost::Message as _;
use switchboard_api::{
    device::v1::{ClientFrame, ServerFrame, error::Code},
    frame::{self, Decoder, FrameError},
    limits::DEVICE_FRAME_BYTES_MAX,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WsError, Message,
        error::CapacityError,
        handshake::server::{ErrorResponse, Request, Response},
        http::{HeaderValue, StatusCode, header::SEC_WEBSOCKET_PROTOCOL},
        protocol::WebSocketConfig,
    },
};

use crate::limits::{FAREWELL_BYTES_MAX, READ_CHUNK_BYTES};

/// The WebSocket subprotocol that names the device protocol.
pub(crate) const SUBPROTOCOL: &str = "switchboard.v1";

/// Bytes of a WebSocket's read buffer, which it holds for as long as it lives.
const WS_READ_BUFFER_BYTES: usize = 2 * 1024;

/// Why no further frame comes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a WebSocket message is larger than a frame may be")]
    MessageTooLarge,
    #[error("the WebSocket protocol was broken: {0}")]
    WebSocket(String),
    #[error("a WebSocket message is not binary")]
    NotBinary,
}

impl SocketError {
    /// What the device is told; `None` if nothing can be told any more.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Io(_) => None,
            Self::MessageTooLarge | Self::Frame(FrameError::TooLarge { .. }) => {
                Some(Code::TooLarge)
            }
            Self::Frame(_) | Self::WebSocket(_) | Self::NotBinary => Some(Code::Protocol),
        }
    }
}

impl From<WsError> for SocketError {
    fn from(error: WsError) -> Self {
        match error {
            WsError::Io(error) => Self::Io(error),
            WsError::Capacity(CapacityError::MessageTooLong { .. }) => Self::MessageTooLarge,
            WsError::ConnectionClosed | WsError::AlreadyClosed => {
                Self::Io(io::ErrorKind::ConnectionReset.into())
            }
            other => Self::WebSocket(other.to_string()),
        }
    }
}

/// What a wait on the socket brought.
#[derive(Debug)]
pub(crate) enum Moved {
    Frame(ClientFrame),
    /// The device has closed its side.
    End,
    /// All that was queued has been written.
    Flushed,
}

#[derive(Debug)]
enum Framing<S> {
    Delimited {
        stream: S,
        buffers: Option<Box<Buffers>>,
        written: u32,
    },
    WebSocket {
        stream: Box<WebSocketStream<S>>,
        /// Found when it was looked whether the device is there.
        early: Option<Box<ClientFrame>>,
        queued: usize,
        written: u32,
    },
}

/// What was read and not taken yet, and what waits to be written. A connection that waits has none.
#[derive(Debug, Default)]
struct Buffers {
    read: BytesMut,
    write: BytesMut,
}

/// A device's socket.
#[derive(Debug)]
pub(crate) struct Socket<S> {
    framing: Framing<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket<S> {
    pub(crate) fn delimited(stream: S) -> Self {
        Self { framing: Framing::Delimited { stream, buffers: None, written: 0 } }
    }

    /// After the WebSocket handshake, which must name the subprotocol.
    pub(crate) async fn web_socket(stream: S) -> Result<Self, SocketError> {
        let config = WebSocketConfig::default()
            .read_buffer_size(WS_READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(DEVICE_FRAME_BYTES_MAX))
            .max_frame_size(Some(DEVICE_FRAME_BYTES_MAX));
        let stream =
            tokio_tungstenite::accept_hdr_async_with_config(stream, negotiate, Some(config))
                .await?;
        let stream = Box::new(stream);
        Ok(Self { framing: Framing::WebSocket { stream, early: None, queued: 0, written: 0 } })
    }

    /// Appends a frame to what is to be written.
    pub(crate) fn queue(&mut self, frame: &ServerFrame) -> Result<(), SocketError> {
        match &mut self.framing {
            Framing::Delimited { buffers, .. } => {
                Ok(frame::encode(frame, &mut buffers.get_or_insert_default().write)?)
            }
            Framing::WebSocket { stream, queued, .. } => {
                let bytes = frame.encode_to_vec();
                *queued += bytes.len();
                Ok(Pin::new(stream.as_mut()).start_send(Message::Binary(bytes.into()))?)
            }
        }
    }

    /// Bytes queued and not yet written; on WebSocket an upper bound.
    pub(crate) fn queued_bytes(&self) -> usize {
        match &self.framing {
            Framing::Delimited { buffers, .. } => buffers.as_ref().map_or(0, |b| b.write.len()),
            Framing::WebSocket { queued, .. } => *queued,
        }
    }

    /// Count of the bytes that the stream has taken; it wraps. On WebSocket it is behind until all
    /// that is queued has been taken.
    pub(crate) fn written(&self) -> u32 {
        match &self.framing {
            Framing::Delimited { written, .. } | Framing::WebSocket { written, .. } => *written,
        }
    }

    /// Writes what is queued and, with `read`, waits for a frame. Returns at the first that is
    /// through; with nothing queued and no `read` it waits for ever.
    pub(crate) async fn drive(&mut self, read: bool) -> Result<Moved, SocketError> {
        poll_fn(|cx| {
            if self.queued_bytes() > 0 {
                match self.framing.poll_flush(cx) {
                    Poll::Ready(Ok(())) => return Poll::Ready(Ok(Moved::Flushed)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {}
                }
            }
            if read { self.framing.poll_next(cx) } else { Poll::Pending }
        })
        .await
    }

    /// Whether nothing more comes of the device, as far as can be told without waiting. A frame that
    /// has come is kept.
    pub(crate) fn has_ended(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        if let Framing::Delimited { stream, buffers, .. } = &mut self.framing {
            let read = poll_read_into(stream, buffers, &mut cx);
            return matches!(read, Poll::Ready(Ok(0) | Err(_)));
        }
        match self.framing.poll_next(&mut cx) {
            Poll::Ready(Ok(Moved::Frame(frame))) => {
                if let Framing::WebSocket { early, .. } = &mut self.framing {
                    *early = Some(Box::new(frame));
                }
                false
            }
            Poll::Ready(_) => true,
            Poll::Pending => false,
        }
    }

    /// The next frame if it was read from the stream already.
    pub(crate) fn next_buffered(&mut self) -> Result<Option<ClientFrame>, SocketError> {
        match &mut self.framing {
            Framing::Delimited { buffers: Some(buffers), .. } => {
                Ok(Decoder::new().next(&mut buffers.read)?)
            }
            Framing::Delimited { .. } => Ok(None),
            // Its buffer cannot be looked into; the next wait returns at once.
            Framing::WebSocket { .. } => Ok(None),
        }
    }

    /// Writes what is queued, ends the stream, and reads on for a while without looking: closing
    /// with unread bytes would reset the connection and take the last frames away.
    pub(crate) async fn close(&mut self) -> Result<(), SocketError> {
        poll_fn(|cx| self.framing.poll_flush(cx)).await?;
        match &mut self.framing {
            Framing::Delimited { stream, .. } => {
                tokio::io::AsyncWriteExt::shutdown(stream).await?;
                let (mut read, mut thrown) = (BytesMut::new(), 0);
                while thrown < FAREWELL_BYTES_MAX {
                    read.clear();
                    match poll_fn(|cx| poll_read_some(stream, &mut read, cx)).await? {
                        0 => break,
                        count => thrown += count,
                    }
                }
                Ok(())
            }
            Framing::WebSocket { stream, .. } => {
                stream.close(None).await?;
                let mut thrown = 0;
                while thrown < FAREWELL_BYTES_MAX {
                    match poll_fn(|cx| Pin::new(stream.as_mut()).poll_next(cx)).await {
                        Some(Ok(message)) => thrown += message.len().max(1),
                        Some(Err(_)) | None => break,
                    }
                }
                Ok(())
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Framing<S> {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        match self {
            Self::Delimited { stream, buffers, written } => {
                if let Some(Buffers { read, write }) = buffers.as_deref_mut() {
                    while !write.is_empty() {
                        let count = ready!(Pin::new(&mut *stream).poll_write(cx, write))?;
                        if count == 0 {
                            let error = io::Error::from(io::ErrorKind::WriteZero);
                            return Poll::Ready(Err(error.into()));
                        }
                        *written = written.wrapping_add(u32::try_from(count).unwrap_or(u32::MAX));
                        write.advance(count);
                    }
                    *write = BytesMut::new();
                    if read.is_empty() {
                        *buffers = None;
                    }
                }
                Poll::Ready(ready!(Pin::new(stream).poll_flush(cx)).map_err(Into::into))
            }
            Self::WebSocket { stream, queued, written, .. } => {
                ready!(Pin::new(stream.as_mut()).poll_flush(cx))?;
                *written = written.wrapping_add(u32::try_from(*queued).unwrap_or(u32::MAX));
                *queued = 0;
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Moved, SocketError>> {
        match self {
            Self::Delimited { stream, buffers, .. } => loop {
                if let Some(Buffers { read, write }) = buffers.as_deref_mut() {
                    if let Some(frame) = Decoder::new().next(read)? {
                        return Poll::Ready(Ok(Moved::Frame(frame)));
                    }
                    if read.is_empty() && write.is_empty() {
                        *buffers = None;
                    }
                }
                if ready!(poll_read_into(stream, buffers, cx))? == 0 {
                    Decoder::new().finish(buffers.as_ref().map_or(&[], |b| &b.read))?;
                    return Poll::Ready(Ok(Moved::End));
                }
            },
            Self::WebSocket { stream, early, .. } => loop {
                if let Some(frame) = early.take() {
                    return Poll::Ready(Ok(Moved::Frame(*frame)));
                }
                match ready!(Pin::new(stream.as_mut()).poll_next(cx)) {
                    Some(Ok(Message::Binary(bytes))) => {
                        let frame = ClientFrame::decode(bytes).map_err(FrameError::from)?;
                        return Poll::Ready(Ok(Moved::Frame(frame)));
                    }
                    Some(Ok(Message::Text(_))) => return Poll::Ready(Err(SocketError::NotBinary)),
                    Some(Ok(_)) => {}
                    None => return Poll::Ready(Ok(Moved::End)),
                    Some(Err(error)) => return Poll::Ready(Err(error.into())),
                }
            },
        }
    }
}

/// Reads once through a buffer on the stack, so that a connection that waits holds none.
fn poll_read_into<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffers: &mut Option<Box<Buffers>>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    match buffers {
        Some(buffers) => poll_read_some(stream, &mut buffers.read, cx),
        None => {
            let mut read = BytesMut::new();
            let count = ready!(poll_read_some(stream, &mut read, cx))?;
            if count > 0 {
                *buffers = Some(Box::new(Buffers { read, write: BytesMut::new() }));
            }
            Poll::Ready(Ok(count))
        }
    }
}

fn poll_read_some<S: AsyncRead + Unpin>(
    stream: &mut S,
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

/// Only who names the subprotocol speaks it.
#[allow(clippy::result_large_err)]
fn negotiate(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered = request
        .headers()
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim() == SUBPROTOCOL);
    if !offered {
        let message = format!("the WebSocket subprotocol {SUBPROTOCOL} must be offered\n");
        let mut refusal = ErrorResponse::new(Some(message));
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return Err(refusal);
    }
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use switchboard_api::device::v1::{Ping, client_frame};
    use tokio::io::{AsyncWriteExt as _, duplex};
    use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest as _};

    use super::*;

    fn ping() -> ClientFrame {
        ClientFrame { frame: Some(client_frame::Frame::Ping(Ping { nonce: 5 })) }
    }

    async fn is_next<S: AsyncRead + AsyncWrite + Unpin + Send>(socket: &mut Socket<S>) -> bool {
        matches!(socket.drive(true).await, Ok(Moved::Frame(frame)) if frame == ping())
    }

    #[tokio::test]
    async fn a_look_whether_the_device_is_there_takes_no_frame() {
        let (mut device, stream) = duplex(1_024);
        let mut socket = Socket::delimited(stream);
        assert!(!socket.has_ended());
        device.write_all(&ping().encode_length_delimited_to_vec()).await.unwrap();
        assert!(!socket.has_ended());
        assert!(is_next(&mut socket).await);
        drop(device);
        assert!(socket.has_ended());
    }

    #[tokio::test]
    async fn a_look_whether_a_web_sockets_device_is_there_takes_no_frame() {
        let (device, stream) = duplex(1_024);
        let mut request = "ws://localhost/".into_client_request().unwrap();
        let protocol = HeaderValue::from_static(SUBPROTOCOL);
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        let (socket, device) =
            tokio::join!(Socket::web_socket(stream), client_async(request, device));
        let (mut socket, (mut device, _)) = (socket.unwrap(), device.unwrap());
        assert!(!socket.has_ended());
        let message = Message::Binary(ping().encode_to_vec().into());
        futures::SinkExt::send(&mut device, message).await.unwrap();
        assert!(!socket.has_ended());
        assert!(!socket.has_ended());
        assert!(is_next(&mut socket).await);
        drop(device);
        assert!(socket.has_ended());
    }
}
