//! Measures what the design promises, beside its peers, in one run.
//!
//! ```text
//!   report ──▶ rows (one file a row) ──▶ entries ──▶ table, JSON, plots
//!                │         │
//!                │         └─ peers: maps and stores by crate, Redis as a process
//!                └─ probes: what must have a process of its own, such as memory
//! ```
//! Nothing in a report is remembered from an earlier run: every figure, ours and the peers', comes
//! from the run that prints it. What fails here ends the run, and nobody takes an error apart, so
//! errors are `anyhow`'s.

#![forbid(unsafe_code)]

pub mod child;
pub mod cluster;
pub mod counting;
pub mod entry;
pub mod measure;
pub mod messenger;
pub mod peers;
pub mod plot;
pub mod processes;
pub mod report;
pub mod rows;
pub mod run;
pub mod soak;
pub mod table;
pub mod workload;
