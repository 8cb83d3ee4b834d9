//! C10: bytes written to disk per byte of payload, messages of 256 bytes, at least 64 KiB a sync.
//!
//! A process of its own takes messages and acks through the log and the shard, as the embedded store
//! does: an entry and a sync for 256 messages and as many acks, a checkpoint every 64 MiB of log. Every
//! message is acknowledged by an ack of its own, 95 % of them soon, 5 % only after the next
//! checkpoint, which has to move them. Counted is, after a few checkpoints, when segments are used again:
//! - *written*: what the engine hands to the system, see [`crate::counting`]; zeros of new segments apart.
//! - *device*: what the device reports, which has file system metadata in it and whatever else the
//!   machine writes at the time.
//!
//! Redis (`appendfsync always`) takes the same messages and acknowledges them with `XDEL`, 256 at a
//! time; what it hands over is what the system counts, since it only appends.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use switchboard_engine::{Ack, Command, Reply, Rules, limits::STORE_CHECKPOINT_BYTES};

use super::Row;
use crate::{
    child::{self, Probe},
    counting::CountingFiles,
    entry::{Bar, Better, Entry},
    measure::{device_written_bytes, written_bytes},
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
const PEER: &str = "Redis XADD + XDEL, always";

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
    zeros: f64,
    /// By the device; `None` where it does not say.
    device: Option<f64>,
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
    let mut entries = vec![
        figure("C10.written", what, ours.written)
            .bar(Bar::AtMost(1.6))
            .peer(PEER, redis.map(|redis| redis.written))
            .limit("1.5: header and id 1.25, acks 0.13, padding 0.06, survivors 0.06"),
        figure("C10.frames", "of it frames of the log".to_owned(), ours.frames),
        figure("C10.zeros", "zeros in new segments, not in it".to_owned(), ours.zeros),
    ];
    if let Some(device) = ours.device {
        let what = "bytes the device writes a byte of payload".to_owned();
        entries.push(
            figure("C10.device", what, device).peer(PEER, redis.and_then(|redis| redis.device)),
        );
    }
    Ok(entries)
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
        let share = |of: fn(&Written) -> u64| (of(&after) - of(&before)) as f64 / payload;
        Ok(Figures {
            written: share(|written| written.bytes),
            frames: share(|written| written.frames),
            zeros: share(|written| written.zeros),
            device: after.device.is_some().then(|| share(|written| written.device.unwrap_or(0))),
            checkpoints: after.checkpoints - before.checkpoints,
        })
    })
}

/// Counters at one moment.
struct Written {
    bytes: u64,
    frames: u64,
    zeros: u64,
    device: Option<u64>,
    checkpoints: u64,
}

struct Traffic {
    dir: PathBuf,
    files: CountingFiles,
    feeder: Feeder,
    body: Bytes,
    /// The seq of message `n`, until it is acknowledged.
    seqs: std::collections::HashMap<u64, u64>,
    next: u64,
    checkpoints: u64,
}

impl Traffic {
    fn new(dir: &Path) -> Result<Self> {
        let files = CountingFiles::default();
        let kept = Arc::new(files.clone());
        Ok(Self {
            dir: dir.to_owned(),
            files,
            feeder: Feeder::with_files(kept, dir, Rules::default(), true)?,
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
            bytes: self.files.counted().bytes(),
            frames: log.stats().frame_bytes,
            zeros: self.files.counted().zeros(),
            device: device_written_bytes(&self.dir)?,
            checkpoints: self.checkpoints,
        })
    }
}

#[derive(Clone, Copy)]
struct OfRedis {
    written: f64,
    device: Option<f64>,
}

fn redis(run: &Run, messages: u64) -> Result<Option<OfRedis>> {
    let scratch = run.scratch()?;
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(server) = Redis::start(scratch.path(), &options)? else { return Ok(None) };
    let mut client = server.client()?;
    let count = || -> Result<(u64, Option<u64>)> {
        Ok((written_bytes(server.pid())?, device_written_bytes(scratch.path())?))
    };
    let before = count()?;
    for first in (0..messages).step_by(AT_ONCE as usize) {
        redis_batch(&mut client, first)?;
    }
    server.wait_for_rewrite(&mut client)?;
    let after = count()?;
    let share = |before: u64, after: u64| {
        after.saturating_sub(before) as f64 / (messages * BODY_BYTES as u64) as f64
    };
    let device = before.1.zip(after.1).map(|(before, after)| share(before, after));
    Ok(Some(OfRedis { written: share(before.0, after.0), device }))
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
