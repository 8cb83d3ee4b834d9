//! The Rust SDK of Switchboard: a client of the store for gateways, chats, tools and applications.
//!
//! ```text
//!            ┌─ lanes: EnqueueStream, LocateStream (pipelined, coalesced)
//! Client ────┼─ unary calls (retried by budget)                             ──▶ store nodes,
//!            ├─ watches: shard map, gateways, sessions (reconnect for ever)      leaders first
//!            └─ Registration: Register, KeepAlive, fencing
//! ```
//!
//! It is not a client of the gateway: devices use `switchboard-device`. It keeps no messages: what
//! was not acknowledged by the store is the caller's to send again, by message id.
//!
//! Invariants: every queue is bounded (`limits.rs`) and a caller beyond a bound is told; items that
//! one caller hands over for one shard are stored in their order; a lease is counted from before
//! the request that renewed it was sent.

#![forbid(unsafe_code)]

mod batch;
mod calls;
mod client;
mod core;
mod error;
mod gateways;
mod health;
mod lane;
mod limits;
mod locate;
mod node;
mod operator;
mod options;
mod registration;
mod resend;
mod retry;
mod route;
mod sessions;

pub use client::{Client, Located};
pub use error::Error;
pub use options::ClientOptions;
pub use registration::{Lease, LeaseState, Load, Registration};
pub use retry::Backoff;
pub use sessions::SessionWatch;
