//! The session map beside maps that one would use instead: a million sessions of users with 16-byte
//! names, look-ups by one thread that depend on nothing, and the filling.

use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use switchboard_benches::{
    peers::maps::{DashMap, LockedMaps, Name, Papaya, Scc, SessionTable, SessionValue},
    workload::{Feeder, STAMP_MS, claim, scatter, user},
};
use switchboard_engine::{PRIMARY_DEVICE, Rules};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SESSIONS: u64 = 1_000_000;
/// Sessions added by one iteration of the filling.
const FILLED: u64 = 100_000;

type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn look_up(group: &mut Group<'_>, name: &str, connection_of: impl Fn(&Name) -> Option<u64>) {
    let mut step = 0;
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            step += 1;
            let found = connection_of(&user(scatter(step) % SESSIONS));
            assert!(found.is_some(), "a session is missing");
            found
        });
    });
}

fn session(n: u64) -> SessionValue {
    SessionValue {
        gateway_id: 1 + (n % 64) as u32,
        incarnation: 1,
        connection_id: scatter(n ^ 1),
        epoch: n,
        connected_at_ms: STAMP_MS,
    }
}

fn filled<T: SessionTable>(sessions: u64) -> T {
    let table = T::empty();
    (0..sessions).for_each(|n| table.insert(user(n), session(n)));
    table
}

fn ours(sessions: u64) -> (tempfile::TempDir, Feeder) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut feeder = Feeder::new(dir.path(), Rules::default(), false).expect("a shard");
    feeder.apply((0..sessions).map(claim)).expect("claims");
    (dir, feeder)
}

fn look_ups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("map/look-up");
    group.throughput(Throughput::Elements(1));
    let (_dir, feeder) = ours(SESSIONS);
    let shard = feeder.shard();
    look_up(&mut group, "ours", |name| Some(shard.session(name, PRIMARY_DEVICE)?.connection_id));
    drop(feeder);
    let table: LockedMaps = filled(SESSIONS);
    look_up(&mut group, "64 locks around hashbrown", |name| table.connection_of(name));
    let table: Papaya = filled(SESSIONS);
    look_up(&mut group, "papaya", |name| table.connection_of(name));
    let table: DashMap = filled(SESSIONS);
    look_up(&mut group, "dashmap", |name| table.connection_of(name));
    let table: Scc = filled(SESSIONS);
    look_up(&mut group, "scc", |name| table.connection_of(name));
    group.finish();
}

fn fill<T: SessionTable>(group: &mut Group<'_>, name: &str) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                let started = Instant::now();
                let table: T = filled(FILLED);
                total += started.elapsed();
                drop(table);
            }
            total
        });
    });
}

fn fills(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("map/fill");
    group.throughput(Throughput::Elements(FILLED)).sample_size(10);
    group.bench_function("ours, by claims", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                let (_dir, mut feeder) = ours(0);
                let started = Instant::now();
                feeder.apply((0..FILLED).map(claim)).expect("claims");
                total += started.elapsed();
            }
            total
        });
    });
    fill::<LockedMaps>(&mut group, "64 locks around hashbrown");
    fill::<Papaya>(&mut group, "papaya");
    fill::<DashMap>(&mut group, "dashmap");
    fill::<Scc>(&mut group, "scc");
    group.finish();
}

criterion_group!(benches, look_ups, fills);
criterion_main!(benches);
