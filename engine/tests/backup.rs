//! The file of a backup: what was written reads back, and nothing else is taken for it.

use std::io::Read;

use switchboard_engine::{
    GroupId, LogId,
    backup::{BackupError, BackupReader, BackupWriter, Manifest, Part},
};

fn written() -> Vec<u8> {
    let mut bytes = Vec::new();
    let manifest = Manifest {
        cluster_id: *b"0123456789abcdef",
        shards: 2,
        created_at_ms: 1_700_000_000_000,
        made_by: "1.0".to_owned(),
    };
    let mut writer = BackupWriter::new(&mut bytes, &manifest).expect("memory");
    for (group, parts) in [(1, vec!["one", "two"]), (2, vec![]), (0, vec!["meta"])] {
        writer.begin(&Part { group, at: LogId::new(3, 7), generation: 1 }).expect("memory");
        parts.iter().for_each(|part| writer.bytes(part.as_bytes()).expect("memory"));
        writer.end().expect("memory");
    }
    writer.finish().expect("memory");
    bytes
}

fn read(mut bytes: &[u8]) -> Result<Vec<(GroupId, Vec<u8>)>, BackupError> {
    let mut reader = BackupReader::new(&mut bytes)?;
    let mut parts = Vec::new();
    while let Some(mut part) = reader.next_part()? {
        let mut content = Vec::new();
        let whole = part.read_to_end(&mut content);
        let group = part.part().group;
        part.finish()?;
        whole.expect("a failure is told by `finish`");
        parts.push((group, content));
    }
    Ok(parts)
}

#[test]
fn what_was_written_reads_back() {
    let parts = read(&written()).expect("whole");
    assert_eq!(parts, [(1, b"onetwo".to_vec()), (2, Vec::new()), (0, b"meta".to_vec())]);
}

#[test]
fn no_cut_and_no_flipped_bit_goes_unnoticed() {
    let whole = written();
    for end in 0..whole.len() {
        assert!(read(&whole[..end]).is_err(), "cut at {end}");
    }
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn a_later_version_is_named() {
    let mut later = written();
    later[8] = 2;
    let error = read(&later).expect_err("refused").to_string();
    assert!(error.contains("format version 2 of a backup"), "{error}");
}

#[test]
fn sound_sections_that_make_no_backup_are_refused() {
    let manifest =
        Manifest { cluster_id: [1; 16], shards: 1, created_at_ms: 0, made_by: String::new() };
    for groups in [vec![0], vec![1], vec![0, 0], vec![1, 1, 0], vec![2, 0]] {
        let mut bytes = Vec::new();
        let mut writer = BackupWriter::new(&mut bytes, &manifest).expect("memory");
        for group in &groups {
            let part = Part { group: *group, at: LogId::new(1, 1), generation: 0 };
            writer.begin(&part).expect("memory");
            writer.end().expect("memory");
        }
        writer.finish().expect("memory");
        assert!(matches!(read(&bytes), Err(BackupError::Order { .. })), "{groups:?}");
    }
}

#[test]
fn version_one_is_these_bytes() {
    let hex: String = written().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, include_str!("backup/version_1.hex").trim());
}
