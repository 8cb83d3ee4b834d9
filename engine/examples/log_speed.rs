//! Measures the append log on the disk of a directory (the first argument, else the temporary one):
//! single appends against a bare write and sync, batches, and opening what was written.
//!
//! `cargo run --release -p switchboard-engine --example log_speed -- DIR`

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use switchboard_engine::fs::{Files, OpenMode, RealFiles};
use switchboard_engine::log::{Log, LogOptions, Record, WriteMethod};
use switchboard_engine::{EntryPayload, LogId};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const BODY_BYTES: usize = 256;
/// Batches that are under way at once: the next is appended while the last is synced.
const UNDER_WAY: u64 = 2;
const BATCHES: u64 = 2_000;

fn main() -> Outcome<()> {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("log-speed-{}", std::process::id()));
    let outcome = measure(&dir);
    std::fs::remove_dir_all(&dir)?;
    outcome
}

fn measure(dir: &Path) -> Outcome<()> {
    let files = Arc::new(RealFiles);
    let started = now();
    let method = match std::env::args().nth(2).as_deref() {
        Some("direct") => WriteMethod::Direct,
        Some("buffered") => WriteMethod::Buffered,
        _ => WriteMethod::Auto,
    };
    let log = Log::open(files.clone(), dir, LogOptions { method, ..LogOptions::default() })?;
    println!("open, new directory      {:?}", since(started));
    let mut index = 0;
    let direct = log.stats().writes_direct;
    println!("writes directly          {direct}");
    for _ in 0..3 {
        println!("bare 4 KiB, same method  p50 {:?}", bare(&files, dir, direct)?);
        println!("append 256 B, alone      p50 {:?}", alone(&log, &mut index)?);
    }
    for batch in [64, 512] {
        // The first round fills segments with zeros, the second uses them again.
        batches(&log, batch, true, &mut index)?;
        let (records, seconds, cpu) = batches(&log, batch, true, &mut index)?;
        println!(
            "append 256 B, batch {batch:<4} {:.0} records/s, {:.2} µs CPU a record",
            records / seconds,
            cpu * 1e6 / records
        );
        let (records, seconds, cpu) = waited(&log, batch, &mut index)?;
        println!(
            "append 256 B, waited {batch:<4} {:.0} records/s, {:.2} µs CPU a record",
            records / seconds,
            cpu * 1e6 / records
        );
    }
    while log.stats().bytes_total < 1 << 30 {
        batches(&log, 512, false, &mut index)?;
    }
    let bytes = log.stats().bytes_total;
    let state = log.group_state(1);
    let records = index - state.first.unwrap_or(index);
    drop(log);
    for entry in std::fs::read_dir(dir)? {
        std::fs::read(entry?.path())?;
    }
    let (started, cpu) = (now(), cpu_seconds()?);
    let log = Log::open(files, dir, LogOptions::default())?;
    println!(
        "open {bytes} bytes with {records} entries, cached: {:?}, {:.2} s CPU",
        since(started),
        cpu_seconds()? - cpu
    );
    if log.group_state(1) != state {
        return Err("the log is not what it was".into());
    }
    Ok(())
}

fn body(index: u64) -> Record {
    let payload = EntryPayload::Commands(Bytes::from(vec![index.to_le_bytes()[0]; BODY_BYTES]));
    Record::Entry { group: 1, log_id: LogId::new(1, index), payload }
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

/// Writes and syncs 4 KiB after 4 KiB of a file filled before, as the log does.
fn bare(files: &RealFiles, dir: &Path, direct: bool) -> Outcome<Duration> {
    let path = dir.join("bare");
    let file = files.open(&path, OpenMode::CreateNew)?;
    file.write_at(&vec![0; 8 << 20], 0)?;
    file.sync_data()?;
    let file = if direct { files.open(&path, OpenMode::WriteDirect)? } else { file };
    let memory = vec![1; 8192];
    let block = &memory[memory.as_ptr().align_offset(4096)..][..4096];
    let mut samples = Vec::new();
    for nth in 0..2_000 {
        let started = now();
        file.write_durable(block, nth * 4096)?;
        samples.push(since(started));
    }
    files.remove(&path)?;
    Ok(median(samples))
}

fn alone(log: &Log, index: &mut u64) -> Outcome<Duration> {
    let mut samples = Vec::new();
    for _ in 0..2_000 {
        let record = body(*index);
        let started = now();
        log.append_wait(vec![record])?;
        samples.push(since(started));
        *index += 1;
    }
    Ok(median(samples))
}

/// Appends batches, each by one call; returns records, seconds and seconds of CPU time. If `purge`
/// is set, only the last batches are kept, so that segments are used again.
fn batches(log: &Log, batch: u64, purge: bool, index: &mut u64) -> Outcome<(f64, f64, f64)> {
    let (sender, receiver) = mpsc::channel();
    let (started, cpu) = (now(), cpu_seconds()?);
    let (mut sent, mut done) = (0, 0);
    while done < BATCHES {
        while sent < BATCHES && sent - done < UNDER_WAY {
            let mut records: Vec<Record> = (*index..*index + batch).map(body).collect();
            *index += batch;
            if purge && sent % 100 == 0 {
                let upto = LogId::new(1, index.saturating_sub(10 * batch));
                records.push(Record::Purge { group: 1, upto });
            }
            let sender = sender.clone();
            log.append(
                records,
                Box::new(move |result| {
                    let _ = sender.send(result.is_ok());
                }),
            );
            sent += 1;
        }
        if !receiver.recv()? {
            return Err("an append failed".into());
        }
        done += 1;
    }
    let seconds = since(started).as_secs_f64();
    Ok(((BATCHES * batch) as f64, seconds, cpu_seconds()? - cpu))
}

fn waited(log: &Log, batch: u64, index: &mut u64) -> Outcome<(f64, f64, f64)> {
    let (started, cpu) = (now(), cpu_seconds()?);
    for nth in 0..BATCHES {
        let mut records: Vec<Record> = (*index..*index + batch).map(body).collect();
        *index += batch;
        if nth % 100 == 0 {
            let upto = LogId::new(1, index.saturating_sub(10 * batch));
            records.push(Record::Purge { group: 1, upto });
        }
        log.append_wait(records)?;
    }
    let seconds = since(started).as_secs_f64();
    Ok(((BATCHES * batch) as f64, seconds, cpu_seconds()? - cpu))
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn since(started: Instant) -> Duration {
    started.elapsed()
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn now() -> Instant {
    Instant::now()
}

/// User and system time of this process: fields 14 and 15 of its `stat`, in hundredths.
fn cpu_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}
