//! C4: memory of queued messages of 256 bytes, their bodies being on disk.
//!
//! A process of its own enqueues messages through the log and the shard, as the embedded store does,
//! takes a checkpoint, and counts its anonymous memory less what it had before, over the messages.
//! - *Before* is a shard that has worked and holds nothing: messages were enqueued, a checkpoint was taken,
//!   all were acknowledged. What that leaves (buffers of the log, recent payloads, memory that the
//!   allocator keeps) is the same however many messages wait. It is an entry of its own: *fixed*.
//! - Both times memory is read after two seconds of light traffic. The allocator gives memory back a second
//!   after it was freed, when it is next asked for some: a reading right after a checkpoint would count
//!   what only the checkpoint needed.
//!
//! Message ids are remembered for ten minutes or up to a million of them, however many messages wait;
//! that is a bound of its own and is measured apart (*dedup*): for *ten* and *one* the table holds
//! nothing. Redis keeps the same messages in a stream a user, without a file.
//! - *idle*: records that the shard keeps of users without a session once all they had is acknowledged.

use std::{ops::Range, path::PathBuf, time::Duration};

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
/// Messages that come and go before memory is read for the first time.
const WARM_UP: u64 = 20_000;
/// Light traffic: so many times so many entries, and so long a pause after each.
const BURSTS: u64 = 8;
const ENTRIES: u64 = 200;
/// For a user who never gets a message.
const NOBODY: u64 = u64::MAX / 2;
const PAUSE: Duration = Duration::from_millis(250);

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
    /// Of a shard that has worked and holds nothing.
    fixed_bytes: u64,
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
        bytes(
            "C4.fixed",
            "memory of a process with a shard that has worked and holds nothing".to_owned(),
            ten.fixed_bytes as f64,
        ),
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
        // Numbers of their own: an id that is remembered would be a duplicate later.
        enqueue(&mut feeder, messages..messages + WARM_UP, each)?;
        feeder.checkpoint()?;
        acknowledge(&mut feeder, 0..WARM_UP / each)?;
        settle(&mut feeder)?;
        let fixed_bytes = own_memory_bytes()?;
        enqueue(&mut feeder, 0..messages, each)?;
        feeder.checkpoint()?;
        settle(&mut feeder)?;
        let bytes = own_memory_bytes()?.saturating_sub(fixed_bytes);
        acknowledge(&mut feeder, 0..messages / each)?;
        let bytes_per_message = bytes as f64 / messages as f64;
        Ok(Figures { bytes_per_message, fixed_bytes, records_left: feeder.shard().stats().users })
    })
}

/// Messages, spread over as many mailboxes as they fill. Neighbours in a mailbox come one after another only
/// by chance.
fn enqueue(feeder: &mut Feeder, numbers: Range<u64>, each: u64) -> Result<()> {
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let mailboxes = (numbers.end - numbers.start) / each;
    for first in numbers.clone().step_by(AT_ONCE as usize) {
        let some = first..(first + AT_ONCE).min(numbers.end);
        feeder.apply(some.map(|n| Command::Enqueue(message(n, n % mailboxes, &body))))?;
    }
    Ok(())
}

/// All that waits for these users.
fn acknowledge(feeder: &mut Feeder, users: Range<u64>) -> Result<()> {
    let ack = |n| Ack { device: device(n), epoch: 0, up_to_seq: u64::MAX, seqs: Vec::new() };
    feeder.apply(users.map(|n| Command::Ack(ack(n))))
}

/// Light traffic that changes nothing, for as long as the allocator takes to give memory back.
fn settle(feeder: &mut Feeder) -> Result<()> {
    for _ in 0..BURSTS {
        for _ in 0..ENTRIES {
            acknowledge(feeder, NOBODY..NOBODY + 1)?;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
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
