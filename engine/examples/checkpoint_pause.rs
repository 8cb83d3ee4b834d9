//! How long `apply` waits while a checkpoint is written, and how much memory that takes.
//!
//! ```text
//! cargo run --release -p switchboard-engine --example checkpoint_pause -- [SESSIONS] [DIR]
//! ```
//! Entries of one claim each, for users drawn at random, are applied one after another: first in calm,
//! then while another thread takes a checkpoint of all sessions. Nothing is written to the log, so that
//! what is timed is `apply` alone. Then the checkpoint is loaded as a start would.

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use switchboard_engine::{
    Claim, Command, DeviceId, EntryBuilder, EntryPayload, Init, LogId, Rules, Shard, ShardOptions,
    fs::RealFiles,
    group_of_shard,
    log::{Log, LogOptions},
};

const STAMP_MS: u64 = 1_790_000_000_000;
const AT_ONCE: u64 = 2_000;
const CALM: usize = 500_000;
const LOADS: usize = 3;

struct Feeder {
    shard: Arc<Shard>,
    next: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let sessions: u64 = arguments.next().map_or(Ok(1_000_000), |a| a.parse())?;
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(parent)?;
    let mut feeder = Feeder { shard: Arc::new(open(dir.path())?), next: 1 };
    let init = Init { generation: 0, dedup_key: [7; 16], rules: Rules::default() };
    feeder.apply(&[Command::Init(init)])?;
    for first in (0..sessions).step_by(AT_ONCE as usize) {
        let claims: Vec<_> = (first..(first + AT_ONCE).min(sessions)).map(claim).collect();
        feeder.apply(&claims)?;
    }
    println!("{sessions} sessions, {} MiB", memory_mib()?);

    let mut times = Vec::new();
    while times.len() < CALM {
        times.push(feeder.one(sessions)?);
    }
    report("calm", &mut times);

    let is_done = Arc::new(AtomicBool::new(false));
    let checkpoint = std::thread::spawn({
        let (shard, is_done) = (Arc::clone(&feeder.shard), Arc::clone(&is_done));
        move || {
            let started = now();
            let taken = shard.checkpoint();
            is_done.store(true, Ordering::Release);
            (taken, since(started))
        }
    });
    let (mut times, mut most) = (Vec::new(), 0);
    while !is_done.load(Ordering::Acquire) {
        times.push(feeder.one(sessions)?);
        if times.len() % 1_000 == 0 {
            most = most.max(memory_mib()?);
        }
    }
    report("checkpoint", &mut times);
    let (taken, took) = checkpoint.join().map_err(|_| "the checkpoint's thread panicked")?;
    taken?;
    println!("checkpoint: {:.2} s, at most {most} MiB", took.as_secs_f64());

    drop(feeder);
    for _ in 0..LOADS {
        let started = now();
        let shard = open(dir.path())?;
        let took = since(started).as_secs_f64();
        println!("load: {took:.3} s, {} sessions", shard.stats().sessions);
    }
    Ok(())
}

fn open(dir: &Path) -> Result<Shard, Box<dyn Error>> {
    let files = Arc::new(RealFiles);
    let log = Log::open(files.clone(), dir, LogOptions::default())?;
    Ok(Shard::open(log, files, dir, group_of_shard(0), ShardOptions::default())?)
}

impl Feeder {
    fn apply(&mut self, commands: &[Command]) -> Result<Duration, Box<dyn Error>> {
        let mut entry = EntryBuilder::new(STAMP_MS + self.next);
        commands.iter().try_for_each(|command| entry.push(command))?;
        let payload = EntryPayload::Commands(entry.finish());
        let at = LogId::new(1, self.next);
        self.next += 1;
        let started = now();
        self.shard.apply(at, &payload)?;
        Ok(since(started))
    }

    /// A claim of somebody who has a session.
    fn one(&mut self, sessions: u64) -> Result<Duration, Box<dyn Error>> {
        self.apply(&[claim(scatter(self.next) % sessions)])
    }
}

fn claim(n: u64) -> Command {
    let mut user = [0; 16];
    user[..8].copy_from_slice(&scatter(n).to_be_bytes());
    user[8..].copy_from_slice(&n.to_be_bytes());
    Command::Claim(Claim {
        device: DeviceId::new(user.to_vec(), 1),
        gateway_id: 1 + (n % 64) as u32,
        incarnation: 1,
        connection_id: n,
        push_token: Default::default(),
    })
}

/// A bijection that leaves no pattern (SplitMix64).
fn scatter(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn since(started: Instant) -> Duration {
    started.elapsed()
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let share = |share: f64| {
        let at = (times.len().saturating_sub(1) as f64 * share) as usize;
        times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    println!(
        "{what}: {} entries, p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us, p99.99 {:.0} us, max {:.0} us",
        times.len(),
        share(0.5),
        share(0.99),
        share(0.999),
        share(0.9999),
        share(1.0)
    );
}

fn memory_mib() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no RssAnon")?;
    Ok(kib.parse::<u64>()? / 1024)
}
