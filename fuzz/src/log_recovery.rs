//! A log is written, its files are changed, and it is opened again.
//!
//! The bytes of a run say first what is appended, then what is done to the files, and whether CRCs and
//! chain are made right afterwards. Three rules hold:
//! - However the files are changed, opening refuses or serves what stands in them: never a panic, never
//!   an entry that is in no file.
//! - As long as CRCs tell, opening refuses or finds the log as it was after some append. One changed byte
//!   costs the last append at most, because each frame says that all before it is durable.
//! - What opens goes on: another entry is appended and is there after the power was cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use switchboard_engine::{
    EntryPayload, GroupId, LogId,
    fs::{Files, sim::SimFiles},
    log::{GroupState, Log, LogOpenError, Record, inspect},
};

use crate::{
    Seed, frames,
    frames::{BLOCK_BYTES, StoredEntry},
    input::Input,
    world::{DIR, log_options, put},
};

const GROUPS: u8 = 3;
const APPENDS_MAX: u8 = 48;
const DAMAGES_MAX: u8 = 4;

/// What a log says of its groups.
type Seen = BTreeMap<GroupId, (GroupState, Vec<(LogId, EntryPayload)>)>;

/// Appends of every kind over several segments; with and without damage.
pub fn seeds() -> Vec<Seed> {
    let appends: Vec<u8> =
        (0..40_u8).flat_map(|n| [n, n % 3, 1 + n % 3, 40 * (n % 4), n]).collect();
    let with = |count: u8, end: &[u8]| [&[count], &appends[..], end].concat();
    vec![
        ("sound", with(40, &[0])),
        ("flipped", with(40, &[1, 0, 0, 1, 70, 0, 255, 0])),
        ("repaired", with(40, &[1, 0, 0, 1, 96, 0, 1, 1])),
        ("cut", with(30, &[1, 2, 0, 3, 9, 0, 1, 0])),
        ("forged", with(20, &[1, 5, 0, 80, 0, 1, 1, 1])),
    ]
}

/// Checks one log.
///
/// # Panics
/// On a finding.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let files = SimFiles::new(1);
    let mut seen = write(&files, &mut input);
    files.kill();
    let damage = damage(&files, &mut input);
    let stored: BTreeSet<StoredEntry> =
        segments(&files).values().flat_map(|bytes| frames::entries(bytes)).collect();

    let report = inspect::inspect(&files, Path::new(DIR)).expect("a disk that works");
    let Ok(log) = open(&files) else {
        assert!(report.refused.is_some(), "an inspection says what opening would say");
        return;
    };
    assert_eq!(report.refused, None, "an inspection says what opening would say");
    let Some(found) = look(&log) else { return };
    for (group, (_, entries)) in &found {
        for (log_id, payload) in entries {
            let (kind, bytes) = parts(payload);
            let entry = (*group, log_id.term, log_id.index, kind, bytes.to_vec());
            assert!(stored.contains(&entry), "{log_id} of group {group} stands in no file");
        }
    }
    match damage {
        Damage::None => assert_eq!(Some(&found), seen.last(), "a sound log is all there"),
        Damage::OneByte => {
            seen.drain(..seen.len().saturating_sub(2));
            assert!(seen.contains(&found), "one byte costs the last append at most");
        }
        Damage::Torn => assert!(seen.contains(&found), "what was never so: {found:?}"),
        Damage::Repaired => {}
    }
    goes_on(&files, log, found);
}

fn open(files: &SimFiles) -> Result<Log, LogOpenError> {
    Log::open(Arc::new(files.clone()), Path::new(DIR), log_options())
}

/// Appends as the input says; what the log said after each append.
fn write(files: &SimFiles, input: &mut Input<'_>) -> Vec<Seen> {
    let log = open(files).expect("an empty disk");
    let mut seen = vec![look(&log).expect("a sound log")];
    for _ in 0..input.below(APPENDS_MAX) {
        let kind = input.below(16);
        let group = GroupId::from(input.below(GROUPS));
        if kind == 15 {
            log.step_silence();
            continue;
        }
        let appended = log.append_wait(records(&log, kind, group, input));
        let now = look(&log).expect("a sound log");
        if appended.is_ok() {
            seen.push(now);
        } else {
            assert_eq!(seen.last(), Some(&now), "what is refused changes nothing");
        }
    }
    seen
}

fn records(log: &Log, kind: u8, group: GroupId, input: &mut Input<'_>) -> Vec<Record> {
    let state = log.group_state(group);
    let last = state.last.unwrap_or_default();
    let term = last.term + u64::from(input.u8() % 3 == 2);
    let back = u64::from(input.u8() / 16);
    let at = LogId::new(last.term, last.index.saturating_sub(back));
    match kind {
        0..=8 => {
            let count = u64::from(input.u8() % 3);
            let entry = |n: u64| {
                let len = usize::from(input.u8()) * 8;
                let log_id = LogId::new(term, last.index + 1 + n);
                // Every payload differs, so that one entry is never taken for another.
                let text = format!("{group} {log_id} {len} ").repeat(1 + len / 16);
                let payload = match input.u8() % 8 {
                    0 => EntryPayload::Blank,
                    1 => EntryPayload::Membership(Bytes::from(text)),
                    _ => EntryPayload::Commands(Bytes::from(text)),
                };
                Record::Entry { group, log_id, payload }
            };
            (0..=count).map(entry).collect()
        }
        9 => vec![Record::Vote { group, bytes: Bytes::copy_from_slice(input.take(5)) }],
        // With something that is not lazy, so that it is on the disk when this returns.
        10 => vec![Record::Committed { group, log_id: at }, Record::Checkpoint { group, at }],
        11 => vec![Record::Truncate { group, after: (back < 15).then_some(at) }],
        12 => vec![Record::Purge { group, upto: at }],
        13 if back > 8 => vec![Record::Drop { group }],
        _ => vec![Record::Checkpoint { group, at }],
    }
}

