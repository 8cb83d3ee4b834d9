//! C1: the session map, beside maps that one would use instead.
//!
//! Each map is filled in a process of its own with sessions of users with 16-byte names, ours through
//! `Shard::apply` with claims, the peers by `insert`. Measured there:
//! - *bytes*: anonymous memory after filling less before, over the sessions. All told: slots, free
//!   slots, and whatever the growth has left with the allocator.
//! - *look-up*: one thread, each name drawn from the session found before, so that no two look-ups
//!   overlap. Making the name (some 3 ns) is in it.
//! - *throughput*: two threads that look up random names, each as fast as it can.
//! - *batch*: the same, 64 names a call, which ours asks for before it needs the first; a peer has no
//!   such call and is shown one by one.
//! - *insert*: one thread; of ours a claim through `apply`, making and reading its entry included.
//! - *growth*: the look-up at a quarter and at four times the sessions, over that at the base.

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use switchboard_engine::{PRIMARY_DEVICE, Rules, Shard};

use super::Row;
use crate::{
    child::{self, Probe},
    entry::{Bar, Better, Entry},
    measure::{own_memory_bytes, timed},
    peers::maps::{LockedMaps, Name, SessionTable, SessionValue},
    run::{Run, scratch_in},
    workload::{Feeder, STAMP_MS, claim, scatter, user},
};

pub(super) const ROW: Row = Row {
    id: "C1",
    title: "session map",
    measure,
    probes: &[Probe { name: "session-map", measure: probe }],
};

const SESSIONS: u64 = 10_000_000;
const LOOKUPS: u64 = 4_000_000;
const THREADS: u64 = 2;
const BATCH: u64 = 64;
const OURS: &str = "ours";
/// The peer of the bar.
const LOCKS: &str = "64 locks around hashbrown";
const OTHERS: &[&str] = &["papaya", "dashmap", "scc"];

