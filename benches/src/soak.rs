//! Soak: mixed traffic with a live set of constant size, watched for anything that grows.
//!
//! ```text
//!   8 callers ──▶ Store ──▶ log, checkpoints, old files
//!        │ latencies            │
//!        └────▶ once a second: resident memory, bytes on disk, p99 ──▶ verdict, JSON, plot
//! ```
//! The verdict compares maxima: over the last three minutes each must be at most 1.1 times what it was
//! over minutes 3 to 6, when message ids that are remembered have reached their bound.

mod samples;
mod traffic;

use std::{
    collections::VecDeque,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Serialize;
use switchboard_engine::{Options, Store};

pub use samples::{Comparison, Sample, Verdict};

use crate::{
    measure::{files_bytes, own_resident_bytes, percentile},
    plot::{Line, Panel, panels},
    run::Run,
};
use traffic::{CALLERS, Caller};

/// Seconds of a quick soak, which gives no verdict.
const QUICK_SECONDS: u64 = 20;
/// A percentile is of the calls of so many seconds: in a second in which the disk stands still two of its
/// few calls are one in a hundred.
const P99_SECONDS: usize = 10;

/// What a soak has found.
#[derive(Debug, Serialize)]
pub struct Soak {
    /// How long it ran.
    pub seconds: u64,
    /// Once a second.
    pub samples: Vec<Sample>,
    /// `null`: too short for one.
    pub verdict: Option<Verdict>,
    /// What measures it again.
    pub command: String,
}

/// Runs traffic and judges it; writes JSON and a plot if asked to.
pub fn soak(run: &Run, minutes: u64, json: Option<&Path>, plot: Option<&Path>) -> Result<()> {
    let seconds = if run.is_quick() { QUICK_SECONDS } else { minutes * 60 };
    let scratch = run.scratch()?;
    run.say(format_args!("soak for {seconds} s"));
    let samples = traffic(run, scratch.path(), seconds)?;
    let verdict = Verdict::of(&samples);
    let soak = Soak {
        seconds,
        verdict,
        samples,
        command: format!("cargo run --release -p switchboard-benches -- soak --minutes {minutes}"),
    };
    write(json, || Ok(serde_json::to_string_pretty(&soak)? + "\n"))?;
    write(plot, || Ok(draw(&soak)))?;
    match &soak.verdict {
        None => println!("no verdict: it takes at least {} s", samples::SECONDS_MIN),
        Some(verdict) => {
            println!("{verdict}");
            ensure!(verdict.is_passed(), "something grows");
        }
    }
    Ok(())
}

fn write(path: Option<&Path>, text: impl FnOnce() -> Result<String>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, text()?).with_context(|| format!("cannot write {}", path.display()))
}

fn traffic(run: &Run, dir: &Path, seconds: u64) -> Result<Vec<Sample>> {
    let store = Store::open(dir, Options::default())?;
    let callers: Vec<Caller> = (0..CALLERS).map(Caller::new).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            callers.iter().map(|caller| scope.spawn(|| caller.run(&store, &stop))).collect();
        let samples = watch(run, dir, seconds, &callers, || {
            threads.iter().any(std::thread::ScopedJoinHandle::is_finished)
        });
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a caller panicked"))??;
        }
        samples
    })
}

fn watch(
    run: &Run,
    dir: &Path,
    seconds: u64,
    callers: &[Caller],
    has_ended: impl Fn() -> bool,
) -> Result<Vec<Sample>> {
    let started = Instant::now();
    let mut samples = Vec::new();
    let mut recent = VecDeque::<Vec<Duration>>::new();
    for second in 1..=seconds {
        let until = Duration::from_secs(second);
        std::thread::sleep(until.saturating_sub(started.elapsed()));
        let ended: Vec<Duration> = callers.iter().flat_map(Caller::take).collect();
        let calls = ended.len() as u64;
        recent.push_back(ended);
        if recent.len() > P99_SECONDS {
            recent.pop_front();
        }
        let mut latencies = Vec::from_iter(recent.iter().flatten().copied());
        let p99_us = percentile(&mut latencies, 0.99).as_micros() as u64;
        let (memory_bytes, disk_bytes) = (own_resident_bytes()?, files_bytes(dir)?);
        samples.push(Sample { second, memory_bytes, disk_bytes, p99_us, calls });
        if has_ended() {
            bail!("a caller has ended after {second} s");
        }
        if second % 30 == 0 {
            run.say(format_args!(
                "{calls} durable calls in a second, p99 {p99_us} µs, {} MiB in memory, {} on disk",
                memory_bytes >> 20,
                disk_bytes >> 20
            ));
        }
    }
    Ok(samples)
}

fn draw(soak: &Soak) -> String {
    let panel =
        |title: &str, value: fn(&Sample) -> f64, of: Option<fn(&Verdict) -> Comparison>| Panel {
            title: title.to_owned(),
            points: soak.samples.iter().map(|s| (s.second as f64, value(s))).collect(),
            lines: soak.verdict.as_ref().zip(of).map_or(Vec::new(), |(verdict, of)| {
                let (early, late) = samples::windows(soak.seconds);
                let line = |(from, to): (u64, u64), value| Line {
                    seconds: (from as f64, to as f64),
                    value,
                };
                vec![line(early, of(verdict).early), line(late, of(verdict).bar())]
            }),
        };
    panels(
        "Soak: a live set of constant size (red: maximum of minutes 3 to 6, then 1.1 times it)",
        &[
            panel("resident memory, bytes", |s| s.memory_bytes as f64, Some(|v| v.memory_bytes)),
            panel("files, bytes", |s| s.disk_bytes as f64, Some(|v| v.disk_bytes)),
            panel("p99 of durable calls, µs", |s| s.p99_us as f64, Some(|v| v.p99_us)),
            panel("durable calls a second", |s| s.calls as f64, None),
        ],
    )
}
