//! `apply`, the only thing that changes the state: what a command costs beyond its log.
//!
//! Beside it, what is left when nobody orders, deduplicates, fences or answers: a hash table behind 64
//! locks for claims, one of queues for messages.

use std::collections::VecDeque;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use foldhash::fast::FixedState;
use switchboard_benches::{
    peers::maps::{LockedMaps, Name, SessionTable, SessionValue},
    workload::{BODY_BYTES, Feeder, STAMP_MS, claim, device, message, scatter, user},
};
use switchboard_engine::{Ack, Command, Rules};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USERS: u64 = 100_000;
/// Commands of one iteration: one entry.
const COMMANDS: u64 = 1_000;

fn feeder(dir: &tempfile::TempDir) -> Feeder {
    Feeder::new(dir.path(), Rules::default(), false).expect("a shard")
}

fn claims(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply/claim again");
    group.throughput(Throughput::Elements(COMMANDS));
    let dir = tempfile::tempdir().expect("a directory");
    let mut feeder = feeder(&dir);
    feeder.apply((0..USERS).map(claim)).expect("claims");
    let mut next = 0;
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            feeder.apply((next..next + COMMANDS).map(|n| claim(n % USERS))).expect("claims");
            next += COMMANDS;
        });
    });
    let table = LockedMaps::empty();
    group.bench_function("64 locks around hashbrown", |bencher| {
        bencher.iter(|| {
            for n in next..next + COMMANDS {
                let session = SessionValue {
                    gateway_id: 1,
                    incarnation: 1,
                    connection_id: scatter(n),
                    epoch: n,
                    connected_at_ms: STAMP_MS,
                };
                table.insert(user(n % USERS), session);
            }
            next += COMMANDS;
        });
    });
    group.finish();
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply/enqueue and ack");
    group.throughput(Throughput::Elements(COMMANDS));
    let dir = tempfile::tempdir().expect("a directory");
    let mut feeder = feeder(&dir);
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let mut next = 0;
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            let numbers = next..next + COMMANDS / 2;
            let enqueue = |n| Command::Enqueue(message(n, n % USERS, &body));
            let ack = |n| {
                let device = device(n % USERS);
                Command::Ack(Ack { device, epoch: 0, up_to_seq: u64::MAX, seqs: Vec::new() })
            };
            feeder.apply(numbers.clone().map(enqueue).chain(numbers.map(ack))).expect("apply");
            next += COMMANDS / 2;
        });
    });
    let mut queues: hashbrown::HashMap<Name, VecDeque<Bytes>, FixedState> = Default::default();
    group.bench_function("queues in hashbrown", |bencher| {
        bencher.iter(|| {
            let numbers = next..next + COMMANDS / 2;
            for n in numbers.clone() {
                let copied = Bytes::copy_from_slice(&body);
                queues.entry(user(n % USERS)).or_default().push_back(copied);
            }
            numbers.for_each(|n| drop(queues.remove(&user(n % USERS))));
            next += COMMANDS / 2;
        });
    });
    group.finish();
}

criterion_group!(benches, claims, messages);
criterion_main!(benches);
