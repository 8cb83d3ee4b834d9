//! C4: memory of queued messages of 256 bytes, their bodies being on disk.
//!
//! A process of its own enqueues messages through the log and the shard, as the embedded store does,
//! takes a checkpoint, and counts its anonymous memory less what it had before, over the messages.
//! Message ids are remembered for ten minutes or up to a million of them, however many messages wait;
//! that is a bound of its own and is measured apart (*dedup*): for *ten* and *one* the table holds
//! nothing. Redis keeps the same messages in a stream a user, without a file.
//! - *idle*: records that the shard keeps of users without a session once all they had is acknowledged.

use std::path::PathBuf;

use anyhow::Result;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use switchboard_engine::{Ack, Command, Rules, limits::DEDUP_SLICES};

use super::Row;
use crate::{
    child::{self, Probe},
    entry::{Bar, Better, Entry},
    measure::{memory_bytes, own_memory_bytes},
    peers::redis::Redis,
    run::{Run, scratch_in},
    workload::{BODY_BYTES, Feeder, device, message, user},
};

pub(super) const ROW: Row = Row {
    id: "C4",
    title: "memory of queued messages",
    measure,
    probes: &[Probe { name: "mailbox-memory", measure: probe }],
};

const MESSAGES: u64 = 1_000_000;
const AT_ONCE: u64 = 2_000;

#[derive(Serialize, Deserialize)]
struct Arguments {
    dir: PathBuf,
    messages: u64,
    /// Messages in each mailbox.
    each: u64,
    /// Whether message ids are remembered, as they are by default.
    remembers: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Figures {
    bytes_per_message: f64,
    /// Once everything is acknowledged.
    records_left: u64,
}

fn measure(run: &Run) -> Result<Vec<Entry>> {
    let base = run.scaled(MESSAGES);
    let of = |messages: u64, each: u64, remembers: bool| -> Result<Figures> {
        run.say(format_args!("C4: {messages} messages, {each} a mailbox"));
        let dir = run.dir().to_owned();
        child::run("mailbox-memory", &Arguments { dir, messages, each, remembers })
    };
    let (ten, one) = (of(base, 10, false)?, of(base, 1, false)?);
    let (less, more) = (of(base / 4, 10, false)?, of(base * 4, 10, false)?);
    let remembering = of(base, 10, true)?;
    run.say("C4: Redis");
    let redis = redis(run, base)?;
    let [low, at_base, high] = [less, ten, more].map(|f| f.bytes_per_message);
    let bytes = |id: &str, what: String, value: f64| Entry::new(id, what, value, "B", Better::Less);
    Ok(vec![
        bytes("C4.ten", format!("memory a message, {base}, 10 a mailbox"), at_base)
            .bar(Bar::AtMost(64.0))
            .peer("Redis streams", redis)
            .limit("an index of 40 to 48 B"),
        bytes("C4.one", format!("memory a message, {base}, 1 a mailbox"), one.bytes_per_message)
            .bar(Bar::AtMost(112.0)),
        Entry::new(
            "C4.idle",
            "records of users who are offline with an empty mailbox",
            ten.records_left.max(one.records_left) as f64,
            "",
            Better::Less,
        )
        .bar(Bar::AtMost(0.0)),
        bytes(
            "C4.dedup",
            format!("memory a message id remembered, {base}"),
            remembering.bytes_per_message - at_base,
        ),
        Entry::new(
            "C4.growth",
            format!("bytes at 1/4, 1, 4 x {base}: {low:.0}, {at_base:.0}, {high:.0}"),
            low.max(at_base).max(high) / at_base,
            "x",
            Better::Less,
        )
        .bar(Bar::AtMost(1.5)),
    ])
}

fn probe(arguments: Value) -> Result<Value> {
    child::measure_with(arguments, |arguments: Arguments| {
        let Arguments { dir, messages, each, remembers } = arguments;
        let scratch = scratch_in(&dir)?;
        let mut rules = Rules::default();
        if !remembers {
            rules.dedup_ids_max = DEDUP_SLICES;
        }
        let mut feeder = Feeder::new(scratch.path(), rules, true)?;
        let body = Bytes::from(vec![b'x'; BODY_BYTES]);
        let mailboxes = messages / each;
        let before = own_memory_bytes()?;
        for first in (0..messages).step_by(AT_ONCE as usize) {
            let numbers = first..(first + AT_ONCE).min(messages);
            // Neighbours in a mailbox come one after another only by chance.
            let enqueue = |n| Command::Enqueue(message(n, n % mailboxes, &body));
            feeder.apply(numbers.map(enqueue))?;
        }
        feeder.checkpoint()?;
        let bytes = own_memory_bytes()?.saturating_sub(before);
        let ack = |n| Ack { device: device(n), epoch: 0, up_to_seq: u64::MAX, seqs: Vec::new() };
        feeder.apply((0..mailboxes).map(|n| Command::Ack(ack(n))))?;
        let bytes_per_message = bytes as f64 / messages as f64;
        Ok(Figures { bytes_per_message, records_left: feeder.shard().stats().users })
    })
}

fn redis(run: &Run, messages: u64) -> Result<Option<f64>> {
    let scratch = run.scratch()?;
    let Some(server) = Redis::start(scratch.path(), &["--appendonly", "no"])? else {
        return Ok(None);
    };
    let before = memory_bytes(server.pid())?;
    let mut client = server.client()?;
    let body = [b'x'; BODY_BYTES];
    for first in (0..messages).step_by(AT_ONCE as usize) {
        let numbers = first..(first + AT_ONCE).min(messages);
        for n in numbers.clone() {
            let stream = [b"q:".as_slice(), &user(n % (messages / 10))].concat();
            client.push(&[b"XADD", &stream, b"*", b"m", &body])?;
        }
        client.flush()?;
        numbers.clone().try_for_each(|_| client.answer().map(drop))?;
    }
    let bytes = memory_bytes(server.pid())?.saturating_sub(before);
    Ok(Some(bytes as f64 / messages as f64))
}
