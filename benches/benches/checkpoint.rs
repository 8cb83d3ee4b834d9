//! A checkpoint of 100,000 sessions and 100,000 messages of 256 bytes, all of which still wait, so that
//! all bodies move. Beside it the peers write the same messages in one durable transaction, and the
//! floor writes and syncs their bytes; neither keeps sessions.

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use switchboard_benches::{
    peers::durable::{Fjall, Message, Queue, Redb},
    workload::{BODY_BYTES, Feeder, claim, message, user},
};
use switchboard_engine::{
    Command, Rules,
    fs::{Files, OpenMode, RealFiles},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USERS: u64 = 100_000;
const MESSAGES: u64 = 100_000;
const PIECE: usize = 1 << 20;

type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn ours() -> Duration {
    let dir = tempfile::tempdir().expect("a directory");
    let mut feeder = Feeder::new(dir.path(), Rules::default(), true).expect("a shard");
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    feeder.apply((0..USERS).map(claim)).expect("claims");
    let enqueue = |n| Command::Enqueue(message(n, n % USERS, &body));
    feeder.apply((0..MESSAGES).map(enqueue)).expect("messages");
    let started = Instant::now();
    feeder.checkpoint().expect("checkpoint");
    started.elapsed()
}

fn queue<Q: Queue>() -> Duration {
    let dir = tempfile::tempdir().expect("a directory");
    let queue = Q::open(dir.path()).expect("open");
    let body = [b'x'; BODY_BYTES];
    let message = |n| Message { to: user(n % USERS), seq: n + 1, expires_at_ms: 0, body: &body };
    let messages: Vec<_> = (0..MESSAGES).map(message).collect();
    let started = Instant::now();
    queue.enqueue(&messages).expect("enqueue");
    started.elapsed()
}

fn floor() -> Duration {
    let dir = tempfile::tempdir().expect("a directory");
    let file = RealFiles.open(&dir.path().join("floor"), OpenMode::CreateNew).expect("a file");
    let piece = vec![1; PIECE];
    let started = Instant::now();
    for at in (0..MESSAGES as usize * BODY_BYTES).step_by(PIECE) {
        file.write_at(&piece, at as u64).expect("write");
    }
    file.sync_data().expect("sync");
    started.elapsed()
}

fn bench(group: &mut Group<'_>, name: &str, once: impl Fn() -> Duration) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| once()).sum());
    });
}

fn checkpoints(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checkpoint/100,000 sessions and messages");
    group.throughput(Throughput::Elements(MESSAGES)).sample_size(10);
    bench(&mut group, "ours", ours);
    bench(&mut group, "bare write and sync of the bodies", floor);
    bench(&mut group, Redb::NAME, queue::<Redb>);
    bench(&mut group, Fjall::NAME, queue::<Fjall>);
    group.finish();
}

criterion_group!(benches, checkpoints);
criterion_main!(benches);
