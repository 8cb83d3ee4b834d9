//! The gateway process: devices' connections, delivery, acknowledgement.
//!
//! ```text
//! device ══▶ listener ─▶ socket ─▶ connection ◀──events── peers ◀── service (pushes of chats)
//!                          task: │ conversation (pure)      ▲ ▲ ◀── reconcile (tails at the store)
//!                                │  delivery settle sending │ └──── lease (fencing)
//!                                ├─▶ route ══▶ chat ────────┤ answers
//!                                └─▶ batchers ─▶ store ─────┘ claims, pages, acks
//! ```
//! It holds connections, and no state that matters: whatever it forgets is in the mailbox, or is
//! sent again by the device.
//!
//! Invariants: only the newest claim of a device is served; per mailbox, messages are written in the
//! order of seq; an acknowledgement is applied after its receipt is durable; every queue is bounded
//! (`limits.rs`).

#![forbid(unsafe_code)]

mod addresses;
mod admission;
mod batcher;
mod config;
mod connection;
mod conversation;
mod delivery;
mod drain;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod gateway;
mod handshake;
#[cfg(test)]
mod interleavings;
mod lease;
mod limits;
mod listener;
mod meters;
mod notices;
mod outcome;
mod pacing;
mod peers;
mod quic;
mod receipts;
mod reconcile;
mod route;
mod running;
mod sending;
#[cfg(test)]
mod sending_tests;
mod service;
mod settle;
mod silence;
mod socket;
mod tls_stream;
mod verifier;

pub use config::GatewayConfig;
pub use running::{Running, StartError, start, start_with};
pub use verifier::{Refusal, Verifier};
