//! Opening what a process that was killed has left: 100,000 messages of 256 bytes in 10,000 mailboxes,
//! enqueued in batches of 500, everything in the page cache.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use switchboard_benches::{
    peers::durable::{Fjall, Message, Queue, Redb},
    workload::{BODY_BYTES, device, message, user},
};
use switchboard_engine::{Options, Store};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MESSAGES: u64 = 100_000;
const USERS: u64 = 10_000;
const BATCH: u64 = 500;

type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn ours(group: &mut Group<'_>, dir: &Path) {
    let store = Store::open(dir, Options::default()).expect("a store");
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    for first in (0..MESSAGES).step_by(BATCH as usize) {
        let batch: Vec<_> = (first..first + BATCH).map(|n| message(n, n % USERS, &body)).collect();
        store.enqueue(&batch).expect("enqueue");
    }
    drop(store);
    bench(group, "ours", || {
        let store = Store::open(dir, Options::default()).expect("open again");
        assert_eq!(store.fetch(&device(0), 0, 100).expect("fetch").messages.len(), 10);
        store
    });
}

fn queue<Q: Queue>(group: &mut Group<'_>, dir: &Path) {
    let queue = Q::open(dir).expect("open");
    let body = [b'x'; BODY_BYTES];
    for first in (0..MESSAGES).step_by(BATCH as usize) {
        let message =
            |n| Message { to: user(n % USERS), seq: n + 1, expires_at_ms: 0, body: &body };
        let batch: Vec<_> = (first..first + BATCH).map(message).collect();
        queue.enqueue(&batch).expect("enqueue");
    }
    drop(queue);
    bench(group, Q::NAME, || {
        let queue = Q::open(dir).expect("open again");
        let mut taken = Vec::new();
        queue.fetch(&user(0), &mut taken).expect("fetch");
        assert_eq!(taken.len(), 10);
        queue
    });
}

/// Times the opening and one fetch; the closing is not in it.
fn bench<T>(group: &mut Group<'_>, name: &str, open: impl Fn() -> T) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                let started = Instant::now();
                let opened = open();
                total += started.elapsed();
                drop(opened);
            }
            total
        });
    });
}

fn recovery(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recovery/100,000 messages");
    group.throughput(Throughput::Elements(MESSAGES)).sample_size(10);
    let scratch = || tempfile::tempdir().expect("a directory");
    ours(&mut group, scratch().path());
    queue::<Redb>(&mut group, scratch().path());
    queue::<Fjall>(&mut group, scratch().path());
    group.finish();
}

criterion_group!(benches, recovery);
criterion_main!(benches);
