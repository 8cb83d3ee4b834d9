//! Appending, reading, reopening, purging: what a user of the log sees when nothing fails.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use switchboard_engine::fs::RealFiles;
use switchboard_engine::fs::sim::SimFiles;
use switchboard_engine::log::{
    AppendError, GroupState, Log, LogOpenError, LogOptions, LogStep, ReadError, Record,
};
use switchboard_engine::{EntryPayload, LogId};

use crate::support::{DIR, SEGMENT_BYTES, entry, id, indexes, open, options, payload, purge};

fn real(dir: &Path) -> Log {
    let options = LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::default() };
    Log::open(Arc::new(RealFiles), dir, options).unwrap()
}

#[test]
fn what_is_appended_is_read_at_once_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let log = real(dir.path());
    let disk_id = log.disk_id();
    for index in 0..2_000 {
        log.append(vec![entry(1, index, 300)], Box::new(|result| result.unwrap()));
        assert_eq!(log.read(1, index..index + 1, 0).unwrap(), [(id(index), payload(index, 300))]);
    }
    log.append_wait(vec![Record::Vote { group: 1, bytes: Bytes::from_static(b"vote") }]).unwrap();
    let vote = Some(Bytes::from_static(b"vote"));
    let state = GroupState {
        life: 1,
        vote,
        last: Some(id(1_999)),
        first: Some(0),
        ..GroupState::default()
    };
    assert_eq!(log.group_state(1), state);
    drop(log);
    let log = real(dir.path());
    assert_eq!(log.disk_id(), disk_id);
    assert_eq!(log.group_state(1), state);
    assert_eq!(log.groups(), [1]);
    assert_eq!(indexes(&log, 1), (0..2_000).collect::<Vec<_>>());
    assert!(log.stats().segments > 5, "{:?}", log.stats());
}

#[test]
fn completions_fire_in_the_order_of_the_appends_from_many_threads() {
    let dir = tempfile::tempdir().unwrap();
    let log = real(dir.path());
    let fired = Arc::new(parking_lot::Mutex::new(vec![Vec::new(); 4]));
    std::thread::scope(|scope| {
        for group in 0..4_u32 {
            let (log, fired) = (&log, &fired);
            scope.spawn(move || {
                for index in 0..500 {
                    let fired = fired.clone();
                    let done = move |result: Result<(), AppendError>| {
                        result.unwrap();
                        fired.lock()[group as usize].push(index);
                    };
                    log.append(vec![entry(group, index, 50)], Box::new(done));
                }
            });
        }
    });
    log.flush().unwrap();
    for group in fired.lock().iter() {
        assert_eq!(*group, (0..500).collect::<Vec<_>>());
    }
    assert_eq!(log.stats().records, 2_000);
}

#[test]
fn truncating_and_appending_again_works_while_writes_are_queued() {
    let disk = SimFiles::new(1);
    let log = open(&disk).unwrap();
    for index in 0..10 {
        log.append(vec![entry(1, index, 10)], Box::new(|result| result.unwrap()));
    }
    log.append(
        vec![Record::Truncate { group: 1, after: Some(id(4)) }],
        Box::new(|result| result.unwrap()),
    );
    let other = EntryPayload::Membership(Bytes::from_static(b"other"));
    let record = Record::Entry { group: 1, log_id: LogId::new(2, 5), payload: other.clone() };
    log.append(vec![record], Box::new(|result| result.unwrap()));
    let expected = [(id(4), payload(4, 10)), (LogId::new(2, 5), other)];
    assert_eq!(log.read(1, 4..20, usize::MAX).unwrap(), expected);
    let frames = log.stats().frames;
    assert_eq!(log.step(), LogStep::Wrote);
    assert_eq!(log.step(), LogStep::Idle);
    assert_eq!(log.stats().frames, frames + 1, "all that waited shares one write and one sync");
    assert_eq!(log.read(1, 4..20, usize::MAX).unwrap(), expected, "from the file");
    drop(log);
    let log = open(&disk).unwrap();
    assert_eq!(log.read(1, 4..20, usize::MAX).unwrap(), expected, "after reopening");
    assert_eq!(log.log_id_at(1, 5), Some(LogId::new(2, 5)));
}