/// Everything that a log says of its groups, but for what is committed, which is written lazily; `None`
/// if an entry cannot be read.
fn look(log: &Log) -> Option<Seen> {
    let mut seen = Seen::new();
    for group in log.groups() {
        let state = GroupState { committed: None, ..log.group_state(group) };
        let mut entries = Vec::new();
        if let (Some(mut next), Some(last)) = (state.first, state.last) {
            while next <= last.index {
                let read = log.read(group, next..last.index.saturating_add(1), 1 << 20).ok()?;
                next = read.last().expect("entries up to the last").0.index.checked_add(1)?;
                // Copies, because what was read holds a map of its file.
                entries.extend(read.iter().map(|(log_id, payload)| (*log_id, copied(payload))));
            }
        }
        seen.insert(group, (state, entries));
    }
    Some(seen)
}

fn copied(payload: &EntryPayload) -> EntryPayload {
    let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    match payload {
        EntryPayload::Blank => EntryPayload::Blank,
        EntryPayload::Commands(bytes) => EntryPayload::Commands(copy(bytes)),
        EntryPayload::Membership(bytes) => EntryPayload::Membership(copy(bytes)),
    }
}

fn parts(payload: &EntryPayload) -> (u8, &[u8]) {
    match payload {
        EntryPayload::Blank => (0, &[]),
        EntryPayload::Commands(bytes) => (1, bytes),
        EntryPayload::Membership(bytes) => (2, bytes),
    }
}

/// What was done to the files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Damage {
    None,
    OneByte,
    /// Anything, and the CRCs tell.
    Torn,
    /// Anything, and the CRCs are right.
    Repaired,
}

fn damage(files: &SimFiles, input: &mut Input<'_>) -> Damage {
    let mut segments = segments(files);
    let before = segments.clone();
    let mut damage = Damage::None;
    for _ in 0..input.below(DAMAGES_MAX) {
        let kind = input.below(7);
        damage = match (damage, kind) {
            (Damage::None, 0) => Damage::OneByte,
            _ => Damage::Torn,
        };
        change(&mut segments, kind, input);
    }
    if damage == Damage::None {
        return damage;
    }
    if input.u8() % 2 == 1 {
        damage = Damage::Repaired;
        frames::repair(segments.values_mut(), &log_options().disk_id.unwrap_or_default());
    }
    for (path, bytes) in &before {
        if segments.get(path) != Some(bytes) {
            files.remove(path).expect("it is there");
        }
    }
    for (path, bytes) in &segments {
        if before.get(path) != Some(bytes) {
            put(files, path, bytes);
        }
    }
    files.sync_dir(Path::new(DIR)).expect("a disk that works");
    damage
}

/// Changes one thing in one file.
fn change(segments: &mut BTreeMap<PathBuf, Vec<u8>>, kind: u8, input: &mut Input<'_>) {
    let count = u8::try_from(segments.len()).unwrap_or(u8::MAX);
    let which = usize::from(input.below(count));
    let Some((path, bytes)) = segments.iter_mut().nth(which) else { return };
    let path = path.clone();
    let blocks = u8::try_from(bytes.len() / BLOCK_BYTES).unwrap_or(u8::MAX);
    let block = usize::from(input.below(blocks)) * BLOCK_BYTES;
    let within = usize::from(input.u16()) % BLOCK_BYTES;
    match kind {
        0 | 6 => {
            if let Some(byte) = bytes.get_mut(block + within) {
                *byte ^= input.u8().max(1);
            }
        }
        1 => bytes.iter_mut().skip(block).take(BLOCK_BYTES).for_each(|byte| *byte = 0),
        2 => bytes.truncate(block + within),
        3 => drop(segments.remove(&path)),
        4 => {
            let from = usize::from(input.below(blocks)) * BLOCK_BYTES;
            let copy = bytes.get(from..from + BLOCK_BYTES).map(<[u8]>::to_vec);
            if let (Some(copy), Some(to)) = (copy, bytes.get_mut(block..block + BLOCK_BYTES)) {
                to.copy_from_slice(&copy);
            }
        }
        _ => forge(bytes, block + within, input),
    }
}

/// Writes bytes of the input into the file, over records mostly.
fn forge(bytes: &mut [u8], at: usize, input: &mut Input<'_>) {
    let len = usize::from(input.u8());
    let new = input.take(len);
    if let Some(old) = bytes.get_mut(at..at + new.len()) {
        old.copy_from_slice(new);
    }
}

fn segments(files: &SimFiles) -> BTreeMap<PathBuf, Vec<u8>> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "log");
    let paths = files.paths().into_iter().filter(is_segment);
    paths.map(|path| (path.clone(), files.content(&path).unwrap_or_default())).collect()
}

/// One more entry for every group, and a power cut.
fn goes_on(files: &SimFiles, log: Log, mut found: Seen) {
    for (group, (state, entries)) in &mut found {
        let last = state.last.unwrap_or_default();
        let Some(index) = last.index.checked_add(1) else { return };
        let log_id = LogId::new(last.term, index);
        let payload = EntryPayload::Commands(Bytes::from_static(b"one more"));
        let entry = Record::Entry { group: *group, log_id, payload: payload.clone() };
        log.append_wait(vec![entry]).expect("a log that opened goes on");
        state.first.get_or_insert(index);
        state.last = Some(log_id);
        entries.push((log_id, payload));
    }
    drop(log);
    files.power_cut();
    let log = open(files).expect("what went on opens");
    assert_eq!(look(&log), Some(found), "what went on is all there");
}
