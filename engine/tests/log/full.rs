//! A full disk: entries are refused in time, what frees space is not, and the log goes on.

use std::sync::{Arc, mpsc};

use bytes::Bytes;
use switchboard_engine::fs::sim::SimFiles;
use switchboard_engine::log::{AppendError, Log, LogOptions, Record, SpaceLevel, WriterMode};

use crate::support::{SEGMENT_BYTES, entry, indexes, open_with, options, purge};

/// Appends entries until they are refused; returns how many are there.
fn fill(log: &Log, mut next: u64) -> (u64, AppendError) {
    loop {
        match log.append_wait(vec![entry(1, next, 3_000)]) {
            Ok(()) => next += 1,
            Err(refused) => return (next, refused),
        }
    }
}

#[test]
fn entries_are_refused_while_votes_and_purges_still_fit_and_then_it_goes_on() {
    let disk = SimFiles::new(1);
    disk.set_capacity(Some(3 * SEGMENT_BYTES + 1_000));
    let log = open_with(&disk, options()).unwrap();
    let (next, refused) = fill(&log, 0);
    let AppendError::DiskFull { needed_bytes, free_bytes } = refused else { panic!("{refused}") };
    assert!(needed_bytes == SEGMENT_BYTES && free_bytes < needed_bytes, "{refused}");
    assert_eq!(log.space().level, SpaceLevel::Full);
    assert_eq!(indexes(&log, 1), (0..next).collect::<Vec<_>>());
    log.append_wait(vec![Record::Vote { group: 1, bytes: Bytes::from_static(b"v") }]).unwrap();
    log.append_wait(vec![purge(1, next - 2)]).unwrap();
    let (after, _) = {
        log.append_wait(vec![entry(1, next, 10)]).unwrap();
        log.append_wait(vec![purge(1, next - 1)]).unwrap();
        (0..5).fold((next + 1, ()), |(from, ()), _| {
            let upto = from + 5;
            for index in from..upto {
                log.append_wait(vec![entry(1, index, 3_000)]).unwrap();
            }
            log.append_wait(vec![purge(1, upto - 1)]).unwrap();
            (upto, ())
        })
    };
    drop(log);
    let log = open_with(&disk, options()).unwrap();
    assert_eq!(log.group_state(1).last.unwrap().index, after - 1);
}

#[test]
fn a_full_log_opens_and_says_so() {
    let disk = SimFiles::new(1);
    disk.set_capacity(Some(2 * SEGMENT_BYTES + 1_000));
    let log = open_with(&disk, options()).unwrap();
    let (next, _) = fill(&log, 0);
    drop(log);
    let log = open_with(&disk, options()).unwrap();
    let (still, refused) = fill(&log, next);
    assert!(matches!(refused, AppendError::DiskFull { .. }), "{refused}");
    assert_eq!(still, next, "opening took a frame of the reserve, no entry fits");
    log.flush().unwrap();
    assert_eq!(indexes(&log, 1), (0..next).collect::<Vec<_>>());
}

#[test]
fn reserve_is_reported_before_anything_is_refused() {
    let disk = SimFiles::new(1);
    disk.set_capacity(Some(10 * SEGMENT_BYTES));
    let reserve_bytes = 6 * SEGMENT_BYTES;
    let log = open_with(&disk, LogOptions { reserve_bytes, ..options() }).unwrap();
    assert_eq!(log.space().level, SpaceLevel::Ample);
    let mut levels = Vec::new();
    let mut next = 0;
    while let Ok(()) = log.append_wait(vec![entry(1, next, 3_000)]) {
        next += 1;
        levels.push(log.space().level);
    }
    assert!(levels.is_sorted(), "{levels:?}");
    assert!(levels.contains(&SpaceLevel::Reserve));
    let free = log.space().free_bytes;
    assert!(free >= reserve_bytes / 2, "half of it is left for a checkpoint: {free}");
}

#[test]
fn a_log_with_threads_waits_for_space_and_takes_it() {
    let disk = SimFiles::new(1);
    disk.set_capacity(Some(3 * SEGMENT_BYTES + 1_000));
    let log = open_with(&disk, LogOptions { writer: WriterMode::Thread, ..options() }).unwrap();
    let (sender, receiver) = mpsc::channel();
    let (mut next, mut refusals) = (0, 0);
    while refusals == 0 || log.group_state(1).last.is_none_or(|last| last.index < 100) {
        let sender = sender.clone();
        match log.append_wait(vec![entry(1, next, 3_000)]) {
            Ok(()) => next += 1,
            Err(AppendError::DiskFull { .. }) => {
                refusals += 1;
                let done = move |result: Result<(), AppendError>| drop(sender.send(result));
                log.append(vec![purge(1, next - 1)], Box::new(done));
                receiver.recv().unwrap().unwrap();
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn too_much_that_waits_is_refused() {
    let disk = SimFiles::new(1);
    let log = open_with(&disk, LogOptions { queue_bytes_max: 10_000, ..options() }).unwrap();
    let mut next = 0;
    let refused = Arc::new(parking_lot::Mutex::new(None));
    while refused.lock().is_none() {
        let refused = refused.clone();
        let done = move |result: Result<(), AppendError>| {
            if let Err(error) = result {
                *refused.lock() = Some(error);
            }
        };
        log.append(vec![entry(1, next, 3_000)], Box::new(done));
        next += 1;
    }
    assert!(matches!(*refused.lock(), Some(AppendError::QueueFull { .. })));
    assert_eq!(next, 4);
    log.flush().unwrap();
    log.append_wait(vec![entry(1, 3, 3_000)]).unwrap();
}
