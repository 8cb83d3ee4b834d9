//! What it costs to get rid of 20,000 messages that have expired among as many that have not.
//!
//! Ours lets log time pass: an entry with nothing but a stamp, a round of expiry later. The peers take
//! from an index by expiry, which they had to keep for it, and remove in one durable transaction; ours
//! needs no sync, because every replica forgets at the same entry.

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use switchboard_benches::{
    peers::durable::{Fjall, Message, Queue, Redb},
    workload::{BODY_BYTES, Feeder, STAMP_MS, message, user},
};
use switchboard_engine::{Command, Rules, limits::EXPIRY_ROUND_MS};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MESSAGES: u64 = 40_000;
const USERS: u64 = 4_000;
const TTL_MS: u64 = 10_000;
const LONG_MS: u64 = 1_000_000_000;

type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// Every other message is a short one.
fn ttl_ms(n: u64) -> u64 {
    if n.is_multiple_of(2) { TTL_MS } else { LONG_MS }
}

fn ours() -> Duration {
    let dir = tempfile::tempdir().expect("a directory");
    let mut feeder = Feeder::new(dir.path(), Rules::default(), false).expect("a shard");
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let enqueue = |n| {
        let mut message = message(n, n % USERS, &body);
        message.ttl_ms = ttl_ms(n);
        Command::Enqueue(message)
    };
    feeder.apply((0..MESSAGES).map(enqueue)).expect("messages");
    feeder.stamp_ms += TTL_MS + EXPIRY_ROUND_MS;
    let started = Instant::now();
    feeder.apply([Command::Tick]).expect("a tick");
    let took = started.elapsed();
    assert_eq!(feeder.shard().stats().messages, MESSAGES / 2);
    took
}

fn queue<Q: Queue>() -> Duration {
    let dir = tempfile::tempdir().expect("a directory");
    let queue = Q::open(dir.path()).expect("open");
    let body = [b'x'; BODY_BYTES];
    let message = |n| Message {
        to: user(n % USERS),
        seq: n + 1,
        expires_at_ms: STAMP_MS + ttl_ms(n),
        body: &body,
    };
    let messages: Vec<_> = (0..MESSAGES).map(message).collect();
    queue.enqueue(&messages).expect("enqueue");
    let started = Instant::now();
    let expired = queue.expire(STAMP_MS + TTL_MS).expect("expire");
    let took = started.elapsed();
    assert_eq!(expired as u64, MESSAGES / 2);
    took
}

fn bench(group: &mut Group<'_>, name: &str, once: impl Fn() -> Duration) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| once()).sum());
    });
}

fn expiry(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("expiry/20,000 of 40,000 messages");
    group.throughput(Throughput::Elements(MESSAGES / 2)).sample_size(10);
    bench(&mut group, "ours", ours);
    bench(&mut group, Redb::NAME, queue::<Redb>);
    bench(&mut group, Fjall::NAME, queue::<Fjall>);
    group.finish();
}

criterion_group!(benches, expiry);
criterion_main!(benches);
