//! C3: recovery, everything it reads being in the page cache.
//!
//! - *log*: `Log::open` of 1 GiB of entries of 256 bytes.
//! - *replay*: `Shard::open` on such a log of messages, opened, without any checkpoint: every entry is read again,
//!   its CRC with it, and applied. The embedded store never has more than 64 MiB of it.
//! - *checkpoint*: `Shard::open` of a checkpoint of 10M sessions, in a fresh process.
//! - *start*: from starting a process until it says that a store with 1M sessions and 1M messages is
//!   open. The directory is as a store leaves it that checkpoints every 64 MiB of log and is killed.
//!   Redis has the same sessions as keys and the same messages in streams, in a rewritten AOF, and is
//!   ready when it answers `PING`.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use switchboard_engine::{
    Command, EntryPayload, LogId, Options, Rules, Store,
    fs::RealFiles,
    limits::STORE_CHECKPOINT_BYTES,
    log::{Log, LogOptions, Record},
};

use super::Row;
use crate::{
    child::{self, Probe},
    entry::{Bar, Better, Entry},
    measure::{median, timed},
    peers::redis::Redis,
    run::Run,
    workload::{
        BODY_BYTES, Feeder, GROUP, claim, message, open_shard, open_shard_log, reopen_shard, user,
    },
};

pub(super) const ROW: Row = Row {
    id: "C3",
    title: "recovery",
    measure,
    probes: &[
        Probe { name: "checkpoint-write", measure: write_checkpoint },
        Probe { name: "checkpoint-load", measure: load_checkpoint },
        Probe { name: "store-prepare", measure: prepare_store },
        Probe { name: "store-start", measure: start_store },
    ],
};

const LOG_BYTES: u64 = 1 << 30;
const LOG_BATCH: u64 = 512;
const CHECKPOINT_SESSIONS: u64 = 10_000_000;
const SESSIONS: u64 = 1_000_000;
const MESSAGES_EACH: u64 = 10;
const STARTS: usize = 3;
/// Commands that one entry of preparation is made of.
const PREPARED_AT_ONCE: u64 = 2_000;

#[derive(Serialize, Deserialize)]
struct Place {
    dir: PathBuf,
    sessions: u64,
}

fn measure(run: &Run) -> Result<Vec<Entry>> {
    let seconds = |id: &str, what: String, value: f64, bar: f64| {
        Entry::new(id, what, value, "s", Better::Less).bar(Bar::AtMost(bar))
    };
    let (bytes, many, some) =
        (run.scaled(LOG_BYTES), run.scaled(CHECKPOINT_SESSIONS), run.scaled(SESSIONS));
    run.say(format_args!("C3: a log of {bytes} bytes"));
    let log = open_log(run, bytes)?;
    run.say(format_args!("C3: the replay of a log of {bytes} bytes"));
    let replay = replay(run, bytes)?;
    run.say(format_args!("C3: a checkpoint of {many} sessions"));
    let checkpoint = open_checkpoint(run, many)?;
    run.say(format_args!("C3: a store with {some} sessions and messages"));
    let start = start(run, some)?;
    run.say("C3: Redis with the same");
    let redis = start_redis(run, some)?;
    Ok(vec![
        seconds("C3.log", format!("open a log of {bytes} bytes"), log, 0.4).limit("0.18 s"),
        Entry::new("C3.replay", format!("replay {bytes} bytes"), replay, "s", Better::Less),
        seconds("C3.checkpoint", format!("load {many} sessions"), checkpoint, 0.2).limit("0.08 s"),
        seconds("C3.start", format!("start with {some} sessions, messages"), start, 1.0)
            .peer("Redis, rewritten AOF", redis),
    ])
}

/// The median of a few, since the first may find the processor asleep.
fn several(mut once: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut samples = (0..STARTS).map(|_| once()).collect::<Result<Vec<_>>>()?;
    Ok(median(&mut samples))
}

fn open_log(run: &Run, bytes: u64) -> Result<f64> {
    let scratch = run.scratch()?;
    let open = || Log::open(Arc::new(RealFiles), scratch.path(), LogOptions::default());
    let log = open()?;
    let mut index = 1;
    while log.retained_bytes(GROUP) < bytes {
        let record = |index| Record::Entry {
            group: GROUP,
            log_id: LogId::new(1, index),
            payload: EntryPayload::Commands(Bytes::from(vec![1; BODY_BYTES])),
        };
        log.append_wait((index..index + LOG_BATCH).map(record).collect())?;
        index += LOG_BATCH;
    }
    let state = log.group_state(GROUP);
    drop(log);
    several(|| {
        let (log, seconds) = timed(|| Ok(open()?))?;
        ensure!(log.group_state(GROUP) == state, "the log is not what it was");
        Ok(seconds)
    })
}

