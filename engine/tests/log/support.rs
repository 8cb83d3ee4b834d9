//! What the tests of the log share: records, options, a log on simulated files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use switchboard_engine::fs::sim::SimFiles;
use switchboard_engine::log::{Log, LogOpenError, LogOptions, Record, WriterMode};
use switchboard_engine::{EntryPayload, GroupId, LogId};

pub(crate) const DIR: &str = "/log";
pub(crate) const SEGMENT_BYTES: u64 = 64 * 1024;

pub(crate) fn id(index: u64) -> LogId {
    LogId::new(1, index)
}

pub(crate) fn payload(index: u64, len: usize) -> EntryPayload {
    let bytes: Vec<u8> = (0..len).map(|n| (n as u64 ^ index) as u8).collect();
    EntryPayload::Commands(Bytes::from(bytes))
}

pub(crate) fn entry(group: GroupId, index: u64, len: usize) -> Record {
    Record::Entry { group, log_id: id(index), payload: payload(index, len) }
}

pub(crate) fn purge(group: GroupId, index: u64) -> Record {
    Record::Purge { group, upto: id(index) }
}

/// Small segments, nothing kept in memory, no thread.
pub(crate) fn options() -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT_BYTES,
        recent_bytes_max: 0,
        reserve_bytes: 0,
        writer: WriterMode::Stepped,
        ..LogOptions::default()
    }
}

pub(crate) fn open(disk: &SimFiles) -> Result<Log, LogOpenError> {
    open_with(disk, options())
}

pub(crate) fn open_with(disk: &SimFiles, options: LogOptions) -> Result<Log, LogOpenError> {
    Log::open(Arc::new(disk.clone()), Path::new(DIR), options)
}

pub(crate) fn segment_path(sequence: u64) -> PathBuf {
    Path::new(DIR).join(format!("{sequence:016}.log"))
}

/// The indexes that a group has, after checking each payload.
pub(crate) fn indexes(log: &Log, group: GroupId) -> Vec<u64> {
    let state = log.group_state(group);
    let (Some(first), Some(last)) = (state.first, state.last) else { return Vec::new() };
    let mut found = Vec::new();
    for index in first..=last.index {
        let read = log.read(group, index..index + 1, usize::MAX).unwrap();
        let [(log_id, EntryPayload::Commands(bytes))] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!(log_id.index, index);
        assert_eq!(payload(index, bytes.len()), EntryPayload::Commands(bytes.clone()));
        found.push(index);
    }
    found
}
