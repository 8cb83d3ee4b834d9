//! Damage: what a crash may have left is cut, whatever else is wrong is refused, by name.

use std::path::Path;

use switchboard_engine::fs::sim::SimFiles;
use switchboard_engine::fs::{Files, OpenMode};
use switchboard_engine::log::{AppendError, LogOpenError, ReadError, inspect};

use crate::support::{DIR, entry, id, indexes, open, payload, purge, segment_path};

const BLOCK: u64 = 4096;

/// A log of small frames at 8192, 12288, … in segment 1: a header, the frame of the opening, then
/// one per entry. Nothing records that the last one is durable.
fn with_entries(count: u64) -> SimFiles {
    let disk = SimFiles::new(1);
    let log = open(&disk).unwrap();
    for index in 0..count {
        log.append_wait(vec![entry(1, index, 20)]).unwrap();
    }
    disk
}

fn frame_of(index: u64) -> u64 {
    (index + 2) * BLOCK
}

#[test]
fn a_torn_last_frame_is_cut_and_the_log_goes_on_in_a_new_segment() {
    let disk = with_entries(5);
    disk.flip(&segment_path(1), frame_of(4) + 110, 1);
    let log = open(&disk).unwrap();
    assert_eq!(indexes(&log, 1), [0, 1, 2, 3]);
    assert_eq!(log.stats().newest, 2);
    log.append_wait(vec![entry(1, 4, 33)]).unwrap();
    drop(log);
    let log = open(&disk).unwrap();
    assert_eq!(indexes(&log, 1), [0, 1, 2, 3, 4]);
    assert_eq!(log.read(1, 4..5, 0).unwrap(), [(id(4), payload(4, 33))], "not the torn one");
}

#[test]
fn every_flipped_bit_of_an_acknowledged_frame_is_refused_with_file_and_offset() {
    // Opening adds a frame that records what is durable, so all five entries are.
    let disk = with_entries(5);
    drop(open(&disk).unwrap());
    let frames: Vec<u64> = (0..7).map(|nth| nth * BLOCK).collect();
    for frame in frames {
        let records = if frame < 2 * BLOCK { 0 } else { 36 + 20 };
        let bytes = if frame == 0 { 64 + 36 + 24 } else { 64 + records };
        for offset in frame..frame + bytes {
            let mask = 1 << (offset % 8);
            disk.flip(&segment_path(1), offset, mask);
            let refused = open(&disk).err();
            let at = |error: &LogOpenError| match error {
                LogOpenError::Corrupt { file, offset, .. } => {
                    (file == &segment_path(1)).then_some(*offset)
                }
                // A flipped version is one that this build does not know.
                LogOpenError::Version { .. } => Some(frame),
                _ => None,
            };
            let found = refused.as_ref().and_then(at);
            assert_eq!(found, Some(frame), "byte {offset}: {refused:?}");
            disk.flip(&segment_path(1), offset, mask);
        }
    }
    assert_eq!(indexes(&open(&disk).unwrap(), 1), [0, 1, 2, 3, 4], "whole again");
}

/// Makes the frame at an offset one that a newer build has written.
fn make_newer(disk: &SimFiles, disk_id: [u8; 16], offset: u64) {
    let bytes = disk.content(&segment_path(1)).unwrap();
    let mut head = bytes[offset as usize..][..64].to_vec();
    head[4] = 2;
    let mut crc = crc32fast::Hasher::new_with_initial(crc32fast::hash(&disk_id));
    crc.update(&head[..60]);
    head[60..].copy_from_slice(&crc.finalize().to_le_bytes());
    let file = disk.open(&segment_path(1), OpenMode::Write).unwrap();
    file.write_at(&head, offset).unwrap();
}