#[test]
fn purging_hides_entries_and_is_remembered() {
    let disk = SimFiles::new(1);
    let log = open(&disk).unwrap();
    log.append_wait((0..10).map(|index| entry(3, index, 10)).collect()).unwrap();
    log.append_wait(vec![Record::Checkpoint { group: 3, at: id(6) }, purge(3, 4)]).unwrap();
    assert!(matches!(log.pin_entry(3, 4), Err(ReadError::NoEntry { index: 4, .. })));
    assert_eq!(log.read(3, 0..6, 100).unwrap(), [(id(5), payload(5, 10))]);
    assert_eq!(log.read(3, 8..99, 15).unwrap(), [(id(8), payload(8, 10))], "as many bytes");
    assert_eq!(log.read(3, 8..99, 0).unwrap(), [(id(8), payload(8, 10))], "but at least one");
    assert_eq!(log.read(3, 10..99, 100).unwrap(), []);
    assert_eq!(log.read(9, 0..99, 100).unwrap(), []);
    assert_eq!(indexes(&log, 3), [5, 6, 7, 8, 9]);
    assert_eq!(log.log_id_at(3, 4), Some(id(4)));
    assert_eq!(log.log_id_at(3, 3), None);
    drop(log);
    let log = open(&disk).unwrap();
    let state = log.group_state(3);
    assert_eq!((state.purged, state.checkpoint), (Some(id(4)), Some(id(6))));
    assert_eq!(indexes(&log, 3), [5, 6, 7, 8, 9]);
    log.append_wait(vec![purge(3, 20)]).unwrap();
    assert_eq!(log.group_state(3).last, Some(id(20)));
    assert_eq!(log.retained_bytes(3), 0);
    log.append_wait(vec![entry(3, 21, 1)]).unwrap();
}

#[test]
fn an_entry_that_does_not_follow_is_refused_with_everything_beside_it() {
    let disk = SimFiles::new(1);
    let log = open(&disk).unwrap();
    log.append_wait(vec![entry(1, 7, 1)]).unwrap();
    let refused = log.append_wait(vec![entry(1, 8, 1), entry(1, 10, 1)]).unwrap_err();
    assert!(matches!(refused, AppendError::OutOfOrder { group: 1, .. }), "{refused}");
    assert_eq!(indexes(&log, 1), [7]);
    let large = log.append_wait(vec![entry(1, 8, SEGMENT_BYTES as usize)]).unwrap_err();
    assert!(matches!(large, AppendError::TooLarge { .. }), "{large}");
    log.append_wait(vec![entry(1, 8, 1)]).unwrap();
}

#[test]
fn committed_alone_forces_no_sync_but_travels_with_the_next() {
    let disk = SimFiles::new(1);
    let log = open(&disk).unwrap();
    log.append_wait(vec![entry(1, 0, 1)]).unwrap();
    let before = disk.operations();
    for index in 0..5 {
        log.append_wait(vec![Record::Committed { group: 1, log_id: id(index) }]).unwrap();
    }
    assert_eq!(disk.operations(), before);
    assert_eq!(log.group_state(1).committed, Some(id(4)));
    log.append_wait(vec![entry(1, 1, 1)]).unwrap();
    assert_eq!(disk.operations(), before + 2, "one write, one sync");
    disk.power_cut();
    assert_eq!(open(&disk).unwrap().group_state(1).committed, Some(id(4)));
}

#[test]
fn a_dropped_group_returns_with_a_new_life_and_nothing_else() {
    let disk = SimFiles::new(1);
    let log = open(&disk).unwrap();
    log.append_wait(vec![entry(1, 0, 1), Record::Vote { group: 1, bytes: Bytes::new() }]).unwrap();
    log.append_wait(vec![Record::Drop { group: 1 }, entry(1, 0, 2), entry(1, 1, 2)]).unwrap();
    drop(log);
    let log = open(&disk).unwrap();
    let state = log.group_state(1);
    assert_eq!((state.life, state.vote, state.last), (2, None, Some(id(1))));
    assert_eq!(log.group_state(9), GroupState::default());
}

#[test]
fn a_second_log_on_the_same_directory_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let log = real(dir.path());
    let options = LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::default() };
    let refused = Log::open(Arc::new(RealFiles), dir.path(), options).unwrap_err();
    assert!(matches!(refused, LogOpenError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains(&dir.path().display().to_string()));
    drop(log);
    real(dir.path());
}

#[test]
fn a_completion_may_drop_the_last_handle() {
    let dir = tempfile::tempdir().unwrap();
    let log = real(dir.path());
    let (sender, receiver) = std::sync::mpsc::channel();
    let held = log.clone();
    let done = move |result: Result<(), AppendError>| {
        drop(held);
        sender.send(result.is_ok()).unwrap();
    };
    log.append(vec![entry(1, 0, 1)], Box::new(done));
    drop(log);
    assert!(receiver.recv().unwrap());
}

#[test]
fn the_disk_id_asked_for_must_be_the_one_that_is_there() {
    let disk = SimFiles::new(1);
    let asked = LogOptions { disk_id: Some([7; 16]), ..options() };
    let log = Log::open(Arc::new(disk.clone()), Path::new(DIR), asked).unwrap();
    assert_eq!(log.disk_id(), [7; 16]);
    drop(log);
    assert_eq!(open(&disk).unwrap().disk_id(), [7; 16]);
    let asked = LogOptions { disk_id: Some([8; 16]), ..options() };
    let refused = Log::open(Arc::new(disk), Path::new(DIR), asked).unwrap_err();
    assert!(matches!(refused, LogOpenError::DiskId { .. }), "{refused}");
}
