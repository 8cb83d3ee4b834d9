//! C8: sessions claimed on three nodes, each durable on a majority before it is answered.
//!
//! Three stores as processes of their own, on one disk and with the load generator on the same cores:
//! two connections, on each 32 batches of 64 claims under way, as gateways gather them. Beside it etcd
//! on three nodes: puts of 48 bytes attached to a lease, 256 under way over 8 connections.

use std::time::Duration;

use anyhow::Result;

use super::Row;
use crate::{
    cluster::Cluster,
    entry::{Bar, Better, Entry},
    peers::etcd,
    run::Run,
};

pub(super) const ROW: Row = Row { id: "C8", title: "claim, three nodes", measure, probes: &[] };

const SECONDS: u64 = 8;
const SHARDS: u32 = 16;
const PEER: &str = "etcd, three nodes";

fn measure(run: &Run) -> Result<Vec<Entry>> {
    let seconds = run.scaled(SECONDS * 20).div_ceil(20).max(1);
    run.say("C8: claim");
    let claim = ["claim", "--seconds", &seconds.to_string(), "--warmup", "8", "--in-flight", "32"];
    let ours = Cluster::start::<3>(run, SHARDS)?.bench(&claim)?;
    run.say("C8: etcd");
    let scratch = run.scratch()?;
    let etcd = etcd::put(scratch.path(), Duration::from_secs(seconds))?;
    let rate = |id: &str, what: &str| {
        Entry::new(id, what, ours.items_per_s, "1/s", Better::More)
            .peer(PEER, etcd.map(|etcd| etcd.per_second))
    };
    let cpu = ours.server_cpu_us_per_item.unwrap_or(0.0);
    Ok(vec![
        rate("C8.rate", "sessions claimed, three nodes, fsynced on a majority")
            .bar(Bar::AtLeast(80_000.0)),
        rate("C8.times", "the same, as a multiple").bar(Bar::AtLeastTimesPeer(10.0)),
        Entry::new("C8.cpu", "CPU of all nodes a claim", cpu, "us", Better::Less)
            .bar(Bar::AtMost(20.0))
            .peer(PEER, etcd.map(|etcd| etcd.cpu_us)),
        Entry::new("C8.p99", "a batch at that load, p99", ours.latency_ms.p99, "ms", Better::Less),
    ])
}