#[derive(Serialize, Deserialize)]
struct Arguments {
    map: String,
    sessions: u64,
    lookups: u64,
    dir: std::path::PathBuf,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Figures {
    bytes: f64,
    lookup_ns: f64,
    lookups_per_second: f64,
    batched_per_second: f64,
    insert_ns: f64,
}

fn measure(run: &Run) -> Result<Vec<Entry>> {
    let base = run.scaled(SESSIONS);
    let of = |map: &str, sessions: u64| -> Result<Figures> {
        run.say(format_args!("C1: {map}, {sessions} sessions"));
        let (map, lookups) = (map.to_owned(), run.scaled(LOOKUPS));
        let dir = run.dir().to_owned();
        child::run("session-map", &Arguments { map, sessions, lookups, dir })
    };
    let ours = of(OURS, base)?;
    let (less, more) = (of(OURS, base / 4)?, of(OURS, base * 4)?);
    let locks = of(LOCKS, base)?;
    let mut entries = against_locks(base, ours, locks);
    entries.extend(growth(base, less, ours, more));
    for peer in OTHERS {
        let figures = if cfg!(feature = "peers") { Some(of(peer, base)?) } else { None };
        entries.extend(beside(peer, ours, figures));
    }
    Ok(entries)
}

fn against_locks(base: u64, ours: Figures, locks: Figures) -> Vec<Entry> {
    let bytes = format!("memory a session, {base} sessions, 16-byte users");
    let lookup = format!("dependent look-up, {base} sessions");
    let rate = format!("look-ups on {THREADS} threads, {base} sessions");
    let batch = format!("look-ups on {THREADS} threads, {BATCH} a call, {base} sessions");
    let insert = format!("a new session, {base} sessions");
    let (less, more) = (Better::Less, Better::More);
    vec![
        Entry::new("C1.bytes", bytes, ours.bytes, "B", less)
            .bar(Bar::AtMost(64.0))
            .peer(LOCKS, Some(locks.bytes))
            .limit("48 B: slots of 32 B, filled to two thirds"),
        Entry::new("C1.lookup", lookup, ours.lookup_ns, "ns", less)
            .bar(Bar::AtMost(330.0))
            .peer(LOCKS, Some(locks.lookup_ns))
            .limit("195 ns: one dependent read of DRAM"),
        Entry::new("C1.throughput", rate, ours.lookups_per_second, "1/s", more)
            .bar(Bar::AtLeastTimesPeer(1.8))
            .peer(LOCKS, Some(locks.lookups_per_second)),
        Entry::new("C1.batch", batch, ours.batched_per_second, "1/s", more)
            .peer(LOCKS, Some(locks.batched_per_second)),
        Entry::new("C1.insert", insert, ours.insert_ns, "ns", less)
            .peer(LOCKS, Some(locks.insert_ns)),
    ]
}

fn growth(base: u64, less: Figures, ours: Figures, more: Figures) -> Vec<Entry> {
    let entry = |id: &str, what: &str, values: [f64; 3]| {
        let [less, at_base, more] = values;
        let worst = less.max(more).max(at_base) / at_base;
        let what = format!("{what} at 1/4, 1, 4 x {base}: {less:.0}, {at_base:.0}, {more:.0}");
        Entry::new(id, what, worst, "x", Better::Less).bar(Bar::AtMost(1.5))
    };
    vec![
        entry("C1.growth.bytes", "bytes", [less.bytes, ours.bytes, more.bytes]),
        entry("C1.growth.lookup", "look-up ns", [less.lookup_ns, ours.lookup_ns, more.lookup_ns]),
    ]
}

/// The same figures of ours beside another peer, for information.
fn beside(peer: &str, ours: Figures, figures: Option<Figures>) -> Vec<Entry> {
    let entry = |what: &str, value: f64, unit: &str, better, of: fn(Figures) -> f64| {
        let id = format!("C1.{what}.{peer}");
        Entry::new(&id, format!("{what} beside {peer}"), value, unit, better)
            .peer(peer, figures.map(of))
    };
    vec![
        entry("bytes", ours.bytes, "B", Better::Less, |f| f.bytes),
        entry("lookup", ours.lookup_ns, "ns", Better::Less, |f| f.lookup_ns),
        entry("throughput", ours.lookups_per_second, "1/s", Better::More, |f| f.lookups_per_second),
    ]
}

fn probe(arguments: Value) -> Result<Value> {
    child::measure_with(arguments, |arguments: Arguments| match arguments.map.as_str() {
        OURS => ours(&arguments),
        LOCKS => peer::<LockedMaps>(&arguments),
        #[cfg(feature = "peers")]
        "papaya" => peer::<crate::peers::maps::Papaya>(&arguments),
        #[cfg(feature = "peers")]
        "dashmap" => peer::<crate::peers::maps::DashMap>(&arguments),
        #[cfg(feature = "peers")]
        "scc" => peer::<crate::peers::maps::Scc>(&arguments),
        map => Err(anyhow!("there is no map {map}")),
    })
}

fn ours(arguments: &Arguments) -> Result<Figures> {
    let scratch = scratch_in(&arguments.dir)?;
    let mut feeder = Feeder::new(scratch.path(), Rules::default(), false)?;
    let before = own_memory_bytes()?;
    let ((), seconds) = timed(|| feeder.apply((0..arguments.sessions).map(claim)))?;
    let bytes = own_memory_bytes()?.saturating_sub(before);
    let shard: &Shard = feeder.shard();
    let one = |name: &Name| Some(shard.session(name, PRIMARY_DEVICE)?.connection_id);
    let mut figures = look_up(arguments, (bytes, seconds), &one)?;
    let Arguments { sessions, lookups, .. } = *arguments;
    let batched = on_threads(|thread| random_batches(thread, sessions, lookups, shard))?;
    figures.batched_per_second = (THREADS * lookups) as f64 / batched;
    Ok(figures)
}

fn peer<T: SessionTable>(arguments: &Arguments) -> Result<Figures> {
    let before = own_memory_bytes()?;
    let table = T::empty();
    let fill = || {
        for n in 0..arguments.sessions {
            let session = SessionValue {
                gateway_id: 1 + (n % 64) as u32,
                incarnation: 1,
                connection_id: scatter(n ^ 1),
                epoch: n,
                connected_at_ms: STAMP_MS,
            };
            table.insert(user(n), session);
        }
        Ok(())
    };
    let ((), seconds) = timed(fill)?;
    let bytes = own_memory_bytes()?.saturating_sub(before);
    look_up(arguments, (bytes, seconds), &|name| table.connection_of(name))
}

fn look_up<L>(arguments: &Arguments, filled: (u64, f64), connection_of: &L) -> Result<Figures>
where
    L: Fn(&Name) -> Option<u64> + Sync,
{
    let Arguments { sessions, lookups, .. } = *arguments;
    let (bytes, seconds) = filled;
    let (_, dependent) = timed(|| dependent(sessions, lookups, connection_of))?;
    let both = on_threads(|thread| random(thread, sessions, lookups, connection_of))?;
    let lookups_per_second = (THREADS * lookups) as f64 / both;
    Ok(Figures {
        bytes: bytes as f64 / sessions as f64,
        lookup_ns: dependent * 1e9 / lookups as f64,
        lookups_per_second,
        batched_per_second: lookups_per_second,
        insert_ns: seconds * 1e9 / sessions as f64,
    })
}

/// Runs `work` on all threads; returns the seconds until the last is through.
fn on_threads(work: impl Fn(u64) -> Result<u64> + Sync) -> Result<f64> {
    let work = &work;
    let all = || {
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().map_err(|_| anyhow!("a thread panicked"))?.map(drop)
            })
        })
    };
    Ok(timed(all)?.1)
}

/// Each name follows from the session found before.
fn dependent<L: Fn(&Name) -> Option<u64>>(
    sessions: u64,
    lookups: u64,
    connection_of: &L,
) -> Result<u64> {
    let mut n = 0;
    for step in 0..lookups {
        let connection = connection_of(&user(n)).context("a session is missing")?;
        n = (connection ^ step) % sessions;
    }
    Ok(n)
}

/// Names that depend on nothing.
fn random<L: Fn(&Name) -> Option<u64>>(
    thread: u64,
    sessions: u64,
    lookups: u64,
    connection_of: &L,
) -> Result<u64> {
    let mut sum = 0_u64;
    for step in 0..lookups {
        let n = scatter(thread << 40 | step) % sessions;
        let connection = connection_of(&user(n)).context("a session is missing")?;
        sum = sum.wrapping_add(connection);
    }
    Ok(sum)
}

/// The same names, many a call.
fn random_batches(thread: u64, sessions: u64, lookups: u64, shard: &Shard) -> Result<u64> {
    let (mut sum, mut found) = (0_u64, Vec::new());
    for first in (0..lookups).step_by(BATCH as usize) {
        let name = |at| user(scatter(thread << 40 | (first + at)) % sessions);
        let names: [Name; BATCH as usize] = std::array::from_fn(|at| name(at as u64));
        let names = names.each_ref().map(|name| name.as_slice());
        found.clear();
        shard.sessions_batch(&names, &mut found);
        for session in &found {
            sum = sum.wrapping_add(session.context("a session is missing")?.connection_id);
        }
    }
    Ok(sum)
}
