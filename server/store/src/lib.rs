//! The store process: sessions, mailboxes, the registry of processes and placement, over gRPC.
//!
//! The services are thin: they validate, hand commands to the groups of `switchboard-raft`, and put the
//! answers into the wire's form. What state there is beyond the replicated one is small and lost
//! harmlessly with the process: leases ([`config::StoreConfig::lease_ms`]) and the ring of session
//! events.
//!
//! ```text
//!  session.rs  mailbox.rs  registry.rs  cluster.rs     one file a gRPC service
//!       └──────────┴──────┬─────┴───────────┘
//!                     service.rs                       what they share
//!     forward.rs ─────────┼──── batch.rs, backup.rs, leases.rs, events.rs
//!          └── peers.rs ──┤                            the other nodes of a cluster
//!                  switchboard_raft::Node
//! ```

#![forbid(unsafe_code)]

mod backup;
mod batch;
mod cluster;
pub mod config;
mod convert;
mod errors;
mod events;
mod forward;
mod founding;
mod gauges;
mod leaders;
mod leases;
pub mod limits;
mod locate;
mod mailbox;
mod mover;
mod operating;
mod page;
mod peers;
mod placement;
mod probe;
mod registry;
mod rpc;
mod rules;
mod server;
mod service;
mod session;
mod sweep;
mod upgrade;

pub use config::{LimitsConfig, StoreConfig};
pub use peers::BookError;
pub use server::{Environment, Failure, Running, StartError, start, start_with};
/// Backups, verified and restored offline.
pub use switchboard_raft::{
    RestoreError, RestoreOptions, Restored, Verified, VerifyError, restore, verify,
};
