//! The reference device client: what an application embeds to send and receive messages.
//!
//! - [`Device`] stays connected by itself: it reconnects with backoff, sends again what no gateway
//!   has accepted, acknowledges what it has handed over, and drops repeats.
//! - [`Connection`] is the layer below: frames over TCP, TLS, QUIC or WebSocket, for tools and tests.
//!
//! What it promises together with the servers: a message is an event at most once; messages of one
//! sender come in the order of sending; nothing that was put into the outbox is dropped in silence.
//! The outbox and the ids seen live in memory and end with the process.

#![forbid(unsafe_code)]

mod acks;
mod address;
mod backoff;
mod connection;
mod device;
mod error;
mod event;
pub mod limits;
mod options;
mod outbox;
mod reads;
mod seen;
mod session;
#[cfg(test)]
mod session_tests;
mod stream;
mod task;
mod trust;
mod turns;

pub use address::{AddressError, GatewayAddress};
pub use connection::{Connection, SUBPROTOCOL};
pub use device::{Device, Offline};
pub use error::{ConnectError, ConnectionError, SendError};
pub use event::{Accepted, DeviceStats, Event, Incoming};
pub use options::{DeviceOptions, new_message_id};
pub use outbox::Outgoing;
pub use switchboard_api::device::v1::{error::Code, receipt::State as ReceiptState};
pub use trust::{Trust, TrustError};
