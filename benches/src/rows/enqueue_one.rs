//! C6: messages into one node, each durable before it is answered.
//!
//! A store as a process of its own on the run's disk, with 16 shards; `switchboard bench enqueue` as
//! another, on the same machine: two connections, on each 16 batches of 64 messages of 256 bytes
//! under way on streams; then one message at a time. Beside it Redis (`XADD`, `appendfsync always`,
//! 16 connections with 16 commands under way each) and NATS with one replica and
//! `sync_interval: always`. The bare commit that one message is compared with is a write of 4 KiB
//! and its `fdatasync`.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::Row;
use crate::{
    cluster::{Cluster, LoadReport},
    entry::{Bar, Better, Entry},
    measure::{cpu_seconds, percentile},
    peers::{
        nats::{self, Sync},
        redis::{Client, Redis},
    },
    run::Run,
    workload::{BODY_BYTES, scatter, user},
};

pub(super) const ROW: Row = Row { id: "C6", title: "enqueue, one node", measure, probes: &[] };

const SECONDS: u64 = 8;
const COMMITS: usize = 2_000;
const REDIS: &str = "Redis XADD, always";
const NATS: &str = "NATS R1, always";
const REDIS_CONNECTIONS: usize = 16;
const REDIS_UNDER_WAY: usize = 16;

fn measure(run: &Run) -> Result<Vec<Entry>> {
    run.say("C6: bare commits");
    let commit_us = bare_commit_us(run)?;
    run.say("C6: enqueue");
    let seconds = run.scaled(SECONDS * 20).div_ceil(20).max(1).to_string();
    let (streamed, single) = ours(run, &seconds)?;
    let length = Duration::from_secs(seconds.parse()?);
    run.say("C6: Redis");
    let redis = redis(run, length)?;
    run.say("C6: NATS");
    let scratch = run.scratch()?;
    let nats = nats::publish(scratch.path(), 1, Sync::Always, BODY_BYTES, length)?;
    let cpu = streamed.server_cpu_us_per_item.unwrap_or(0.0);
    let single_us = single.latency_ms.p50 * 1e3;
    Ok(vec![
        Entry::new(
            "C6.rate",
            "messages of 256 B enqueued by stream, one node, fsynced",
            streamed.items_per_s,
            "1/s",
            Better::More,
        )
        .bar(Bar::AtLeast(300_000.0))
        .peer(REDIS, redis.map(|redis| redis.0)),
        Entry::new("C6.cpu", "server CPU a message", cpu, "us", Better::Less)
            .bar(Bar::AtMost(4.0))
            .peer(REDIS, redis.map(|redis| redis.1)),
        Entry::new("C6.nats", "the same rate", streamed.items_per_s, "1/s", Better::More)
            .peer(NATS, nats.map(|nats| nats.per_second)),
        Entry::new("C6.p99", "a batch at that load", streamed.latency_ms.p99, "ms", Better::Less),
        Entry::new("C6.single", "one message at a time, p50", single_us, "us", Better::Less)
            .bar(Bar::AtMost((1.5 * commit_us).round()))
            .limit(&format!("1.5 x a write of 4 KiB and its fdatasync, {commit_us:.0} us")),
    ])
}

fn ours(run: &Run, seconds: &str) -> Result<(LoadReport, LoadReport)> {
    let cluster = Cluster::start::<1>(run, 16)?;
    let enqueue = ["enqueue", "--warmup", "3", "--seconds", seconds];
    let streamed = cluster.bench(&enqueue)?;
    let single = ["--connections", "1", "--in-flight", "1", "--batch", "1"];
    let single = cluster.bench(&[&enqueue[..], &single].concat())?;
    Ok((streamed, single))
}

/// The median of writing 4 KiB to a file that is there, and its sync.
fn bare_commit_us(run: &Run) -> Result<f64> {
    let scratch = run.scratch()?;
    let file = File::create(scratch.path().join("commits"))?;
    let (block, blocks) = (vec![b'x'; 4096], 1024);
    for at in 0..blocks {
        file.write_all_at(&block, at * 4096)?;
    }
    file.sync_all()?;
    let mut samples = Vec::with_capacity(COMMITS);
    for n in 0..COMMITS as u64 {
        let started = Instant::now();
        file.write_all_at(&block, n % blocks * 4096)?;
        file.sync_data()?;
        samples.push(started.elapsed());
    }
    Ok(percentile(&mut samples, 0.5).as_secs_f64() * 1e6)
}

/// Messages a second and microseconds of CPU a message.
fn redis(run: &Run, length: Duration) -> Result<Option<(f64, f64)>> {
    let scratch = run.scratch()?;
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(server) = Redis::start(scratch.path(), &options)? else { return Ok(None) };
    let mut clients: Vec<Client> =
        (0..REDIS_CONNECTIONS).map(|_| server.client()).collect::<Result<_>>()?;
    let body = [b'x'; BODY_BYTES];
    let (mut messages, started) = (0, Instant::now());
    let before = cpu_seconds(server.pid())?;
    for client in &mut clients {
        push(client, &mut messages, &body)?;
    }
    while started.elapsed() < length {
        // Whoever has its answers sends again, while the others' commands are under way.
        for client in &mut clients {
            for _ in 0..REDIS_UNDER_WAY {
                client.answer()?;
            }
            push(client, &mut messages, &body)?;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    ensure!(messages > 0, "Redis took nothing");
    let cpu_us = (cpu_seconds(server.pid())? - before) * 1e6 / messages as f64;
    Ok(Some((messages as f64 / seconds, cpu_us)))
}

fn push(client: &mut Client, messages: &mut u64, body: &[u8]) -> Result<()> {
    for _ in 0..REDIS_UNDER_WAY {
        let stream = [b"q:".as_slice(), &user(scatter(*messages) % 100_000)].concat();
        client.push(&[b"XADD", &stream, b"*", b"m", body])?;
        *messages += 1;
    }
    client.flush()
}
