//! C7: messages into three nodes, each durable on a majority before it is answered.
//!
//! Three stores as processes of their own, on one disk and with the load generator on the same cores:
//! two connections to each, on each 16 batches of 64 messages of 256 bytes under way, spread by the
//! SDK over the leaders of 16 shards. Latency is taken twice: at that load, and in an open loop of
//! 100,000 messages a second, from when each batch was due. Beside it NATS with three replicas on
//! three servers, 256 messages under way, each sent when one was answered, with and without a sync
//! before it acknowledges. Growth: the same with 4 and with 64 shards.

use std::time::Duration;

use anyhow::Result;

use super::Row;
use crate::{
    cluster::{Cluster, LoadReport},
    entry::{Bar, Better, Entry},
    peers::nats::{self, Sync},
    run::Run,
    workload::BODY_BYTES,
};

pub(super) const ROW: Row = Row { id: "C7", title: "enqueue, three nodes", measure, probes: &[] };

const SECONDS: u64 = 8;
const SHARDS: u32 = 16;
const FEWER: u32 = 4;
const MORE: u32 = 64;
/// Offered in the open loop, a second.
const OFFERED: &str = "100000";
/// So long until leadership is spread and the segments of the log are there.
const WARM_UP: &str = "8";
const ALWAYS: &str = "NATS R3, always";
const DEFAULT: &str = "NATS R3, synced every 2 min";

fn measure(run: &Run) -> Result<Vec<Entry>> {
    let seconds = run.scaled(SECONDS * 20).div_ceil(20).max(1);
    let length = Duration::from_secs(seconds);
    let load =
        ["enqueue", "--seconds", &seconds.to_string(), "--warmup", WARM_UP].map(str::to_owned);
    let load: Vec<&str> = load.iter().map(String::as_str).collect();
    let at = |shards: u32| -> Result<LoadReport> {
        run.say(format_args!("C7: {shards} shards"));
        Cluster::start::<3>(run, shards)?.bench(&load)
    };
    let (fewer, more) = (at(FEWER)?, at(MORE)?);
    run.say(format_args!("C7: {SHARDS} shards"));
    let cluster = Cluster::start::<3>(run, SHARDS)?;
    let closed = cluster.bench(&load)?;
    let open = cluster.bench(&[&load[..], &["--rate", OFFERED]].concat())?;
    drop(cluster);
    let nats = |sync| -> Result<Option<nats::Published>> {
        run.say(format_args!("C7: NATS, {sync:?}"));
        let scratch = run.scratch()?;
        nats::publish(scratch.path(), 3, sync, BODY_BYTES, length)
    };
    let (always, default) = (nats(Sync::Always)?, nats(Sync::Default)?);
    let costs = [&fewer, &closed, &more].map(|report| 1e6 / report.items_per_s);
    let growth = costs.iter().copied().fold(0.0, f64::max) / costs[1];
    Ok(entries(&closed, &open, always, default, growth))
}

fn entries(
    closed: &LoadReport,
    open: &LoadReport,
    always: Option<nats::Published>,
    default: Option<nats::Published>,
    growth: f64,
) -> Vec<Entry> {
    let rate = |id: &str, what: &str| Entry::new(id, what, closed.items_per_s, "1/s", Better::More);
    let cpu = closed.server_cpu_us_per_item.unwrap_or(0.0);
    let ms = |id: &str, what: &str, ms: f64| Entry::new(id, what, ms, "ms", Better::Less);
    vec![
        rate("C7.rate", "messages of 256 B enqueued, three nodes, fsynced on a majority")
            .bar(Bar::AtLeast(100_000.0))
            .peer(ALWAYS, always.map(|nats| nats.per_second)),
        rate("C7.times", "the same, as a multiple")
            .bar(Bar::AtLeastTimesPeer(5.0))
            .peer(ALWAYS, always.map(|nats| nats.per_second)),
        rate("C7.default", "the same rate").peer(DEFAULT, default.map(|nats| nats.per_second)),
        Entry::new("C7.cpu", "CPU of all nodes a message", cpu, "us", Better::Less)
            .bar(Bar::AtMost(15.0))
            .peer(ALWAYS, always.map(|nats| nats.cpu_us)),
        ms("C7.p99", "a batch at that load, p99", closed.latency_ms.p99).bar(Bar::AtMost(25.0)),
        ms("C7.p50", "a batch at that load, p50", closed.latency_ms.p50),
        ms("C7.open", "a batch at 100,000 messages a second, p99", open.latency_ms.p99)
            .bar(Bar::AtMost(25.0)),
        Entry::new(
            "C7.growth",
            "cost with 4 or 64 shards by that with 16",
            growth,
            "x",
            Better::Less,
        )
        .bar(Bar::AtMost(1.5)),
    ]
}
