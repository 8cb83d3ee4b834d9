//! The rows of the report, one file each, named for what it measures.

mod claim_three;
mod connections;
mod dead_gateway;
mod drain;
mod end_to_end;
mod enqueue_one;
mod enqueue_three;
mod failover;
mod locate;
mod log;
mod logins;
mod mailbox_memory;
mod rebalance;
mod recovery;
mod session_map;
mod write_amplification;

use anyhow::Result;

use crate::{child::Probe, entry::Entry, run::Run};

/// A row: what the design promises of one thing.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name in the design, such as `C1`.
    pub id: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// Measures it.
    pub measure: fn(&Run) -> Result<Vec<Entry>>,
    /// What of it runs in processes of their own.
    pub probes: &'static [Probe],
}

/// All rows, in the order of the report.
pub const ROWS: &[Row] = &[
    session_map::ROW,
    log::ROW,
    recovery::ROW,
    mailbox_memory::ROW,
    locate::ROW,
    enqueue_one::ROW,
    enqueue_three::ROW,
    claim_three::ROW,
    drain::ROW,
    write_amplification::ROW,
    end_to_end::ROW,
    connections::ROW,
    logins::ROW,
    failover::ROW,
    dead_gateway::ROW,
    rebalance::ROW,
];
