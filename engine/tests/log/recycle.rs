//! Segments are used again, but not before nobody needs them, and what was in them never returns.

use std::sync::Arc;

use switchboard_engine::fs::RealFiles;
use switchboard_engine::fs::sim::SimFiles;
use switchboard_engine::log::{Log, LogOptions, OldestSegment};

use crate::support::{
    SEGMENT_BYTES, entry, id, indexes, open, open_with, options, payload, purge, segment_path,
};

/// Appends entries of group 1 until the log has begun so many segments more.
fn fill(log: &Log, next: &mut u64, segments: u64) {
    let until = log.stats().newest + segments;
    while log.stats().newest < until {
        log.append_wait(vec![entry(1, *next, 3_000)]).unwrap();
        *next += 1;
    }
}

#[test]
fn a_log_that_is_purged_stays_small() {
    let disk = SimFiles::new(1);
    let log = open(&disk).unwrap();
    let mut next = 0;
    for _ in 0..30 {
        fill(&log, &mut next, 1);
        log.append_wait(vec![purge(1, next - 2)]).unwrap();
        assert!(disk.used() <= 5 * SEGMENT_BYTES + 100, "{:?}", disk.paths());
    }
    assert_eq!(log.stats().oldest.unwrap().groups, [1]);
    drop(log);
    let log = open(&disk).unwrap();
    assert_eq!(indexes(&log, 1), [next - 1]);
}

#[test]
fn stale_frames_of_a_recycled_segment_are_not_read() {
    let disk = SimFiles::new(1);
    let mut log = open(&disk).unwrap();
    let mut next = 0;
    for round in 0..12 {
        // From the fourth on, the active segment was another before and is full of whole frames:
        // right behind the few new ones the old ones go on, at the same boundaries.
        fill(&log, &mut next, 1);
        log.append_wait(vec![purge(1, next - 1), entry(1, next, 10)]).unwrap();
        next += 1;
        drop(log);
        disk.power_cut();
        log = open(&disk).unwrap();
        assert_eq!(indexes(&log, 1), [next - 1], "round {round}");
    }
    assert!(disk.used() <= 5 * SEGMENT_BYTES + 100, "segments were used again");
}

#[test]
fn a_pinned_entry_and_read_bytes_outlive_purge_and_recycling() {
    let disk = SimFiles::new(1);
    let log = open(&disk).unwrap();
    let mut next = 0;
    fill(&log, &mut next, 2);
    let pinned = log.pin_entry(1, 3).unwrap();
    let read = log.read(1, 2..3, 0).unwrap();
    log.append_wait(vec![purge(1, next - 1)]).unwrap();
    for _ in 0..8 {
        fill(&log, &mut next, 1);
        log.append_wait(vec![purge(1, next - 1)]).unwrap();
    }
    // The simulated disk would have panicked if a mapped file had been written.
    assert!(disk.paths().contains(&segment_path(1)), "{:?}", disk.paths());
    assert_eq!(pinned.payload().unwrap(), payload(3, 3_000));
    let whole = payload(3, 3_000);
    let switchboard_engine::EntryPayload::Commands(whole) = whole else { unreachable!() };
    assert_eq!(pinned.payload_at(100, 50).unwrap(), whole.slice(100..150));
    let part = whole.slice(7..1_000);
    assert_eq!(pinned.part(7, 993, crc32fast::hash(&part)).unwrap(), part);
    assert!(pinned.part(7, 993, 0).is_err(), "a wrong CRC");
    assert!(pinned.payload_at(2_999, 2).is_err(), "beyond the end");
    assert_eq!(read, [(id(2), payload(2, 3_000))]);
    drop(pinned);
    let held = disk.paths().contains(&segment_path(1));
    assert!(held, "the bytes that were read hold it still");
    drop(read);
    for _ in 0..4 {
        fill(&log, &mut next, 1);
        log.append_wait(vec![purge(1, next - 1)]).unwrap();
    }
    assert!(!disk.paths().contains(&segment_path(1)), "{:?}", disk.paths());
}

