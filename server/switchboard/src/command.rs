//! One file per command: its flags and what it does.

pub(crate) mod backup;
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
mod moves;
mod name;
pub(crate) mod node;
mod operator;
mod server;
pub(crate) mod session;
pub(crate) mod shard;
pub(crate) mod store;
pub(crate) mod top;

use crate::limits::RUNTIME_END_MAX;
use crate::output::Failure;

/// The runtime of a command.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))
}

/// Runs a server to its end, or whatever else must end. Work on other threads that hangs, such as a
/// look-up of a name, is left behind after a while.
pub(crate) fn serving(server: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime()?;
    let ended = runtime.block_on(server);
    runtime.shutdown_timeout(RUNTIME_END_MAX);
    ended
}
