//! The format on disk: golden bytes of version 1, round trips, and bytes that are anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::buffer::FrameBuffer;
use super::core::Core;
use super::frame::{FrameBuilder, FrameHead, FrameKind, LogPlace, Looked, seed_of};
use super::header::{self, SegmentHeader};
use super::limits::BLOCK_BYTES;
use super::record::{Found, Prepared, Record};
use super::scan::{Scanner, Step};
use super::written::Written;
use crate::fs::sim::SimFiles;
use crate::fs::{FileHandle, Files, OpenMode};
use crate::{EntryPayload, GroupId, LogId};

const DISK_ID: [u8; 16] = *b"0123456789abcdef";

fn encoded(record: Record, life: u32) -> Vec<u8> {
    let prepared = Prepared::new(record, 1024).unwrap();
    let mut out = prepared.head(life).to_vec();
    out.extend_from_slice(&prepared.payload);
    out
}

/// One record of each kind, with its name.
fn records() -> Vec<(&'static str, Record)> {
    let id = LogId::new(0x0102, 0x0304_0506);
    let bytes = Bytes::from_static(b"payload");
    let entry = |payload| Record::Entry { group: 7, log_id: id, payload };
    vec![
        ("entry blank", entry(EntryPayload::Blank)),
        ("entry commands", entry(EntryPayload::Commands(bytes.clone()))),
        ("entry membership", entry(EntryPayload::Membership(bytes.clone()))),
        ("vote", Record::Vote { group: 7, bytes }),
        ("committed", Record::Committed { group: 7, log_id: id }),
        ("truncate", Record::Truncate { group: 7, after: Some(id) }),
        ("truncate all", Record::Truncate { group: 7, after: None }),
        ("purge", Record::Purge { group: 7, upto: id }),
        ("checkpoint", Record::Checkpoint { group: 7, at: id }),
        ("drop", Record::Drop { group: 7 }),
    ]
}

fn core() -> Core {
    Core {
        life: 3,
        vote: Some(Bytes::from_static(b"vote")),
        committed: Some(LogId::new(4, 40)),
        purged: Some(LogId::new(2, 20)),
        checkpoint: Some(LogId::new(3, 30)),
        first: Some(21),
        last: Some(LogId::new(5, 50)),
    }
}

fn records_frame() -> Vec<u8> {
    let mut out = FrameBuffer::default();
    let mut frame = FrameBuilder::new(&mut out, 0);
    for (_, record) in records() {
        let bytes = encoded(record, 2);
        frame.push(&bytes[..36], &bytes[36..]);
    }
    let here = LogPlace { segment: 9, offset: 0x8000 };
    let durable = LogPlace { segment: 9, offset: 0x7000 };
    frame.finish(FrameKind::Records, here, durable, 0xaabb_ccdd, seed_of(&DISK_ID));
    out.bytes().to_vec()
}

fn header_frame(groups: &[(GroupId, Core)]) -> Vec<u8> {
    let mut written = Written::default();
    for (group, core) in groups {
        written.start(*group, core.clone());
    }
    let mut out = FrameBuffer::default();
    let mut frame = FrameBuilder::new(&mut out, 0);
    header::encode(&mut frame, &DISK_ID, 64 << 20, &written);
    let here = LogPlace { segment: 9, offset: 0 };
    let durable = LogPlace { segment: 8, offset: 0x3ff_f000 };
    frame.finish(FrameKind::SegmentHeader, here, durable, 0xaabb_ccdd, seed_of(&DISK_ID));
    out.bytes().to_vec()
}

/// Hexadecimal lines of 32 bytes, without the zeros at the end.
fn hex(bytes: &[u8]) -> String {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let line =
        |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes[..used].chunks(32).map(line).collect()
}

fn assert_golden(name: &str, golden: &str, bytes: &[u8]) {
    let found = hex(bytes);
    assert!(found == golden, "{name} is no longer what version 1 wrote; it is now\n{found}");
}

#[test]
fn records_are_what_version_1_wrote() {
    let mut found = String::new();
    for (name, record) in records() {
        let bytes = encoded(record, 2);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        found += &format!("{name}: {hex}\n");
    }
    let golden = include_str!("golden/record-v1.hex");
    assert!(found == golden, "records are no longer what version 1 wrote; they are now\n{found}");
}

#[test]
fn a_frame_is_what_version_1_wrote() {
    let frame = records_frame();
    assert_eq!(frame.len() as u64, BLOCK_BYTES);
    assert_golden("a frame", include_str!("golden/frame-v1.hex"), &frame);
}

#[test]
fn a_segment_header_is_what_version_1_wrote() {
    let frame = header_frame(&[(0, Core::default()), (7, core())]);
    assert_golden("a segment header", include_str!("golden/segment-header-v1.hex"), &frame);
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut frame = records_frame();
    frame[4] = 2;
    let crc = {
        let mut hasher = crc32fast::Hasher::new_with_initial(seed_of(&DISK_ID));
        hasher.update(&frame[..60]);
        hasher.finalize()
    };
    frame[60..64].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(FrameHead::look(&frame, 9, seed_of(&DISK_ID)), Looked::NewerVersion(2));
}

#[test]
fn a_frame_of_another_disk_is_none_of_this() {
    let frame = records_frame();
    let other = seed_of(&[1; 16]);
    assert_eq!(FrameHead::look(&frame, 9, other), Looked::Torn);
    assert_eq!(FrameHead::look(&frame, 8, seed_of(&DISK_ID)), Looked::Other, "another segment");
}

