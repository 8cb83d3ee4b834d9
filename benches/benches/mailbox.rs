//! A mailbox from end to end, durable at both ends: 64 messages of 256 bytes are enqueued in one sync,
//! fetched with their bodies, and acknowledged in another. One caller.

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use switchboard_benches::{
    peers::durable::{Fjall, Message, Queue, Redb},
    workload::{BODY_BYTES, device, message, user},
};
use switchboard_engine::{Options, Store};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MESSAGES: u64 = 64;
const USERS: u64 = 10_000;

type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn ours(group: &mut Group<'_>) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), Options::default()).expect("a store");
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let mut round = 0;
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            let first = round * MESSAGES;
            let to = round % USERS;
            let batch: Vec<_> = (first..first + MESSAGES).map(|n| message(n, to, &body)).collect();
            store.enqueue(&batch).expect("enqueue");
            let page = store.fetch(&device(to), 0, MESSAGES as usize).expect("fetch");
            assert_eq!(page.messages.len() as u64, MESSAGES);
            store.ack(&device(to), page.tail).expect("ack");
            round += 1;
        });
    });
}

fn queue<Q: Queue>(group: &mut Group<'_>) {
    let dir = tempfile::tempdir().expect("a directory");
    let queue = Q::open(dir.path()).expect("open");
    let body = [b'x'; BODY_BYTES];
    let mut round = 0;
    group.bench_function(Q::NAME, |bencher| {
        bencher.iter(|| {
            let to = user(round % USERS);
            let first = round * MESSAGES + 1;
            let message = |seq| Message { to, seq, expires_at_ms: 0, body: &body };
            let batch: Vec<_> = (first..first + MESSAGES).map(message).collect();
            queue.enqueue(&batch).expect("enqueue");
            let mut taken = Vec::new();
            queue.fetch(&to, &mut taken).expect("fetch");
            assert_eq!(taken.len() as u64, MESSAGES);
            queue.ack(&taken).expect("ack");
            round += 1;
        });
    });
}

fn mailboxes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mailbox/enqueue, fetch, ack 64, fsynced");
    group.throughput(Throughput::Elements(MESSAGES)).sample_size(20);
    ours(&mut group);
    queue::<Redb>(&mut group);
    queue::<Fjall>(&mut group);
    group.finish();
}

criterion_group!(benches, mailboxes);
criterion_main!(benches);
