//! C5: where users are, asked over gRPC streams in batches of 64.
//!
//! A store as a process of its own with 16 shards, whose leases are checked for every batch;
//! `switchboard bench locate` as another, on the same machine: two connections, on each 16 batches
//! under way. The SDK puts batches that wait into one message. Beside it Redis `MGET` of 64 keys of
//! 48 bytes over 50 connections. Growth: a quarter and four times as many sessions.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Row;
use crate::{
    cluster::{Cluster, LoadReport},
    entry::{Bar, Better, Entry},
    measure::cpu_seconds,
    peers::redis::{Client, Redis},
    run::Run,
    workload::{scatter, user},
};

pub(super) const ROW: Row = Row { id: "C5", title: "locate", measure, probes: &[] };

const SECONDS: u64 = 6;
const SESSIONS: u64 = 400_000;
const BATCH: usize = 64;
const REDIS_CONNECTIONS: usize = 50;
const PEER: &str = "Redis MGET 64";

fn measure(run: &Run) -> Result<Vec<Entry>> {
    let seconds = run.scaled(SECONDS * 20).div_ceil(20).max(1);
    let base = run.scaled(SESSIONS);
    let of = |sessions: u64| -> Result<LoadReport> {
        run.say(format_args!("C5: {sessions} sessions"));
        let (sessions, seconds) = (sessions.to_string(), seconds.to_string());
        let load = ["locate", "--users", &sessions, "--seconds", &seconds, "--warmup", "2"];
        Cluster::start::<1>(run, 16)?.bench(&load)
    };
    let (less, ours, more) = (of(base / 4)?, of(base)?, of(base * 4)?);
    run.say("C5: Redis");
    let redis = redis(run, base, Duration::from_secs(seconds))?;
    let costs = [&less, &ours, &more].map(|report| 1e6 / report.items_per_s);
    let growth = costs.iter().copied().fold(0.0, f64::max) / costs[1];
    let rate = |id: &str, what: &str| {
        Entry::new(id, what, ours.items_per_s, "1/s", Better::More)
            .peer(PEER, redis.map(|redis| redis.0))
    };
    let cpu = ours.server_cpu_us_per_item.unwrap_or(0.0);
    Ok(vec![
        rate("C5.rate", "users located by stream, batches of 64").bar(Bar::AtLeast(1_700_000.0)),
        rate("C5.times", "the same, as a multiple").bar(Bar::AtLeastTimesPeer(2.0)),
        Entry::new("C5.cpu", "server CPU a user", cpu, "us", Better::Less)
            .bar(Bar::AtMost(0.6))
            .peer(PEER, redis.map(|redis| redis.1)),
        Entry::new("C5.p99", "a batch at that load, p99", ours.latency_ms.p99, "ms", Better::Less),
        Entry::new("C5.growth", "cost at 1/4 and 4 x the sessions", growth, "x", Better::Less)
            .bar(Bar::AtMost(1.5)),
    ])
}

/// Keys a second and microseconds of CPU a key.
fn redis(run: &Run, keys: u64, length: Duration) -> Result<Option<(f64, f64)>> {
    let scratch = run.scratch()?;
    let Some(server) = Redis::start(scratch.path(), &["--appendonly", "no"])? else {
        return Ok(None);
    };
    let mut clients: Vec<Client> =
        (0..REDIS_CONNECTIONS).map(|_| server.client()).collect::<Result<_>>()?;
    fill(&mut clients[0], keys)?;
    let (mut batches, started) = (0, Instant::now());
    let before = cpu_seconds(server.pid())?;
    for client in &mut clients {
        ask(client, &mut batches, keys)?;
    }
    while started.elapsed() < length {
        // Whoever has its answer asks again, while the others' questions are under way.
        for client in &mut clients {
            client.answer()?;
            ask(client, &mut batches, keys)?;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let asked = (batches * BATCH as u64) as f64;
    ensure!(asked > 0.0, "Redis answered nothing");
    let cpu_us = (cpu_seconds(server.pid())? - before) * 1e6 / asked;
    Ok(Some((asked / seconds, cpu_us)))
}

fn fill(client: &mut Client, keys: u64) -> Result<()> {
    for first in (0..keys).step_by(1_000) {
        let numbers = first..keys.min(first + 1_000);
        for n in numbers.clone() {
            client.push(&[b"SET", &user(n), &[b'v'; 48]])?;
        }
        client.flush()?;
        numbers.clone().try_for_each(|_| client.answer().map(drop))?;
    }
    Ok(())
}

fn ask(client: &mut Client, batches: &mut u64, keys: u64) -> Result<()> {
    let asked: Vec<[u8; 16]> =
        (0..BATCH as u64).map(|n| user(scatter(*batches * BATCH as u64 + n) % keys)).collect();
    let mut command: Vec<&[u8]> = vec![b"MGET"];
    command.extend(asked.iter().map(<[u8; 16]>::as_slice));
    *batches += 1;
    client.push(&command)?;
    client.flush()
}