#[test]
fn a_pin_on_a_real_file_reads_the_same_after_recycling() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        LogOptions { segment_bytes: SEGMENT_BYTES, recent_bytes_max: 0, ..LogOptions::default() };
    let log = Log::open(Arc::new(RealFiles), dir.path(), options).unwrap();
    let mut next = 0;
    fill(&log, &mut next, 2);
    let pinned = log.pin_entry(1, 3).unwrap();
    let read = log.read(1, 2..3, 0).unwrap();
    for _ in 0..8 {
        log.append_wait(vec![purge(1, next - 1)]).unwrap();
        fill(&log, &mut next, 1);
    }
    assert_eq!(pinned.payload().unwrap(), payload(3, 3_000));
    assert_eq!(read, [(id(2), payload(2, 3_000))]);
}

#[test]
fn readers_see_whole_entries_while_segments_are_sealed_and_used_again() {
    const ENTRIES: u64 = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        segment_bytes: SEGMENT_BYTES,
        recent_bytes_max: 10_000,
        ..LogOptions::default()
    };
    let log = Log::open(Arc::new(RealFiles), dir.path(), options).unwrap();
    std::thread::scope(|scope| {
        for reader in 0..2_u64 {
            let log = log.clone();
            scope.spawn(move || {
                let (mut turn, mut last) = (reader, 0);
                while last < ENTRIES - 1 {
                    let state = log.group_state(1);
                    last = state.last.map_or(0, |last| last.index);
                    let Some(first) = state.first else { continue };
                    turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let index = first + (turn >> 33) % (last + 1 - first);
                    // It may have been purged since; if it is there, it is right.
                    for (log_id, found) in log.read(1, index..index + 1, 0).unwrap() {
                        assert_eq!((log_id, found), (id(index), payload(index, 2_000)));
                    }
                    if let Ok(pinned) = log.pin_entry(1, index) {
                        assert_eq!(pinned.payload().unwrap(), payload(index, 2_000));
                    }
                }
            });
        }
        for index in 0..ENTRIES {
            log.append(vec![entry(1, index, 2_000)], Box::new(|result| result.unwrap()));
            if index % 100 == 99 {
                log.append_wait(vec![purge(1, index - 50)]).unwrap();
            }
        }
    });
    assert!(log.stats().segments_opened > 50, "{:?}", log.stats());
}

#[test]
fn a_segment_is_not_used_again_before_the_purge_is_durable() {
    let disk = SimFiles::new(1);
    let log = open(&disk).unwrap();
    let mut next = 0;
    fill(&log, &mut next, 3);
    // Queued, seen by readers, but not written.
    log.append(vec![purge(1, next - 1)], Box::new(|_| {}));
    assert_eq!(log.stats().oldest, None);
    assert_eq!(log.stats().segments, 4);
    drop(log);
    disk.power_cut();
    let log = open(&disk).unwrap();
    assert_eq!(indexes(&log, 1), (0..next).collect::<Vec<_>>());
}

#[test]
fn the_group_that_holds_the_oldest_segment_is_named() {
    let disk = SimFiles::new(1);
    let log = open_with(&disk, options()).unwrap();
    log.append_wait(vec![entry(7, 0, 10)]).unwrap();
    let mut next = 0;
    fill(&log, &mut next, 3);
    let oldest = |groups: &[u32], segment| Some(OldestSegment { segment, groups: groups.to_vec() });
    assert_eq!(log.stats().oldest, oldest(&[1, 7], 1));
    log.append_wait(vec![purge(1, next - 1)]).unwrap();
    assert_eq!(log.stats().oldest, oldest(&[7], 1));
    assert_eq!(log.stats().segments, 4, "one entry of group 7 holds the row");
    log.append_wait(vec![purge(7, 0)]).unwrap();
    assert_eq!((log.stats().oldest, log.stats().segments), (None, 1));
}
