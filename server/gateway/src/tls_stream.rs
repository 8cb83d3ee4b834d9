//! TLS over a byte stream, the server's side, on rustls without buffers: a connection that waits
//! holds its keys and nothing else.
//!
//! ```text
//!   stream ──▶ [ incoming: part of a record ] ──▶ rustls ──▶ [ plain ] ──▶ poll_read
//!   stream ◀── [ outgoing: whole records    ] ◀── rustls ◀───────────────── poll_write
//! ```
//! Invariants: the three buffers are freed when all are empty; `outgoing` is written before more is
//! encrypted, so it holds one record of data at most, besides what rustls has to say; records are
//! written in the order in which they were encrypted.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use rustls::{
    ServerConfig,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::{READ_CHUNK_BYTES, TLS_RECORD_BYTES};

/// What is to be encrypted as soon as that is possible.
enum Outbound<'a> {
    Nothing,
    Data(&'a [u8]),
    CloseNotify,
}

/// See the module.
pub(crate) struct TlsStream<S> {
    stream: S,
    /// Boxed, since it is large and every task would hold it where it holds the connection.
    tls: Box<UnbufferedServerConnection>,
    held: Option<Box<Held>>,
    /// The peer has ended its side, in order or not.
    ended: bool,
    closing: bool,
}

/// What is held while something is under way, and not otherwise.
#[derive(Debug, Default)]
struct Held {
    incoming: Vec<u8>,
    plain: BytesMut,
    outgoing: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Does the handshake.
    pub(crate) async fn accept(stream: S, config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let mut this =
            Self { stream, tls: Box::new(tls), held: None, ended: false, closing: false };
        poll_fn(|cx| this.poll_handshake(cx)).await?;
        Ok(this)
    }

    /// The first bytes that the peer says, at least `count` unless its side ends before; they are
    /// read again afterwards.
    pub(crate) async fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        poll_fn(|cx| {
            while self.plain().len() < count && !self.ended {
                ready!(self.poll_receive(cx))?;
            }
            Poll::Ready(io::Result::Ok(()))
        })
        .await?;
        Ok(self.plain())
    }

    fn held(&mut self) -> &mut Held {
        self.held.get_or_insert_default()
    }

    /// Decrypted, and not read yet.
    fn plain(&self) -> &[u8] {
        self.held.as_ref().map_or(&[], |held| &held.plain)
    }

    /// Gives the buffers away if there is nothing in them.
    fn release(&mut self) {
        let empty = |held: &Held| {
            held.incoming.is_empty() && held.plain.is_empty() && held.outgoing.is_empty()
        };
        if self.held.as_deref().is_some_and(empty) {
            self.held = None;
        }
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.tls.is_handshaking() {
                // What is left to write, tickets mostly, goes out with what is written first.
                let _ = self.poll_outgoing(cx)?;
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_outgoing(cx))?;
            ready!(self.poll_receive(cx))?;
            if self.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads once, through a buffer on the stack, and works through what is whole.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut chunk = [MaybeUninit::uninit(); READ_CHUNK_BYTES];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut chunk))?;
        if chunk.filled().is_empty() {
            // Without a close_notify too: frames tell where they end themselves.
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        let worked = if self.held.as_ref().is_none_or(|held| held.incoming.is_empty()) {
            let wire = chunk.filled_mut();
            self.work(wire, &Outbound::Nothing).map(|done| {
                if done < wire.len() {
                    self.held().incoming = wire[done..].to_vec();
                }
            })
        } else {
            self.held().incoming.extend_from_slice(chunk.filled());
            self.work_incoming(&Outbound::Nothing)
        };
        if worked.is_err() {
            // The alert that says why; if it cannot be written now, it never is.
            let _ = self.poll_outgoing(cx);
        }
        Poll::Ready(worked)
    }

    fn work_incoming(&mut self, outbound: &Outbound<'_>) -> io::Result<()> {
        let mut incoming =
            self.held.as_mut().map(|held| std::mem::take(&mut held.incoming)).unwrap_or_default();
        let done = self.work(&mut incoming, outbound)?;
        if done < incoming.len() {
            incoming.drain(..done);
            self.held().incoming = incoming;
        }
        Ok(())
    }

    /// Lets rustls work through `wire` until it wants more, then encrypts; returns how many bytes
    /// of it are done with.
    fn work(&mut self, wire: &mut [u8], outbound: &Outbound<'_>) -> io::Result<usize> {
        let mut done = 0;
        let Self { tls, held, ended, .. } = self;
        loop {
            let UnbufferedStatus { mut discard, state, .. } =
                tls.process_tls_records(&mut wire[done..]);
            let state = match state {
                Ok(state) => state,
                Err(error) => {
                    take_alert(tls, &mut held.get_or_insert_default().outgoing);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            };
            let mut more = true;
            match state {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        discard += record.discard;
                        held.get_or_insert_default().plain.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let outgoing = &mut held.get_or_insert_default().outgoing;
                    append(outgoing, |out| match data.encode(out) {
                        Err(EncodeError::InsufficientSize(short)) => Err(Some(short.required_size)),
                        other => other.map_err(|_| None),
                    })?;
                }
                // It is in `outgoing`, which is written before anything that follows.
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::WriteTraffic(mut traffic) => {
                    more = false;
                    if !matches!(outbound, Outbound::Nothing) {
                        let outgoing = &mut held.get_or_insert_default().outgoing;
                        append(outgoing, |out| encrypt(&mut traffic, outbound, out))?;
                    }
                }
                ConnectionState::PeerClosed => *ended = true,
                // Early data is never offered.
                _ => more = false,
            }
            done += discard;
            if !more {
                return Ok(done);
            }
        }
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(held) = &mut self.held else { return Poll::Ready(Ok(())) };
        while !held.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &held.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            held.outgoing.advance(written);
        }
        held.outgoing = BytesMut::new();
        self.release();
        Poll::Ready(Ok(()))
    }
}

