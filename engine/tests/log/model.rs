//! What the log must do, said again with a `BTreeMap` per group, and random things to do to it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use switchboard_engine::fs::sim::Random;
use switchboard_engine::log::{GroupState, Log, Record};
use switchboard_engine::{EntryPayload, GroupId, LogId};

#[derive(Clone, Debug, Default, PartialEq)]
struct Group {
    state: GroupState,
    entries: BTreeMap<u64, (u64, EntryPayload)>,
}

/// The groups of a log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    groups: BTreeMap<GroupId, Group>,
}

impl Model {
    pub(crate) fn apply(&mut self, records: &[Record]) {
        for record in records {
            self.apply_one(record);
        }
    }

    /// What the log must say of a group.
    #[allow(dead_code, reason = "not all tests that share the model ask")]
    pub(crate) fn state(&self, id: GroupId) -> GroupState {
        self.groups.get(&id).map(|group| group.state.clone()).unwrap_or_default()
    }

    /// The log id of an entry that the log must have.
    #[allow(dead_code, reason = "not all tests that share the model ask")]
    pub(crate) fn log_id_at(&self, id: GroupId, index: u64) -> Option<LogId> {
        let (term, _) = self.groups.get(&id)?.entries.get(&index)?;
        Some(LogId::new(*term, index))
    }

    fn group(&mut self, id: GroupId) -> &mut Group {
        let group = self.groups.entry(id).or_default();
        group.state.life = group.state.life.max(1);
        group
    }

    fn apply_one(&mut self, record: &Record) {
        match record.clone() {
            Record::Entry { group, log_id, payload } => {
                let group = self.group(group);
                group.entries.insert(log_id.index, (log_id.term, payload));
                group.state.last = Some(log_id);
            }
            Record::Vote { group, bytes } => self.group(group).state.vote = Some(bytes),
            Record::Committed { group, log_id } => {
                self.group(group).state.committed = Some(log_id);
            }
            Record::Checkpoint { group, at } => self.group(group).state.checkpoint = Some(at),
            Record::Truncate { group, after } => {
                let group = self.group(group);
                group.entries.retain(|index, _| after.is_some_and(|after| *index <= after.index));
                group.state.last = group.last_entry().or(group.state.purged);
            }
            Record::Purge { group, upto } => {
                let group = self.group(group);
                if group.state.purged.is_none_or(|purged| purged.index < upto.index) {
                    group.entries.retain(|index, _| *index > upto.index);
                    group.state.purged = Some(upto);
                    group.state.last = group.last_entry().or(Some(upto));
                }
            }
            Record::Drop { group } => {
                let group = self.group(group);
                let life = group.state.life + 1;
                *group = Group {
                    state: GroupState { life, ..GroupState::default() },
                    ..Group::default()
                };
            }
        }
        for group in self.groups.values_mut() {
            group.state.first = group.entries.keys().next().copied();
        }
    }

    /// Why a log is not this model, if it isn't. How far it is committed is compared only for being
    /// something that was said, because that record is lazy.
    pub(crate) fn differs(&self, log: &Log, said: &[Record]) -> Option<String> {
        // A lazy record alone makes a group known, or not.
        let ids: BTreeSet<GroupId> = self.groups.keys().copied().chain(log.groups()).collect();
        for id in &ids {
            let group = self.groups.get(id).cloned().unwrap_or_default();
            let mut state = log.group_state(*id);
            state.life = state.life.max(1);
            if let Some(log_id) = state.committed
                && !said.contains(&Record::Committed { group: *id, log_id })
            {
                return Some(format!("group {id} is committed up to {log_id}, never said"));
            }
            state.committed = group.state.committed;
            if state != (GroupState { life: group.state.life.max(1), ..group.state.clone() }) {
                return Some(format!("group {id} is {state:?}, expected {:?}", group.state));
            }
            if let Some(difference) = group.differs(*id, log) {
                return Some(difference);
            }
        }
        None
    }
}

impl Group {
    fn last_entry(&self) -> Option<LogId> {
        let (index, (term, _)) = self.entries.last_key_value()?;
        Some(LogId::new(*term, *index))
    }

    fn differs(&self, id: GroupId, log: &Log) -> Option<String> {
        let (first, last) = (self.entries.keys().next()?, self.entries.keys().next_back()?);
        let expected: Vec<_> = self
            .entries
            .iter()
            .map(|(index, (term, payload))| (LogId::new(*term, *index), payload.clone()))
            .collect();
        let read = match log.read(id, *first..*last + 1, usize::MAX) {
            Ok(read) => read,
            Err(error) => return Some(format!("group {id}: {error}")),
        };
        let wrong = expected.iter().zip(&read).find(|(expected, read)| expected != read);
        if read.len() != expected.len() || wrong.is_some() {
            let got = read.len();
            return Some(format!("group {id}: {got} of {} entries, {wrong:?}", expected.len()));
        }
        None
    }
}

/// Records that may be appended to the model as it is.
pub(crate) fn random_records(model: &Model, random: &mut Random) -> Vec<Record> {
    let group = random.below(4) as GroupId;
    let default = Group::default();
    let known = model.groups.get(&group).unwrap_or(&default);
    let last = known.state.last.map_or_else(|| random.below(3), |last| last.index + 1);
    match random.below(12) {
        0 => vec![Record::Vote { group, bytes: random_bytes(random, 40) }],
        1 => vec![Record::Committed { group, log_id: LogId::new(1, random.next()) }],
        2 => vec![Record::Truncate { group, after: any_entry(known, random) }],
        3 if known.entries.is_empty() => {
            vec![Record::Purge { group, upto: LogId::new(1, last + random.below(5)) }]
        }
        3 | 4 => {
            let Some(upto) = any_entry(known, random) else { return Vec::new() };
            vec![Record::Checkpoint { group, at: upto }, Record::Purge { group, upto }]
        }
        5 if random.one_in(10) => vec![Record::Drop { group }],
        _ => {
            let count = 1 + random.below(4);
            let entries = (0..count).map(|nth| Record::Entry {
                group,
                log_id: LogId::new(1 + random.below(5), last + nth),
                payload: random_payload(random),
            });
            entries.collect()
        }
    }
}

/// Four such records fit into one frame of the small segments used, so they are durable together.
const RECORD_BYTES_MAX: u64 = 3_900;

fn any_entry(group: &Group, random: &mut Random) -> Option<LogId> {
    let nth = random.below(group.entries.len() as u64 + 1) as usize;
    let (index, (term, _)) = group.entries.iter().nth(nth)?;
    Some(LogId::new(*term, *index))
}

fn random_payload(random: &mut Random) -> EntryPayload {
    match random.below(8) {
        0 => EntryPayload::Blank,
        1 => EntryPayload::Membership(random_bytes(random, 100)),
        2 => EntryPayload::Commands(random_bytes(random, RECORD_BYTES_MAX)),
        _ => EntryPayload::Commands(random_bytes(random, 600)),
    }
}

fn random_bytes(random: &mut Random, max: u64) -> Bytes {
    let len = random.below(max) as usize;
    let mut bytes = vec![random.next() as u8; len];
    if let Some(first) = bytes.first_mut() {
        *first = random.next() as u8;
    }
    Bytes::from(bytes)
}
