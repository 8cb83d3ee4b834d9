//! C9: devices that come back and take what waits: a fetch and an ack per recipient, acks fsynced.
//!
//! Through `Store`, in process: 100,000 recipients with two messages of 256 bytes each, drained by 64
//! threads, each recipient by one `fetch` and one `ack` that returns when it is durable. Redis
//! (`appendfsync always`) has a stream a recipient, and 64 connections that do `XRANGE` and `XDEL`;
//! they are driven in step by one thread, which lets Redis sync once for all of them.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use anyhow::{Result, anyhow, bail, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use switchboard_engine::{Options, Status, Store};

use super::Row;
use crate::{
    child::{self, Probe},
    entry::{Bar, Better, Entry},
    measure::own_cpu_seconds,
    peers::redis::{self, Client, Redis},
    run::{Run, scratch_in},
    workload::{BODY_BYTES, device, message, user},
};

pub(super) const ROW: Row =
    Row { id: "C9", title: "drain", measure, probes: &[Probe { name: "drain", measure: probe }] };

const RECIPIENTS: u64 = 100_000;
const MESSAGES_EACH: u64 = 2;
const CALLERS: u64 = 64;
const PAGE: usize = 100;
const AT_ONCE: u64 = 1_000;

#[derive(Serialize, Deserialize)]
struct Arguments {
    dir: PathBuf,
    recipients: u64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Figures {
    messages_per_second: f64,
    cpu_us: f64,
}

fn measure(run: &Run) -> Result<Vec<Entry>> {
    let base = run.scaled(RECIPIENTS);
    let of = |recipients: u64| -> Result<Figures> {
        run.say(format_args!("C9: {recipients} recipients"));
        child::run("drain", &Arguments { dir: run.dir().to_owned(), recipients })
    };
    let (less, ours, more) = (of(base / 4)?, of(base)?, of(base * 4)?);
    run.say("C9: Redis");
    let redis = drain_redis(run, base)?;
    let [low, at_base, high] = [less, ours, more].map(|figures| figures.messages_per_second);
    let costs = [low, at_base, high].map(|rate| 1e6 / rate);
    let growth = costs.iter().copied().fold(0.0, f64::max) / costs[1];
    Ok(vec![
        Entry::new(
            "C9.rate",
            format!("messages drained, {base} recipients, acks fsynced"),
            at_base,
            "1/s",
            Better::More,
        )
        .bar(Bar::AtLeast(200_000.0))
        .peer("Redis XRANGE + XDEL, always", redis),
        Entry::new("C9.cpu", "CPU a message drained", ours.cpu_us, "µs", Better::Less),
        Entry::new(
            "C9.growth",
            format!(
                "µs a message at 1/4, 1, 4 x {base}: {:.1}, {:.1}, {:.1}",
                costs[0], costs[1], costs[2]
            ),
            growth,
            "x",
            Better::Less,
        )
        .bar(Bar::AtMost(1.5)),
    ])
}

fn probe(arguments: Value) -> Result<Value> {
    child::measure_with(arguments, |Arguments { dir, recipients }: Arguments| {
        let scratch = scratch_in(&dir)?;
        let store = Store::open(scratch.path(), Options::default())?;
        fill(&store, recipients)?;
        let (next, drained) = (AtomicU64::new(0), AtomicU64::new(0));
        let (started, cpu) = (Instant::now(), own_cpu_seconds()?);
        std::thread::scope(|scope| {
            let caller = || scope.spawn(|| drain(&store, recipients, &next, &drained));
            let callers: Vec<_> = (0..CALLERS).map(|_| caller()).collect();
            let join = |caller: std::thread::ScopedJoinHandle<'_, Result<()>>| {
                caller.join().map_err(|_| anyhow!("a caller panicked"))?
            };
            callers.into_iter().try_for_each(join)
        })?;
        let (seconds, cpu) = (started.elapsed().as_secs_f64(), own_cpu_seconds()? - cpu);
        let messages = drained.into_inner();
        ensure!(messages == recipients * MESSAGES_EACH, "only {messages} messages were drained");
        let messages = messages as f64;
        Ok(Figures { messages_per_second: messages / seconds, cpu_us: cpu * 1e6 / messages })
    })
}