/// After an error: what the peer is to be told.
fn take_alert(tls: &mut UnbufferedServerConnection, outgoing: &mut BytesMut) {
    while let Ok(ConnectionState::EncodeTlsData(mut data)) = tls.process_tls_records(&mut []).state
    {
        let _ = append(outgoing, |out| match data.encode(out) {
            Err(EncodeError::InsufficientSize(short)) => Err(Some(short.required_size)),
            other => other.map_err(|_| None),
        });
    }
}

fn encrypt(
    traffic: &mut WriteTraffic<'_, ServerConnectionData>,
    outbound: &Outbound<'_>,
    out: &mut [u8],
) -> Result<usize, Option<usize>> {
    let encrypted = match outbound {
        Outbound::Nothing => Ok(0),
        Outbound::Data(data) => traffic.encrypt(data, out),
        Outbound::CloseNotify => traffic.queue_close_notify(out),
    };
    encrypted.map_err(|error| match error {
        EncryptError::InsufficientSize(short) => Some(short.required_size),
        EncryptError::EncryptExhausted => None,
    })
}

/// Appends what `write` puts into the space that it is given; it is asked again with as much as it
/// says that it needs.
fn append(
    out: &mut BytesMut,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> io::Result<()> {
    let start = out.len();
    let written = match write(&mut []) {
        Err(Some(needed)) => {
            out.resize(start + needed, 0);
            write(&mut out[start..])
        }
        other => other,
    };
    let written = written.map_err(|_| io::Error::other("TLS cannot encrypt any more"))?;
    out.truncate(start + written);
    Ok(())
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.plain().is_empty() && !this.ended {
            ready!(this.poll_receive(cx))?;
            // Answers of rustls, to a key update for instance.
            let _ = this.poll_outgoing(cx)?;
        }
        if let Some(held) = &mut this.held {
            let count = buf.remaining().min(held.plain.len());
            buf.put_slice(&held.plain[..count]);
            held.plain.advance(count);
            if held.plain.is_empty() {
                held.plain = BytesMut::new();
            }
        }
        this.release();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_outgoing(cx))?;
        let count = data.len().min(TLS_RECORD_BYTES);
        this.work_incoming(&Outbound::Data(&data[..count]))?;
        // What cannot be written now is by the next write or flush.
        let _ = this.poll_outgoing(cx)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_outgoing(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            this.closing = true;
            this.work_incoming(&Outbound::CloseNotify)?;
        }
        ready!(this.poll_outgoing(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
