//! The store over real loopback sockets, through the generated clients: every rpc, every limit, and
//! what a restart keeps.

mod backups;
mod clustering;
mod enqueueing;
mod failing;
mod gateways;
mod harness;
mod limits;
mod members;
mod moving;
mod probing;
mod reading;
mod restarting;
mod serving;
mod sessions;
mod upgrading;
mod waiting;
mod watching;