fn fill(store: &Store, recipients: u64) -> Result<()> {
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let messages = recipients * MESSAGES_EACH;
    for first in (0..messages).step_by(AT_ONCE as usize) {
        let numbers = first..(first + AT_ONCE).min(messages);
        let batch: Vec<_> = numbers.map(|n| message(n, n % recipients, &body)).collect();
        let stored = store.enqueue(&batch)?;
        ensure!(stored.iter().all(|item| item.status == Status::Ok), "a message was refused");
    }
    Ok(())
}

fn drain(store: &Store, recipients: u64, next: &AtomicU64, drained: &AtomicU64) -> Result<()> {
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= recipients {
            return Ok(());
        }
        let device = device(n);
        let page = store.fetch(&device, 0, PAGE)?;
        let last = page.messages.last().map_or(0, |message| message.seq);
        let acked = store.ack(&device, last)?;
        ensure!(acked.removed as usize == page.messages.len(), "an ack removed too few");
        drained.fetch_add(page.messages.len() as u64, Ordering::Relaxed);
    }
}

fn drain_redis(run: &Run, recipients: u64) -> Result<Option<f64>> {
    let scratch = run.scratch()?;
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(server) = Redis::start(scratch.path(), &options)? else { return Ok(None) };
    let mut clients: Vec<Client> = (0..CALLERS).map(|_| server.client()).collect::<Result<_>>()?;
    fill_redis(&mut clients[0], recipients)?;
    let started = Instant::now();
    let mut messages = 0;
    for first in (0..recipients).step_by(CALLERS as usize) {
        let streams: Vec<Vec<u8>> =
            (first..(first + CALLERS).min(recipients)).map(stream).collect();
        messages += drain_streams(&mut clients, &streams)?;
    }
    ensure!(messages == recipients * MESSAGES_EACH, "Redis gave {messages} messages");
    Ok(Some(messages as f64 / started.elapsed().as_secs_f64()))
}

fn stream(n: u64) -> Vec<u8> {
    [b"q:".as_slice(), &user(n)].concat()
}

fn fill_redis(client: &mut Client, recipients: u64) -> Result<()> {
    let body = [b'x'; BODY_BYTES];
    let messages = recipients * MESSAGES_EACH;
    for first in (0..messages).step_by(AT_ONCE as usize) {
        let numbers = first..(first + AT_ONCE).min(messages);
        for n in numbers.clone() {
            client.push(&[b"XADD", &stream(n % recipients), b"*", b"m", &body])?;
        }
        client.flush()?;
        numbers.clone().try_for_each(|_| client.answer().map(drop))?;
    }
    Ok(())
}

/// One stream a connection: all read, then all delete what they read.
fn drain_streams(clients: &mut [Client], streams: &[Vec<u8>]) -> Result<u64> {
    for (client, stream) in clients.iter_mut().zip(streams) {
        client.push(&[b"XRANGE", stream, b"-", b"+", b"COUNT", b"100"])?;
        client.flush()?;
    }
    let mut messages = 0;
    for (client, stream) in clients.iter_mut().zip(streams) {
        let ids = ids_of(client.answer()?)?;
        let mut command: Vec<&[u8]> = vec![b"XDEL", stream];
        command.extend(ids.iter().map(Vec::as_slice));
        client.push(&command)?;
        client.flush()?;
        messages += ids.len() as u64;
    }
    for (client, _) in clients.iter_mut().zip(streams) {
        client.answer()?;
    }
    Ok(messages)
}

fn ids_of(page: redis::Value) -> Result<Vec<Vec<u8>>> {
    let redis::Value::List(entries) = page else { bail!("XRANGE gave no list") };
    let id = |entry| match entry {
        redis::Value::List(parts) => match parts.into_iter().next() {
            Some(redis::Value::Bytes(id)) => Ok(id),
            _ => Err(anyhow!("an entry without an id")),
        },
        _ => Err(anyhow!("XRANGE gave something that is no entry")),
    };
    entries.into_iter().map(id).collect()
}