#[test]
fn a_frame_of_a_newer_version_is_refused_as_such_also_behind_what_looks_like_the_end() {
    // The frame before it is whole, torn, or gone.
    for before in ["whole", "torn", "gone"] {
        let disk = with_entries(5);
        let disk_id = inspect::inspect(&disk, Path::new(DIR)).unwrap().disk_id.unwrap();
        make_newer(&disk, disk_id, frame_of(4));
        match before {
            "torn" => disk.flip(&segment_path(1), frame_of(3) + 110, 1),
            "gone" => {
                let file = disk.open(&segment_path(1), OpenMode::Write).unwrap();
                file.write_at(&[0; BLOCK as usize], frame_of(3)).unwrap();
            }
            _ => {}
        }
        let content = disk.content(&segment_path(1));
        let refused = open(&disk).unwrap_err();
        assert!(
            matches!(refused, LogOpenError::Version { found: 2, known: 1, .. }),
            "{before}: {refused}"
        );
        assert_eq!(disk.content(&segment_path(1)), content, "nothing was cut");
    }
}

#[test]
fn a_refusal_names_the_command_that_helps_and_changes_nothing() {
    let disk = with_entries(5);
    drop(open(&disk).unwrap());
    disk.flip(&segment_path(1), frame_of(2) + 110, 4);
    let before = disk.content(&segment_path(1));
    let message = open(&disk).unwrap_err().to_string();
    for part in ["0000000000000001.log", "16384", "switchboard log inspect /log"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(disk.content(&segment_path(1)), before);
}

#[test]
fn inspection_of_a_corrupt_log_says_where_and_shows_what_is_behind() {
    let disk = with_entries(5);
    drop(open(&disk).unwrap());
    disk.flip(&segment_path(1), frame_of(2) + 110, 4);
    let report = inspect::inspect(&disk, Path::new(DIR)).unwrap();
    assert!(report.refused.as_ref().is_some_and(|why| why.contains("16384")), "{report:?}");
    let [segment, prepared] = report.segments.as_slice() else { panic!("{report:?}") };
    assert_eq!((prepared.sequence, prepared.has_header, prepared.frames), (2, false, 0));
    let [problem] = segment.problems.as_slice() else { panic!("{report:?}") };
    assert_eq!((problem.offset, problem.was_durable), (frame_of(2), true));
    assert_eq!((segment.records, segment.has_header), (4, true));
    let mut indexes = Vec::new();
    inspect::frames(&disk, Path::new(DIR), None, &mut |frame| {
        let entries = frame.records.iter().filter(|record| record.kind == "entry");
        indexes.extend(entries.filter_map(|record| Some(record.log_id?.index)));
    })
    .unwrap();
    assert_eq!(indexes, [0, 1, 3, 4]);
}

#[test]
fn inspection_of_a_whole_log_shows_its_groups() {
    let disk = with_entries(3);
    let report = inspect::inspect(&disk, Path::new(DIR)).unwrap();
    assert_eq!(report.refused, None);
    assert_eq!(report.groups.len(), 1);
    assert_eq!(report.groups[0].1.last, Some(id(2)));
    disk.remove(&Path::new(DIR).join("disk-id")).unwrap();
    let without = inspect::inspect(&disk, Path::new(DIR)).unwrap();
    assert_eq!(without.disk_id, report.disk_id, "taken from the segment");
    assert!(without.segments[0].problems.is_empty());
}

/// Three sealed segments and an active one.
fn with_segments() -> SimFiles {
    let disk = SimFiles::new(1);
    let log = open(&disk).unwrap();
    let mut index = 0;
    while log.stats().newest < 4 {
        log.append_wait(vec![entry(1, index, 3_000)]).unwrap();
        index += 1;
    }
    log.flush().unwrap();
    disk
}

#[test]
fn damage_in_a_sealed_segment_is_refused_by_its_name() {
    for sequence in 1..4 {
        for offset in [0, 8, 70, 5 * BLOCK + 200] {
            let disk = with_segments();
            disk.flip(&segment_path(sequence), offset, 8);
            match open(&disk).unwrap_err() {
                LogOpenError::Corrupt { file, .. } => assert_eq!(file, segment_path(sequence)),
                other => panic!("{sequence} {offset}: {other}"),
            }
        }
    }
}

#[test]
fn damage_after_opening_is_found_by_the_read() {
    let disk = with_segments();
    let log = open(&disk).unwrap();
    disk.flip(&segment_path(2), 5 * BLOCK + 200, 8);
    let mut errors = Vec::new();
    for index in 0..=log.group_state(1).last.unwrap().index {
        errors.extend(log.read(1, index..index + 1, 0).err());
    }
    let [ReadError::Corrupt { file, offset, .. }] = errors.as_slice() else { panic!("{errors:?}") };
    assert_eq!((file.as_path(), *offset), (segment_path(2).as_path(), 5 * BLOCK + 64));
}

#[test]
fn a_newest_file_that_was_cut_is_taken_up_to_the_cut_and_reported() {
    for size in [4 * BLOCK, 4 * BLOCK + 50, 12 * BLOCK] {
        let disk = with_entries(5);
        let file = disk.open(&segment_path(1), OpenMode::Write).unwrap();
        let whole = file.size().unwrap();
        file.set_size(size).unwrap();
        let log = open(&disk).unwrap();
        assert_eq!(log.stats().cut_at_open, Some(size));
        let last = log.group_state(1).last.unwrap().index;
        assert_eq!(last, if size < 12 * BLOCK { 1 } else { 4 });
        assert_eq!(log.read(1, 0..last + 1, usize::MAX).unwrap().len() as u64, last + 1);
        drop(log);
        assert_eq!(file.size().unwrap(), whole, "it has its size back");
        assert_eq!(open(&disk).unwrap().stats().cut_at_open, None);
    }
}

#[test]
fn a_sealed_file_that_was_cut_is_refused() {
    let disk = with_segments();
    disk.open(&segment_path(1), OpenMode::Write).unwrap().set_size(4 * BLOCK).unwrap();
    match open(&disk).unwrap_err() {
        LogOpenError::Corrupt { offset, .. } => assert_eq!(offset, 4 * BLOCK),
        other => panic!("{other}"),
    }
}

#[test]
fn a_segment_that_is_gone_is_missed() {
    for sequence in 1..4 {
        let disk = with_segments();
        disk.remove(&segment_path(sequence)).unwrap();
        let refused = open(&disk).unwrap_err();
        assert!(matches!(refused, LogOpenError::Missing { .. }), "{sequence}: {refused}");
    }
}

#[test]
fn a_directory_whose_segments_or_disk_id_are_gone_is_not_started_anew() {
    let disk = with_segments();
    disk.remove(&Path::new(DIR).join("disk-id")).unwrap();
    let refused = open(&disk).unwrap_err();
    assert!(matches!(refused, LogOpenError::Missing { .. }), "{refused}");
    let disk = with_segments();
    for sequence in 1..=4 {
        disk.remove(&segment_path(sequence)).unwrap();
    }
    let refused = open(&disk).unwrap_err();
    assert!(matches!(refused, LogOpenError::Missing { .. }), "{refused}");
}

#[test]
fn a_failed_write_or_sync_closes_the_log_for_good() {
    for sync in [false, true] {
        let disk = with_entries(3);
        let log = open(&disk).unwrap();
        let next = disk.operations() + 1;
        if sync {
            disk.fail_sync_at(next)
        } else {
            disk.fail_write_at(next)
        }
        let failed = log.append_wait(vec![entry(1, 3, 10)]).unwrap_err();
        assert!(matches!(failed, AppendError::Poisoned(_)), "{failed}");
        let operations = disk.operations();
        for _ in 0..3 {
            let refused = log.append_wait(vec![purge(1, 0)]).unwrap_err();
            assert!(matches!(refused, AppendError::Poisoned(_)), "{refused}");
            assert!(log.flush().is_err());
            log.step_silence();
        }
        assert_eq!(disk.operations(), operations, "nothing is tried again");
        assert!(log.stats().closed);
        assert_eq!(log.read(1, 1..2, 0).unwrap(), [(id(1), payload(1, 20))], "reads still work");
    }
}
