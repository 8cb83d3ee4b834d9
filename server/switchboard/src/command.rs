//! One file per command: its flags and what it does.

pub(crate) mod bench;
pub(crate) mod cert;
pub(crate) mod chat;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod dev;
pub(crate) mod device;
pub(crate) mod gateway;
pub(crate) mod gateway_ctl;
pub(crate) mod log;
pub(crate) mod mailbox;
mod name;
pub(crate) mod node;
mod operator;
mod server;
pub(crate) mod session;
pub(crate) mod shard;
pub(crate) mod store;

use crate::output::Failure;

/// The runtime of a command.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))
}
