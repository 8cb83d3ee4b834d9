//! What every Switchboard process needs, and nothing that only one of them needs.
//!
//! - [`config`]: layers (TOML file, `SWITCHBOARD_*` environment, flags), unknown keys named,
//!   every fault reported at once.
//! - [`Shutdown`]: one token and one set of tasks per server; signals; a bounded drain.
//! - [`telemetry`]: `tracing` to standard error. [`metrics`]: the process's Prometheus recorder.
//! - [`http`]: `/healthz`, `/readyz`, `/metrics`, within bounds.
//! - [`tls`]: a certificate authority of one's own; identities that are reloaded.
//! - [`bind`], [`announce`], [`addresses`]: listening, and telling others where.
//!
//! Several servers may share one process (`switchboard dev`): what is global by nature, the
//! subscriber and the metrics recorder, is installed once and shared; everything else is a value.

#![forbid(unsafe_code)]

pub mod addresses;
mod announce;
mod bind;
mod bounded;
pub mod config;
pub mod http;
pub mod limits;
mod log_writer;
pub mod metrics;
mod process_stats;
mod shutdown;
pub mod telemetry;
pub mod tls;

pub use announce::{announce, ready};
pub use bind::{BindError, bind};
pub use http::Readiness;
pub use shutdown::Shutdown;
