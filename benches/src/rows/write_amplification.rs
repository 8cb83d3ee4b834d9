//! C10: bytes written to disk per byte of payload, messages of 256 bytes, at least 64 KiB a sync.
//!
//! A process of its own takes messages and acks through the log and the shard, as the embedded store
//! does: an entry and a sync for 256 messages and as many acks, a checkpoint every 64 MiB of log. Every
//! message is acknowledged by an ack of its own, 95 % of them soon, 5 % only after the next
//! checkpoint, which has to move them. Counted is what the system says that the process has caused to
//! be written, after a few checkpoints, when segments are used again; segments that were filled with
//! zeros meanwhile are counted apart. Redis (`appendfsync always`) takes the same messages and
//! acknowledges them with `XDEL`, 256 at a time.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use switchboard_engine::{
    Ack, Command, Reply, Rules, limits::STORE_CHECKPOINT_BYTES, log::LogOptions,
};

use super::Row;
use crate::{
    child::{self, Probe},
    entry::{Bar, Better, Entry},
    measure::written_bytes,
    peers::redis::{self, Client, Redis},
    run::{Run, scratch_in},
    workload::{BODY_BYTES, Feeder, GROUP, device, message, user},
};

pub(super) const ROW: Row = Row {
    id: "C10",
    title: "write amplification",
    measure,
    probes: &[Probe { name: "write-amplification", measure: probe }],
};

/// Messages and acks of one entry: more than 64 KiB.
const AT_ONCE: u64 = 256;
const USERS: u64 = 1_000_000;
/// Messages until an ack, and until the ack of one that survives a checkpoint.
const SOON: u64 = 2_000;
const LATE: u64 = 400_000;
const SURVIVE: u64 = 20;
const WARM_UP: u64 = 2_000_000;
const MEASURED: u64 = 4_000_000;
const REDIS_MESSAGES: u64 = 600_000;

