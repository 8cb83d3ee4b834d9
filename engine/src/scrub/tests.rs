//! Scrubbing finds each damaged byte in its file, and nothing where nothing is wrong.

use std::sync::atomic::AtomicU64;

use bytes::Bytes;

use super::*;
use crate::fs::sim::SimFiles;
use crate::log::{LogOptions, WriterMode};
use crate::{DeviceId, Enqueue, MessageKind, Options, Store};

const DIR: &str = "/data";

fn message(n: u8) -> Enqueue {
    Enqueue {
        to_user: Bytes::from_static(b"bob"),
        to_device: 1,
        message_id: [n; 16],
        from: DeviceId::new("alice", 1),
        ttl_ms: 0,
        kind: MessageKind::Content,
        body: Bytes::from(vec![n; 300]),
    }
}

/// A directory with segments, checkpoints, old files and id files, closed in order.
fn written() -> SimFiles {
    let disk = SimFiles::new(1);
    let log = LogOptions {
        segment_bytes: 64 << 10,
        reserve_bytes: 0,
        writer: WriterMode::Stepped,
        ..LogOptions::default()
    };
    let files = Arc::new(disk.clone());
    let store = Store::open(DIR, Options { log, files, ..Options::default() }).unwrap();
    for n in 0..60 {
        store.enqueue(&[message(n)]).unwrap();
        if n % 20 == 19 {
            store.checkpoint().unwrap();
        }
    }
    for n in 60..70 {
        store.enqueue(&[message(n)]).unwrap();
    }
    drop(store);
    disk
}

fn scrubbed(disk: &SimFiles) -> ScrubReport {
    scrub(disk, Path::new(DIR), 2, &|_| {}).unwrap()
}

#[test]
fn a_whole_directory_has_no_fault_and_stays_as_it_is() {
    let disk = written();
    let (paths, operations) = (disk.paths(), disk.operations());
    let seen = AtomicU64::new(0);
    let progress = |bytes| {
        seen.fetch_add(bytes, Ordering::Relaxed);
    };
    let report = scrub(&disk, Path::new(DIR), 2, &progress).unwrap();
    assert_eq!(report.faults, []);
    assert_eq!(report.bytes, seen.into_inner());
    assert_eq!(report.bytes, bytes(&disk, Path::new(DIR)).unwrap());
    for suffix in [".log", ".ckpt", ".old", ".ids"] {
        let there = paths.iter().filter(|p| p.to_string_lossy().ends_with(suffix)).count();
        assert!(there > 0, "the test has a {suffix}: {paths:?}");
    }
    assert_eq!((disk.paths(), disk.operations()), (paths, operations));
}

#[test]
fn a_flipped_bit_in_any_kind_of_file_is_found_there_and_nowhere_else() {
    let disk = written();
    let paths = disk.paths();
    let kinds = [".ckpt", ".old", ".ids"];
    let all = paths.iter().filter(|p| kinds.iter().any(|k| p.to_string_lossy().ends_with(k)));
    for path in all {
        let size = disk.content(path).unwrap().len() as u64;
        // All but the day of an old file, which no CRC covers and nothing reads.
        for offset in (0..size).step_by(7).filter(|at| !(20..24).contains(at)) {
            disk.flip(path, offset, 16);
            let faults = scrubbed(&disk).faults;
            assert_eq!(faults.len(), 1, "{} at {offset}: {faults:?}", path.display());
            assert!(&faults[0].file == path && faults[0].offset <= offset, "{offset}: {faults:?}");
            disk.flip(path, offset, 16);
        }
    }
    assert_eq!(scrubbed(&disk).faults, []);
}

#[test]
fn every_damaged_frame_of_a_log_is_found_not_only_the_first() {
    let disk = written();
    let segments = inspect::segments(&disk, Path::new(DIR)).unwrap();
    let mut expected = Vec::new();
    for (sequence, name) in segments {
        let mut frames = Vec::new();
        inspect::frames(&disk, Path::new(DIR), Some(sequence), &mut |frame| {
            frames.push(frame.place.offset);
        })
        .unwrap();
        let path = Path::new(DIR).join(name);
        // The last frame of the log is not known to be durable: behind it nothing says so.
        for at in frames.iter().copied().step_by(3).take(frames.len() / 3) {
            disk.flip(&path, at + 70, 1);
            expected.push((path.clone(), at));
        }
    }
    assert!(expected.len() > 5);
    let found: Vec<_> = scrubbed(&disk).faults.into_iter().map(|f| (f.file, f.offset)).collect();
    assert_eq!(found, expected);
}
