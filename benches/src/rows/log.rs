//! C2: the append log, 256-byte records, each answer fsynced.
//!
//! - *alone*: one caller that waits for each record, median, beside a loop that writes and syncs 4 KiB
//!   of a file filled before, by the method that the log has chosen. The disk is faster and slower from one
//!   second to the next, so the two take turns, a few commits each.
//! - *rate*: records a second in batches of 512, two batches under way, segments used again.
//! - *CPU*: user and system time of the process a record, in batches of 64.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use switchboard_engine::{
    EntryPayload, LogId,
    fs::{FileHandle, Files, OpenMode, RealFiles},
    log::{Log, LogOptions, Record},
};

use super::Row;
use crate::{
    entry::{Bar, Better, Entry},
    measure::{own_cpu_seconds, percentile},
    run::Run,
    workload::BODY_BYTES,
};

pub(super) const ROW: Row = Row { id: "C2", title: "append log", measure, probes: &[] };

/// Batches that are under way at once: the next is appended while the last is synced.
const UNDER_WAY: u64 = 2;
const BATCHES: u64 = 4_000;
const ALONE: u64 = 4_000;
/// Commits in one turn.
const TURN: u64 = 50;
const BARE_BYTES: u64 = 8 << 20;
const BLOCK: usize = 4096;
const GROUP: u32 = 1;

fn measure(run: &Run) -> Result<Vec<Entry>> {
    let scratch = run.scratch()?;
    let dir = scratch.path();
    let files = Arc::new(RealFiles);
    let mut appender = Appender::new(Log::open(files, dir, LogOptions::default())?);
    let direct = appender.log.stats().writes_direct;
    run.say("C2: one at a time");
    let mut bare = Bare::new(dir, direct)?;
    for _ in 0..run.scaled(ALONE).div_ceil(TURN) {
        bare.commits(TURN)?;
        appender.alone(TURN)?;
    }
    let (alone, bare) = (micros(&mut appender.alone), micros(&mut bare.samples));
    run.say("C2: batches");
    // The first round fills segments with zeros, the second uses them again.
    appender.batches(512, run.scaled(BATCHES))?;
    let at_512 = appender.batches(512, run.scaled(BATCHES))?;
    let at_64 = appender.batches(64, 2 * run.scaled(BATCHES))?;
    Ok(vec![
        Entry::new("C2.alone", "one record of 256 B, fsynced, p50", alone, "µs", Better::Less)
            .bar(Bar::AtMostTimesPeer(1.1))
            .peer("bare write and sync of 4 KiB, p50", Some(bare)),
        Entry::new("C2.rate", "records/s, batches of 512", at_512.per_second, "1/s", Better::More)
            .bar(Bar::AtLeast(2e6))
            .limit("2.2 to 2.4 M/s"),
        Entry::new("C2.cpu", "CPU a record, batches of 64", at_64.cpu_us, "µs", Better::Less)
            .bar(Bar::AtMost(1.0)),
    ])
}

fn micros(samples: &mut [Duration]) -> f64 {
    percentile(samples, 0.5).as_secs_f64() * 1e6
}

/// Writes and syncs block after block of a file that was filled before, by the log's method.
struct Bare {
    file: Arc<dyn FileHandle>,
    memory: Vec<u8>,
    blocks: u64,
    samples: Vec<Duration>,
}

impl Bare {
    fn new(dir: &Path, direct: bool) -> Result<Self> {
        let (files, path) = (RealFiles, dir.join("bare"));
        let file = files.open(&path, OpenMode::CreateNew)?;
        file.write_at(&vec![0; BARE_BYTES as usize], 0)?;
        file.sync_data()?;
        let file = if direct { files.open(&path, OpenMode::WriteDirect)? } else { file };
        Ok(Self { file, memory: vec![1; 2 * BLOCK], blocks: 0, samples: Vec::new() })
    }

    fn commits(&mut self, count: u64) -> Result<()> {
        let aligned = self.memory.as_ptr().align_offset(BLOCK);
        let block = &self.memory[aligned..][..BLOCK];
        for _ in 0..count {
            let started = Instant::now();
            self.file.write_durable(block, self.blocks * BLOCK as u64 % BARE_BYTES)?;
            self.samples.push(started.elapsed());
            self.blocks += 1;
        }
        Ok(())
    }
}

struct Rate {
    per_second: f64,
    cpu_us: f64,
}

struct Appender {
    log: Log,
    index: u64,
    alone: Vec<Duration>,
}

impl Appender {
    fn new(log: Log) -> Self {
        Self { log, index: 1, alone: Vec::new() }
    }

    fn record(&mut self) -> Record {
        let payload =
            EntryPayload::Commands(Bytes::from(vec![self.index.to_le_bytes()[0]; BODY_BYTES]));
        let log_id = LogId::new(1, self.index);
        self.index += 1;
        Record::Entry { group: GROUP, log_id, payload }
    }

    fn alone(&mut self, count: u64) -> Result<()> {
        for _ in 0..count {
            let record = self.record();
            let started = Instant::now();
            self.log.append_wait(vec![record])?;
            self.alone.push(started.elapsed());
        }
        Ok(())
    }

    /// Appends batches, each by one call, and keeps only the last ones.
    fn batches(&mut self, batch: u64, batches: u64) -> Result<Rate> {
        let (sender, receiver) = mpsc::channel();
        let (started, cpu) = (Instant::now(), own_cpu_seconds()?);
        let (mut sent, mut done) = (0, 0);
        while done < batches {
            while sent < batches && sent - done < UNDER_WAY {
                let mut records: Vec<Record> = (0..batch).map(|_| self.record()).collect();
                if sent % 100 == 0 {
                    let upto = LogId::new(1, self.index.saturating_sub(10 * batch).max(1));
                    records.push(Record::Purge { group: GROUP, upto });
                }
                let sender = sender.clone();
                let answer = move |result: Result<(), _>| {
                    let _ = sender.send(result.is_ok());
                };
                self.log.append(records, Box::new(answer));
                sent += 1;
            }
            ensure!(receiver.recv()?, "an append failed");
            done += 1;
        }
        let records = (batch * batches) as f64;
        let per_second = records / started.elapsed().as_secs_f64();
        Ok(Rate { per_second, cpu_us: (own_cpu_seconds()? - cpu) * 1e6 / records })
    }
}