fn file_of(bytes: &[u8]) -> Arc<dyn FileHandle> {
    let disk = SimFiles::new(0);
    disk.create_dir_all(Path::new("/")).unwrap();
    let file = disk.open(Path::new("/f"), OpenMode::CreateNew).unwrap();
    file.write_at(bytes, 0).unwrap();
    file
}

fn any_log_id() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| LogId::new(term, index))
}

fn any_payload() -> impl Strategy<Value = EntryPayload> {
    let bytes = vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    prop_oneof![
        Just(EntryPayload::Blank),
        bytes.clone().prop_map(EntryPayload::Commands),
        bytes.prop_map(EntryPayload::Membership),
    ]
}

fn any_record() -> impl Strategy<Value = Record> {
    let group = any::<GroupId>();
    prop_oneof![
        (group, any_log_id(), any_payload()).prop_map(|(group, log_id, payload)| Record::Entry {
            group,
            log_id,
            payload
        }),
        (any::<GroupId>(), vec(any::<u8>(), 0..256))
            .prop_map(|(group, vote)| Record::Vote { group, bytes: vote.into() }),
        (any::<GroupId>(), any_log_id())
            .prop_map(|(group, log_id)| Record::Committed { group, log_id }),
        (any::<GroupId>(), option::of(any_log_id()))
            .prop_map(|(group, after)| Record::Truncate { group, after }),
        (any::<GroupId>(), any_log_id()).prop_map(|(group, upto)| Record::Purge { group, upto }),
        (any::<GroupId>(), any_log_id()).prop_map(|(group, at)| Record::Checkpoint { group, at }),
        any::<GroupId>().prop_map(|group| Record::Drop { group }),
    ]
}

fn any_core() -> impl Strategy<Value = Core> {
    let vote = option::of(vec(any::<u8>(), 0..256).prop_map(Bytes::from));
    let ids = vec(option::of(any_log_id()), 4);
    (any::<u32>(), vote, ids, option::of(any::<u64>())).prop_map(|(life, vote, ids, first)| {
        let (committed, purged, checkpoint, last) = (ids[0], ids[1], ids[2], ids[3]);
        Core { life, vote, committed, purged, checkpoint, first, last }
    })
}

proptest! {
    #[test]
    fn a_record_is_read_back_as_it_was_written(record in any_record(), life: u32) {
        let prepared = Prepared::new(record.clone(), 1024).unwrap();
        let mut bytes = encoded(record, life);
        bytes.extend_from_slice(b"rest");
        let (found, rest) = Found::first(&bytes).unwrap();
        prop_assert_eq!(rest, b"rest");
        prop_assert_eq!((found.head.group, found.head.life), (prepared.group, life));
        prop_assert_eq!(found.payload, &prepared.payload[..]);
        prop_assert_eq!(found.change().unwrap(), prepared.change);
    }

    #[test]
    fn a_flipped_bit_of_a_record_is_noticed(record in any_record(), bit: prop::sample::Index) {
        let mut bytes = encoded(record, 1);
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Found::first(&bytes).is_err());
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok((found, _)) = Found::first(&bytes) {
            let _ = found.change();
        }
        let _ = header::decode(&bytes);
        let _ = FrameHead::look(&bytes, 0, 0);
    }

    #[test]
    fn a_segment_header_is_read_back_as_it_was_written(
        groups in prop::collection::btree_map(any::<GroupId>(), any_core(), 0..20),
    ) {
        let list: Vec<(GroupId, Core)> = groups.clone().into_iter().collect();
        let frame = header_frame(&list);
        let Looked::Head(head, _) = FrameHead::look(&frame, 9, seed_of(&DISK_ID)) else {
            return Err(TestCaseError::fail("no header"));
        };
        prop_assert_eq!(head.records as usize, groups.len() + 1);
        prop_assert_eq!(head.total_bytes(), frame.len() as u64);
        let records = &frame[64..64 + head.records_bytes as usize];
        let expected = SegmentHeader { disk_id: DISK_ID, segment_bytes: 64 << 20, groups };
        prop_assert_eq!(header::decode(records).unwrap(), expected);
    }

    #[test]
    fn a_scan_of_any_bytes_behind_a_header_ends(
        noise in vec(any::<u8>(), 0..9000),
        at in 0_usize..9000,
    ) {
        let mut bytes = header_frame(&[(7, core())]);
        bytes.extend_from_slice(&records_frame());
        let at = at.min(bytes.len());
        bytes.splice(at..at, noise);
        let file = file_of(&bytes);
        let mut scanner = Scanner::new(&*file, 9, seed_of(&DISK_ID), Vec::new()).unwrap();
        let mut steps = 0;
        while matches!(scanner.step().unwrap(), Step::Frame(_)) {
            steps += 1;
        }
        prop_assert!(steps <= 1, "the second frame says that it stands elsewhere");
        let _ = scanner.beyond().unwrap();
    }
}

#[test]
fn the_states_in_a_header_keep_their_order() {
    let groups: BTreeMap<GroupId, Core> = (0..5).map(|group| (group, core())).collect();
    let list: Vec<_> = groups.clone().into_iter().rev().collect();
    let frame = header_frame(&list);
    let sorted: Vec<_> = groups.into_iter().collect();
    assert_eq!(frame, header_frame(&sorted));
}
