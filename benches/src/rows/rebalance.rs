//! C16: a shard moves between nodes under load, and clients notice little of it.
//!
//! Four stores as processes of their own, three of which have the replicas of 16 shards at first. Half
//! of what C7 asks for, 50,000 messages of 256 bytes a second, is offered in an open loop, so that a
//! batch counts from when it was due. First in calm; then while shard 0 is moved from node 1 to node 4
//! and back, by the operator's command, again and again for as long as the load lasts.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Result, anyhow};

use super::Row;
use crate::{
    cluster::{Cluster, LoadReport},
    entry::{Bar, Better, Entry},
    run::Run,
};

pub(super) const ROW: Row = Row { id: "C16", title: "rebalance", measure, probes: &[] };

const SECONDS: u64 = 15;
const SHARDS: u32 = 16;
/// Offered, a second.
const OFFERED: &str = "50000";
/// Until leadership is spread and the segments of the log are there.
const WARM_UP_SECONDS: u64 = 8;
const HOME: u64 = 1;
const AWAY: u64 = 4;
/// What is moved.
const SHARD: u32 = 0;

fn measure(run: &Run) -> Result<Vec<Entry>> {
    let seconds = run.scaled(SECONDS * 20).div_ceil(20).max(1).to_string();
    let warm_up = WARM_UP_SECONDS.to_string();
    let load = ["enqueue", "--rate", OFFERED, "--seconds", &seconds, "--warmup", &warm_up];
    let mut cluster = Cluster::start::<3>(run, SHARDS)?;
    cluster.add_node(run)?;
    run.say("C16: calm");
    let calm = cluster.bench(&load)?;
    run.say("C16: moves");
    let is_over = AtomicBool::new(false);
    let (moving, moves) = std::thread::scope(|scope| {
        let moves = scope.spawn(|| move_until(&cluster, &is_over));
        let report = cluster.bench(&load);
        is_over.store(true, Ordering::Release);
        (report, moves.join())
    });
    let moves = moves.map_err(|_| anyhow!("the moves ended by a panic"))??;
    Ok(entries(&calm, &moving?, moves))
}

/// Moves the shard back and forth until the load is over; how often.
fn move_until(cluster: &Cluster, is_over: &AtomicBool) -> Result<u32> {
    std::thread::sleep(Duration::from_secs(WARM_UP_SECONDS));
    let mut moves = 0;
    while !is_over.load(Ordering::Acquire) {
        let (from, to) = if moves % 2 == 0 { (HOME, AWAY) } else { (AWAY, HOME) };
        cluster.move_shard(SHARD, from, to)?;
        moves += 1;
    }
    Ok(moves)
}

fn entries(calm: &LoadReport, moving: &LoadReport, moves: u32) -> Vec<Entry> {
    let p99 = format!("a batch while a shard is moved, {moves} times in the run, p99");
    let ms = |id: &str, what: &str, ms: f64| Entry::new(id, what, ms, "ms", Better::Less);
    let refused: u64 = moving.refused.values().sum();
    vec![
        ms("C16.p99", &p99, moving.latency_ms.p99).bar(Bar::AtMost(3.0 * calm.latency_ms.p99)),
        ms("C16.calm", "a batch in calm, p99", calm.latency_ms.p99),
        ms("C16.max", "the slowest batch while a shard is moved", moving.latency_ms.max),
        ms("C16.calm_max", "the slowest batch in calm", calm.latency_ms.max),
        Entry::new(
            "C16.refused",
            "messages refused or without an answer meanwhile",
            (refused + moving.calls_unanswered + moving.calls_missed) as f64,
            "",
            Better::Less,
        )
        .bar(Bar::AtMost(0.0)),
    ]
}
