//! Errors, an enum per operation.

use std::{io, time::Duration};

use switchboard_api::{device::v1::error::Code, frame::FrameError};
use tokio_tungstenite::tungstenite;

use crate::trust::TrustError;

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The transport failed.
    #[error("cannot connect: {0}")]
    Io(#[from] io::Error),
    /// The WebSocket handshake failed.
    #[error("the WebSocket handshake failed: {0}")]
    WebSocket(Box<tungstenite::Error>),
    /// The QUIC handshake failed.
    #[error("the QUIC handshake failed: {0}")]
    Quic(String),
    /// The host cannot stand in a certificate.
    #[error("`{host}` is no host name or address that a certificate could prove")]
    ServerName {
        /// What was given.
        host: String,
    },
    /// The gateway has to prove who it is, and nobody was named who could vouch for it.
    #[error("no authority was named that could vouch for the gateway")]
    NoTrust,
    /// It is not known whom to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The transport failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The WebSocket layer failed.
    #[error("the WebSocket failed: {0}")]
    WebSocket(Box<tungstenite::Error>),
    /// The peer sent what is no frame of the protocol, or a frame of ours is too large.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The peer sent a text message.
    #[error("the peer sent a WebSocket message that is not binary")]
    NotBinary,
}

/// Why a message was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// A gateway refused it for good.
    #[error("refused ({}): {message}", code.as_str_name())]
    Refused {
        /// Why.
        code: Code,
        /// For people to read.
        message: String,
    },
    /// The outbox is full.
    #[error("the outbox is full")]
    OutboxFull,
    /// The device was shut down before the message was accepted.
    #[error("the device was shut down")]
    Closed,
}

impl From<tungstenite::Error> for ConnectError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Io(error) => Self::Io(error),
            other => Self::WebSocket(Box::new(other)),
        }
    }
}

impl From<tungstenite::Error> for ConnectionError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Io(error) => Self::Io(error),
            other => Self::WebSocket(Box::new(other)),
        }
    }
}
