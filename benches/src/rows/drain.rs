//! C9: devices that come back and take what waits: a fetch and an ack per recipient, acks fsynced.
//!
//! Through `Store`, in process: 100,000 recipients with two messages of 256 bytes each, by one caller that
//! serves 64 at a time as a gateway does: a `fetch` each, then their acks in one `ack_batch`, which
//! returns when all are durable. The peers do the same, so that all sync once for 64 recipients:
//! Redis (`appendfsync always`) a stream a recipient, over 64 connections, by `XRANGE` and `XDEL`;
//! `redb` and `fjall` by a range a recipient and one durable transaction that removes what was read.

#[cfg(feature = "peers")]
mod embedded;
mod redis;

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use switchboard_engine::{Ack, Options, Status, Store};

use super::Row;
use crate::{
    child::{self, Probe},
    entry::{Bar, Better, Entry},
    measure::own_cpu_seconds,
    run::{Run, scratch_in},
    workload::{BODY_BYTES, device, message},
};

pub(super) const ROW: Row =
    Row { id: "C9", title: "drain", measure, probes: &[Probe { name: "drain", measure: probe }] };

const RECIPIENTS: u64 = 100_000;
const MESSAGES_EACH: u64 = 2;
/// Recipients that are served together.
const TOGETHER: u64 = 64;
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
    let redis = redis::drain(run, base)?;
    let [low, at_base, high] = [less, ours, more].map(|figures| figures.messages_per_second);
    let costs = [low, at_base, high].map(|rate| 1e6 / rate);
    let growth = costs.iter().copied().fold(0.0, f64::max) / costs[1];
    let mut entries = vec![
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
    ];
    for (name, rate) in embedded(run, base)? {
        let what = format!("messages drained, beside {name}");
        let entry = Entry::new(&format!("C9.rate.{name}"), what, at_base, "1/s", Better::More);
        entries.push(entry.peer(name, rate));
    }
    Ok(entries)
}

#[cfg(feature = "peers")]
fn embedded(run: &Run, recipients: u64) -> Result<[(&'static str, Option<f64>); 2]> {
    use crate::peers::durable::{Fjall, Redb};
    run.say("C9: redb and fjall");
    let redb = embedded::drain::<Redb>(run, recipients)?;
    let fjall = embedded::drain::<Fjall>(run, recipients)?;
    Ok([("redb", Some(redb)), ("fjall", Some(fjall))])
}

#[cfg(not(feature = "peers"))]
fn embedded(_: &Run, _: u64) -> Result<[(&'static str, Option<f64>); 2]> {
    Ok([("redb", None), ("fjall", None)])
}

fn probe(arguments: Value) -> Result<Value> {
    child::measure_with(arguments, |Arguments { dir, recipients }: Arguments| {
        let scratch = scratch_in(&dir)?;
        let store = Store::open(scratch.path(), Options::default())?;
        fill(&store, recipients)?;
        let (started, cpu) = (Instant::now(), own_cpu_seconds()?);
        let messages = drain(&store, recipients)?;
        let (seconds, cpu) = (started.elapsed().as_secs_f64(), own_cpu_seconds()? - cpu);
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

fn drain(store: &Store, recipients: u64) -> Result<u64> {
    let mut drained = 0;
    for first in (0..recipients).step_by(TOGETHER as usize) {
        let mut acks = Vec::with_capacity(TOGETHER as usize);
        let mut fetched = 0;
        for n in first..(first + TOGETHER).min(recipients) {
            let device = device(n);
            let page = store.fetch(&device, 0, PAGE)?;
            let up_to_seq = page.messages.last().map_or(0, |message| message.seq);
            acks.push(Ack { device, epoch: 0, up_to_seq, seqs: Vec::new() });
            fetched += page.messages.len() as u64;
        }
        let removed: u64 =
            store.ack_batch(&acks)?.iter().map(|acked| u64::from(acked.removed)).sum();
        ensure!(fetched == removed, "acks removed {removed} of {fetched} messages");
        drained += fetched;
    }
    Ok(drained)
}