#[derive(Serialize, Deserialize)]
struct Arguments {
    dir: PathBuf,
    warm_up: u64,
    measured: u64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Figures {
    written: f64,
    /// Of it frames of the log.
    frames: f64,
    zero_filled: f64,
    checkpoints: u64,
}

fn measure(run: &Run) -> Result<Vec<Entry>> {
    let (warm_up, measured) = (run.scaled(WARM_UP), run.scaled(MEASURED));
    run.say(format_args!("C10: {measured} messages"));
    let arguments = Arguments { dir: run.dir().to_owned(), warm_up, measured };
    let ours: Figures = child::run("write-amplification", &arguments)?;
    run.say("C10: Redis");
    let redis = redis(run, run.scaled(REDIS_MESSAGES))?;
    let figure =
        |id: &str, what: String, value: f64| Entry::new(id, what, value, "B/B", Better::Less);
    let what = format!("bytes written a byte of payload, {} checkpoints", ours.checkpoints);
    Ok(vec![
        figure("C10.written", what, ours.written)
            .bar(Bar::AtMost(1.6))
            .peer("Redis XADD + XDEL, always", redis)
            .limit("1.5: header and id 1.25, acks 0.13, padding 0.06, survivors 0.06"),
        figure("C10.frames", "of it frames of the log".to_owned(), ours.frames),
        figure("C10.zeros", "zeros in new segments, not in it".to_owned(), ours.zero_filled),
    ])
}

fn probe(arguments: Value) -> Result<Value> {
    child::measure_with(arguments, |arguments: Arguments| {
        let scratch = scratch_in(&arguments.dir)?;
        let mut traffic = Traffic::new(scratch.path())?;
        traffic.run(arguments.warm_up)?;
        let before = traffic.written()?;
        traffic.run(arguments.measured)?;
        let after = traffic.written()?;
        let payload = (arguments.measured * BODY_BYTES as u64) as f64;
        let zero_filled = (after.log_files - before.log_files) as f64 / payload;
        Ok(Figures {
            written: (after.total - before.total) as f64 / payload - zero_filled,
            frames: (after.frames - before.frames) as f64 / payload,
            zero_filled,
            checkpoints: after.checkpoints - before.checkpoints,
        })
    })
}

/// Counters at one moment.
struct Written {
    total: u64,
    frames: u64,
    /// Bytes of the log's files; they grow only by segments filled with zeros.
    log_files: u64,
    checkpoints: u64,
}

struct Traffic {
    dir: PathBuf,
    feeder: Feeder,
    body: Bytes,
    /// The seq of message `n`, until it is acknowledged.
    seqs: std::collections::HashMap<u64, u64>,
    next: u64,
    checkpoints: u64,
}

impl Traffic {
    fn new(dir: &Path) -> Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            feeder: Feeder::new(dir, Rules::default(), true)?,
            body: Bytes::from(vec![b'x'; BODY_BYTES]),
            seqs: std::collections::HashMap::new(),
            next: LATE,
            checkpoints: 0,
        })
    }

    fn run(&mut self, messages: u64) -> Result<()> {
        let end = self.next + messages;
        while self.next < end {
            self.entry()?;
            let log = self.feeder.log().map_or(0, |log| log.retained_bytes(GROUP));
            if log >= STORE_CHECKPOINT_BYTES {
                self.feeder.checkpoint()?;
                self.checkpoints += 1;
            }
        }
        Ok(())
    }

    /// Messages, and acks of earlier ones.
    fn entry(&mut self) -> Result<()> {
        let numbers = self.next..self.next + AT_ONCE;
        self.next = numbers.end;
        let enqueue = |n| Command::Enqueue(message(n, n % USERS, &self.body));
        let mut commands: Vec<Command> = numbers.clone().map(enqueue).collect();
        let soon = numbers.clone().map(|n| n - SOON).filter(|n| n % SURVIVE != 0);
        let late = numbers.clone().map(|n| n - LATE).filter(|n| n % SURVIVE == 0);
        for n in soon.chain(late) {
            if let Some(up_to_seq) = self.seqs.remove(&n) {
                let device = device(n % USERS);
                commands.push(Command::Ack(Ack { device, epoch: 0, up_to_seq, seqs: Vec::new() }));
            }
        }
        let (seqs, mut n) = (&mut self.seqs, numbers.start);
        self.feeder.apply_with(commands, |reply| {
            if let Reply::Enqueued(enqueued) = reply {
                seqs.extend(enqueued.stored.iter().map(|stored| (n, stored.seq)));
                n += 1;
            }
        })
    }

    fn written(&self) -> Result<Written> {
        let log = self.feeder.log().context("the feeder has no log")?;
        Ok(Written {
            total: written_bytes(std::process::id())?,
            frames: log.stats().frame_bytes,
            log_files: log_bytes(&self.dir)?,
            checkpoints: self.checkpoints,
        })
    }
}

/// Bytes of all files of the log, those that are being prepared included: all that is no directory.
fn log_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for file in std::fs::read_dir(dir)? {
        let file = file?.metadata()?;
        bytes += if file.is_file() { file.len() } else { 0 };
    }
    ensure!(bytes >= LogOptions::default().segment_bytes, "no segments in {}", dir.display());
    Ok(bytes)
}

fn redis(run: &Run, messages: u64) -> Result<Option<f64>> {
    let scratch = run.scratch()?;
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(server) = Redis::start(scratch.path(), &options)? else { return Ok(None) };
    let mut client = server.client()?;
    let before = written_bytes(server.pid())?;
    for first in (0..messages).step_by(AT_ONCE as usize) {
        redis_batch(&mut client, first)?;
    }
    server.wait_for_rewrite(&mut client)?;
    let written = written_bytes(server.pid())?.saturating_sub(before);
    Ok(Some(written as f64 / (messages * BODY_BYTES as u64) as f64))
}

/// Messages, then the acks of all of them.
fn redis_batch(client: &mut Client, first: u64) -> Result<()> {
    let body = [b'x'; BODY_BYTES];
    let numbers = first..first + AT_ONCE;
    let stream = |n: u64| [b"q:".as_slice(), &user(n % USERS)].concat();
    for n in numbers.clone() {
        client.push(&[b"XADD", &stream(n), b"*", b"m", &body])?;
    }
    client.flush()?;
    let mut ids = Vec::new();
    for n in numbers {
        let redis::Value::Bytes(id) = client.answer()? else { continue };
        ids.push((n, id));
    }
    for (n, id) in &ids {
        client.push(&[b"XDEL", &stream(*n), id])?;
    }
    client.flush()?;
    ids.iter().try_for_each(|_| client.answer().map(drop))
}
