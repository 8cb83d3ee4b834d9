//! The chat process: takes messages and receipts from gateways, makes them durable, and pushes
//! them to where their recipients are.
//!
//! ```text
//! gateway ══Route══▶ route::stream ──enqueue──▶ store
//!         ◀════════   Pairs, Receipts   │
//! gateways ◀══Deliver══ delivery::Outlet ◀─┤ sessions that came back with the answer
//! push services ◀─────────── Notifier ◀────┘ devices that have none
//! ```
//!
//! It holds no state that matters: what it was asked and has not answered is sent again by the
//! gateway, and what it stored and has not pushed is found by the recipient's gateway.
//!
//! Invariants: an answer OK or DUPLICATE follows the store's, so the message is durable; of each
//! pair of sender and recipient one batch is unresolved at a time; every queue is bounded
//! (`limits.rs`), and neither a slow gateway nor a dead one delays an enqueue.

#![forbid(unsafe_code)]

mod config;
mod delivery;
mod limits;
mod meters;
mod notifier;
mod route;
mod running;
mod service;

pub use config::{ChatConfig, PushConfig};
pub use notifier::{PushError, REPLAY_WINDOW_S, SecretsError, VapidKeyError};
pub use running::{Running, StartError, start};
