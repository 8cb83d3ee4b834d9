//! Replication: openraft groups on the engine's log.

#![forbid(unsafe_code)]

mod codec;
mod error;
pub mod limits;
mod log_time;
mod proposer;
pub mod settings;
mod shard_of;
mod types;

pub use error::{BarrierError, Overloaded, ProposeError, WaitError};
pub use shard_of::shard_of;
