//! The append log beside other ways to make 256-byte records durable: each iteration is one batch,
//! synced. The floor is a loop that writes the same bytes into a file that was filled before.

use std::path::Path;

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use switchboard_benches::{
    peers::durable::{Fjall, Message, Queue, Redb},
    workload::{BODY_BYTES, user},
};
use switchboard_engine::{
    EntryPayload, LogId,
    fs::{Files, OpenMode, RealFiles},
    log::{Log, LogOptions, Record},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCHES: [u64; 3] = [1, 64, 512];
const FLOOR_BYTES: usize = 64 << 20;
const BLOCK: usize = 4096;

type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn ours(group: &mut Group<'_>, dir: &Path, batch: u64) {
    let log = Log::open(std::sync::Arc::new(RealFiles), dir, LogOptions::default()).expect("log");
    let mut index = 1;
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            let record = |index| Record::Entry {
                group: 1,
                log_id: LogId::new(1, index),
                payload: EntryPayload::Commands(Bytes::from(vec![1; BODY_BYTES])),
            };
            let mut records: Vec<Record> = (index..index + batch).map(record).collect();
            index += batch;
            if index % 64 == 0 || batch >= 64 {
                // Keeps the log short, so that segments are used again.
                let upto = LogId::new(1, index.saturating_sub(10 * batch).max(1));
                records.push(Record::Purge { group: 1, upto });
            }
            log.append_wait(records).expect("append");
        });
    });
}

fn floor(group: &mut Group<'_>, dir: &Path, batch: u64) {
    let file = RealFiles.open(&dir.join("floor"), OpenMode::CreateNew).expect("a file");
    file.write_at(&vec![0; FLOOR_BYTES], 0).expect("filled");
    file.sync_data().expect("synced");
    let bytes = vec![1; (batch as usize * BODY_BYTES).next_multiple_of(BLOCK)];
    let mut at = 0;
    group.bench_function("bare write and sync", |bencher| {
        bencher.iter(|| {
            at = if at + bytes.len() > FLOOR_BYTES { 0 } else { at };
            file.write_at(&bytes, at as u64).expect("write");
            file.sync_data().expect("sync");
            at += bytes.len();
        });
    });
}

fn queue<Q: Queue>(group: &mut Group<'_>, dir: &Path, batch: u64) {
    let queue = Q::open(dir).expect("open");
    let body = [1; BODY_BYTES];
    let mut seq = 1;
    group.bench_function(Q::NAME, |bencher| {
        bencher.iter(|| {
            let message =
                |seq| Message { to: user(seq % 1_000), seq, expires_at_ms: 0, body: &body };
            let messages: Vec<_> = (seq..seq + batch).map(message).collect();
            queue.enqueue(&messages).expect("enqueue");
            seq += batch;
        });
    });
}

fn appends(criterion: &mut Criterion) {
    for batch in BATCHES {
        let mut group = criterion.benchmark_group(format!("log/append {batch}, fsynced"));
        group.throughput(Throughput::Elements(batch)).sample_size(20);
        let scratch = || tempfile::tempdir().expect("a directory");
        ours(&mut group, scratch().path(), batch);
        floor(&mut group, scratch().path(), batch);
        queue::<Redb>(&mut group, scratch().path(), batch);
        queue::<Fjall>(&mut group, scratch().path(), batch);
        group.finish();
    }
}

criterion_group!(benches, appends);
criterion_main!(benches);