/// Only the shard's part: what the log takes to open is C3.log.
fn replay(run: &Run, bytes: u64) -> Result<f64> {
    let scratch = run.scratch()?;
    let mut feeder = Feeder::new(scratch.path(), Rules::default(), true)?;
    let (body, mut next) = (Bytes::from(vec![b'x'; BODY_BYTES]), 0);
    while feeder.log().map_or(bytes, |log| log.retained_bytes(GROUP)) < bytes {
        let numbers = next..next + PREPARED_AT_ONCE;
        feeder.apply(numbers.map(|n| Command::Enqueue(message(n, n / MESSAGES_EACH, &body))))?;
        next += PREPARED_AT_ONCE;
    }
    drop(feeder);
    several(|| {
        let log = open_shard_log(scratch.path())?;
        let (shard, seconds) = timed(|| open_shard(log, scratch.path()))?;
        ensure!(shard.stats().messages == next, "messages are missing");
        Ok(seconds)
    })
}

fn open_checkpoint(run: &Run, sessions: u64) -> Result<f64> {
    let scratch = run.scratch()?;
    let place = Place { dir: scratch.path().to_owned(), sessions };
    child::run::<_, Value>("checkpoint-write", &place)?;
    several(|| child::run("checkpoint-load", &place))
}

fn write_checkpoint(arguments: Value) -> Result<Value> {
    child::measure_with(arguments, |place: Place| {
        let mut feeder = Feeder::new(&place.dir, Rules::default(), false)?;
        feeder.apply((0..place.sessions).map(claim))?;
        feeder.checkpoint()
    })
}

fn load_checkpoint(arguments: Value) -> Result<Value> {
    child::measure_with(arguments, |place: Place| {
        let (shard, seconds) = timed(|| reopen_shard(&place.dir))?;
        ensure!(shard.stats().sessions == place.sessions, "sessions are missing");
        Ok(seconds)
    })
}

fn start(run: &Run, sessions: u64) -> Result<f64> {
    let scratch = run.scratch()?;
    let place = Place { dir: scratch.path().to_owned(), sessions };
    child::run::<_, Value>("store-prepare", &place)?;
    several(|| {
        let started = Instant::now();
        let mut process = child::command("store-start", &place)?.stdout(Stdio::piped()).spawn()?;
        // Kept until the process has ended: it prints more than this line.
        let mut output = BufReader::new(process.stdout.take().context("no output")?);
        output.read_line(&mut String::new())?;
        let seconds = started.elapsed().as_secs_f64();
        let status = process.wait()?;
        ensure!(status.success(), "the store did not start: {status}");
        Ok(seconds)
    })
}

/// Sessions and messages in turn, with a checkpoint whenever the embedded store would take one.
fn prepare_store(arguments: Value) -> Result<Value> {
    child::measure_with(arguments, |place: Place| {
        let mut feeder = Feeder::new(&place.dir, Rules::default(), true)?;
        let body = Bytes::from(vec![b'x'; BODY_BYTES]);
        for first in (0..place.sessions).step_by(PREPARED_AT_ONCE as usize) {
            let numbers = first..(first + PREPARED_AT_ONCE).min(place.sessions);
            let messages =
                numbers.clone().map(|n| Command::Enqueue(message(n, n / MESSAGES_EACH, &body)));
            feeder.apply(numbers.map(claim).chain(messages))?;
            let log = feeder.log().map_or(0, |log| log.retained_bytes(GROUP));
            if log >= STORE_CHECKPOINT_BYTES {
                feeder.checkpoint()?;
            }
        }
        Ok(())
    })
}

fn start_store(arguments: Value) -> Result<Value> {
    child::measure_with(arguments, |place: Place| {
        let store = Store::open(&place.dir, Options::default())?;
        println!("ready");
        let stats = store.stats();
        let all = stats.sessions == place.sessions && stats.messages == place.sessions;
        ensure!(all, "not everything is there: {stats:?}");
        Ok(json!({}))
    })
}

const REDIS_OPTIONS: &[&str] =
    &["--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"];

fn start_redis(run: &Run, sessions: u64) -> Result<Option<f64>> {
    let scratch = run.scratch()?;
    let Some(server) = Redis::start(scratch.path(), REDIS_OPTIONS)? else { return Ok(None) };
    fill_redis(&server, sessions)?;
    drop(server);
    several(|| {
        let (server, seconds) = timed(|| Redis::start(scratch.path(), REDIS_OPTIONS))?;
        ensure!(server.is_some(), "Redis is gone");
        Ok(seconds)
    })
    .map(Some)
}

fn fill_redis(server: &Redis, sessions: u64) -> Result<()> {
    let mut client = server.client()?;
    let (session, body) = ([b'v'; 48], [b'x'; BODY_BYTES]);
    for first in (0..sessions).step_by(PREPARED_AT_ONCE as usize) {
        let numbers = first..(first + PREPARED_AT_ONCE).min(sessions);
        for n in numbers.clone() {
            client.push(&[b"SET", &user(n), &session, b"EX", b"86400"])?;
            let stream = [b"q:".as_slice(), &user(n / MESSAGES_EACH)].concat();
            client.push(&[b"XADD", &stream, b"*", b"m", &body])?;
        }
        client.flush()?;
        for _ in numbers {
            client.answer()?;
            client.answer()?;
        }
    }
    client.call(&[b"BGREWRITEAOF"])?;
    server.wait_for_rewrite(&mut client)
}
