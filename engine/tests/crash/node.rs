//! A node as Raft uses one: one log, several groups, some of them with a shard.
//!
//! Groups 0 to 3 are logs and nothing else, which are voted in, cut, purged and dropped at random.
//! The groups above have a shard each: entries of rising terms, of which an uncommitted tail may be
//! cut; what is committed is applied, checkpointed, and purged later, by another hand. Many appends are
//! under way at once. After a crash the log must be at one point of its history that is no earlier
//! than what was acknowledged, and each shard, once it has applied what was committed, must hash as
//! one that never crashed.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use switchboard_engine::fs::Files;
use switchboard_engine::fs::sim::{Random, SimFiles};
use switchboard_engine::log::{Log, PinnedEntry, Record};
use switchboard_engine::{
    CheckpointError, Command, EntryPayload, GroupId, Init, LogId, Rules, Shard, ShardOptions,
};

use crate::aim::Aim;
use crate::model::{Model, random_records};
use crate::reference::{Reference, any_method, payload};
use crate::runs::{Failure, World};
use crate::workload::{Taste, Workload, devices, pause_ms};

/// Groups with a shard; below them are groups that are a log only.
const SHARDS: [GroupId; 2] = [4, 5];
const DIR: &str = "/node";
const START_MS: u64 = 1_700_000_000_000;

/// A group with a shard.
struct Group {
    shard: Option<Shard>,
    /// Has applied what is committed, on a disk that never fails.
    reference: Reference,
    committed: u64,
    term: u64,
    /// Whether the command that begins it was proposed.
    begun: bool,
}

pub(crate) struct NodeWorld {
    disk: SimFiles,
    aim: Aim,
    random: Random,
    now_ms: u64,
    workload: Workload,
    log: Option<Log>,
    groups: BTreeMap<GroupId, Group>,
    /// What is durable for sure.
    durable: Model,
    /// What was appended after that, in order, not known to be durable.
    pending: VecDeque<Vec<Record>>,
    /// `durable` with all that is pending.
    appended: Model,
    completed: Arc<AtomicUsize>,
    /// Every commit that was ever said: it is durable or not.
    said: Vec<Record>,
    /// Entries that a reader keeps, whatever is purged, and what they were.
    held: Vec<(PinnedEntry, EntryPayload)>,
    /// Whether a reader lets go of them at some time. While it does not, segments are made anew
    /// although old ones are there, which only the next process can use again.
    lets_go: bool,
}

impl World for NodeWorld {
    fn new(seed: u64) -> Self {
        let group = |id| {
            let reference = Reference::new(id);
            (id, Group { shard: None, reference, committed: 0, term: 1, begun: false })
        };
        Self {
            disk: SimFiles::new(seed),
            aim: Aim::new(),
            random: Random::new(seed ^ 0x0d0e),
            now_ms: START_MS,
            workload: Workload::default(),
            log: None,
            groups: SHARDS.into_iter().map(group).collect(),
            durable: Model::default(),
            pending: VecDeque::new(),
            appended: Model::default(),
            completed: Arc::default(),
            said: Vec::new(),
            held: Vec::new(),
            lets_go: true,
        }
    }

    fn disk(&self) -> &SimFiles {
        &self.disk
    }

    fn aim(&self) -> &Aim {
        &self.aim
    }

    fn close(&mut self) {
        self.held.clear();
        self.groups.values_mut().for_each(|group| group.shard = None);
        self.log = None;
    }

    fn open(&mut self) -> Result<(), Failure> {
        let files: Arc<dyn Files> = Arc::new(self.disk.clone());
        let opened = Log::open(files.clone(), Path::new(DIR), any_method(&mut self.random));
        if self.disk.is_down() {
            return Err(Failure::Down);
        }
        let log = opened.map_err(|error| Failure::wrong(format!("does not open: {error}")))?;
        self.find(&log)?;
        for id in SHARDS {
            let options = ShardOptions::default();
            let opened = Shard::open(log.clone(), files.clone(), Path::new(DIR), id, options);
            if self.disk.is_down() {
                return Err(Failure::Down);
            }
            let shard = opened
                .map_err(|error| Failure::wrong(format!("group {id} does not open: {error}")))?;
            self.catch_up(&log, id, &shard)?;
            self.groups.entry(id).and_modify(|group| group.shard = Some(shard));
        }
        self.log = Some(log);
        self.lets_go = self.random.one_in(2);
        self.aim.opened();
        Ok(())
    }

    fn act(&mut self) -> Result<(), Failure> {
        self.now_ms += pause_ms(&mut self.random);
        let id = SHARDS[self.random.below(SHARDS.len() as u64) as usize];
        match self.random.below(32) {
            0..7 => self.propose(id),
            7..13 => self.commit(id)?,
            13..16 => {
                let records = random_records(&self.appended, &mut self.random);
                self.append(records);
            }
            16 => self.elect(id),
            17 => self.checkpoint(id)?,
            18 | 19 => self.purge(id),
            20 => self.hold(id)?,
            21 => self.log().step_silence(),
            _ => {
                self.log().step();
            }
        }
        self.settle()?;
        self.check_held()?;
        if self.disk.is_down() {
            return Err(Failure::Down);
        }
        if self.log().stats().closed {
            return Err(Failure::wrong("the log is closed though nothing happened"));
        }
        Ok(())
    }
}

impl NodeWorld {
    fn log(&self) -> &Log {
        self.log.as_ref().expect("opened before it is used")
    }

    fn group(&mut self, id: GroupId) -> &mut Group {
        self.groups.get_mut(&id).expect("one of the groups with a shard")
    }

    /// The log must be what is durable with the first so many of what was pending.
    fn find(&mut self, log: &Log) -> Result<(), Failure> {
        let mut differences = Vec::new();
        while let Some(difference) = self.durable.differs(log, &self.said) {
            differences.push(difference);
            let Some(records) = self.pending.pop_front() else {
                let what = format!("the log is at no point of its history: {differences:#?}");
                return Err(Failure::wrong(what));
            };
            self.durable.apply(&records);
        }
        self.pending.clear();
        self.completed.store(0, Ordering::Relaxed);
        self.appended = self.durable.clone();
        Ok(())
    }

    /// A shard that was opened knows of at most what was committed; with the rest of it, it is what
    /// the reference is.
    fn catch_up(&mut self, log: &Log, id: GroupId, shard: &Shard) -> Result<(), Failure> {
        let Group { reference, committed, .. } = &self.groups[&id];
        let next = shard.applied().map_or(1, |at| at.index + 1);
        if next > committed + 1 {
            return Err(Failure::wrong(format!("group {id} has applied more than was committed")));
        }
        for index in next..=*committed {
            let read = log.read(id, index..index + 1, usize::MAX);
            let read = read.map_err(|error| Failure::wrong(format!("group {id}: {error}")))?;
            let Some((at, payload)) = read.first() else {
                return Err(Failure::wrong(format!("group {id} has no entry {index}")));
            };
            let applied = shard.apply(*at, payload);
            applied.map_err(|error| Failure::wrong(format!("group {id}, {index}: {error}")))?;
        }
        if *committed > 0 && shard.state_hash() != reference.hash() {
            let (found, expected) = (shard.state_hash(), reference.hash());
            let what = format!("the state of group {id} is {found:?} instead of {expected:?}");
            return Err(Failure::wrong(what));
        }
        for device in devices() {
            let found = shard.fetch(&device, 0, 1_024, usize::MAX);
            let found = found.map_err(|error| Failure::wrong(format!("{device:?}: {error}")))?;
            let expected = reference.shard.fetch(&device, 0, 1_024, usize::MAX);
            if found != expected.expect("the reference reads") {
                return Err(Failure::wrong(format!("{device:?} of group {id} gets {found:#?}")));
            }
        }
        Ok(())
    }

    fn append(&mut self, records: Vec<Record>) {
        self.appended.apply(&records);
        let is_commit = |record: &&Record| matches!(record, Record::Committed { .. });
        self.said.extend(records.iter().filter(is_commit).cloned());
        if !records.is_empty() && records.iter().all(|record| is_commit(&record)) {
            // Promised to nobody: it is no part of what must become durable in order.
            self.log().append(records, Box::new(|_| {}));
            return;
        }
        self.pending.push_back(records.clone());
        let completed = self.completed.clone();
        let count = move |result: Result<(), _>| {
            if result.is_ok() {
                completed.fetch_add(1, Ordering::Relaxed);
            }
        };
        self.log().append(records, Box::new(count));
    }

    /// Takes what was acknowledged to what must be durable.
    fn settle(&mut self) -> Result<(), Failure> {
        for _ in 0..self.completed.swap(0, Ordering::Relaxed) {
            let records = self.pending.pop_front();
            let records = records.ok_or_else(|| Failure::wrong("a completion too many"))?;
            self.durable.apply(&records);
        }
        Ok(())
    }

    /// Appends a few entries to a group, sometimes with a vote before them.
    fn propose(&mut self, id: GroupId) {
        let last = self.appended.state(id).last.map_or(0, |last| last.index);
        let mut records = Vec::new();
        for nth in 1..=1 + self.random.below(2) {
            let commands = if std::mem::replace(&mut self.group(id).begun, true) && last + nth > 1 {
                let shard = &self.groups[&id].reference.shard;
                self.workload.commands(shard, Taste::Shard, &mut self.random)
            } else {
                let rules = Rules::default();
                vec![Command::Init(Init { generation: 0, dedup_key: [7; 16], rules })]
            };
            let payload = payload(self.now_ms, &commands);
            let log_id = LogId::new(self.group(id).term, last + nth);
            records.push(Record::Entry { group: id, log_id, payload });
        }
        self.append(records);
    }

    /// Commits some of what is durable, and applies it.
    fn commit(&mut self, id: GroupId) -> Result<(), Failure> {
        let from = self.group(id).committed;
        // What is durable counts only as far as nothing that is queued has replaced it.
        let last = self.appended.state(id).last.map_or(0, |last| last.index);
        let is_durable = |index: &u64| {
            let durable = self.durable.log_id_at(id, *index);
            durable.is_some() && durable == self.appended.log_id_at(id, *index)
        };
        let durable = (from + 1..=last).take_while(is_durable).last().unwrap_or(from);
        let to = from + self.random.below(durable - from + 1);
        for index in from + 1..=to {
            let read = self.log().read(id, index..index + 1, usize::MAX);
            let read = match read {
                Ok(read) => read,
                Err(_) if self.disk.is_down() => return Err(Failure::Down),
                Err(error) => return Err(Failure::wrong(format!("group {id}: {error}"))),
            };
            let Some((at, payload)) = read.first() else {
                return Err(Failure::wrong(format!("entry {index} of group {id} is gone")));
            };
            let Group { shard, reference, committed, .. } = self.group(id);
            *committed = index;
            let expected = reference.apply(*at, payload);
            let applied = shard.as_ref().expect("opened before it is used").apply(*at, payload);
            let answers = applied.map_err(|e| Failure::wrong(format!("group {id}: {e}")))?;
            if answers != expected {
                let what = format!("group {id}, {at}: {answers:?} instead of {expected:?}");
                return Err(Failure::wrong(what));
            }
            if index == to {
                let record = Record::Committed { group: id, log_id: *at };
                self.append(vec![record]);
            }
        }
        Ok(())
    }

    /// A vote in a new term; its leader cuts what it does not have.
    fn elect(&mut self, id: GroupId) {
        let Group { term, committed, .. } = self.group(id);
        *term += 1;
        let (term, committed) = (*term, *committed);
        let vote = Bytes::copy_from_slice(&term.to_le_bytes());
        self.append(vec![Record::Vote { group: id, bytes: vote }]);
        let last = self.appended.state(id).last.map_or(0, |last| last.index);
        if last > committed && self.random.one_in(2) {
            let keep = committed + self.random.below(last - committed);
            let after = self.log().log_id_at(id, keep);
            self.append(vec![Record::Truncate { group: id, after }]);
        }
    }

    fn checkpoint(&mut self, id: GroupId) -> Result<(), Failure> {
        let shard = self.groups[&id].shard.as_ref().expect("opened before it is used");
        let Some(at) = shard.applied() else { return Ok(()) };
        if shard.checkpoint_meta().is_some_and(|done| done.at >= at) {
            return Ok(());
        }
        // The mark goes through the queue like everything else, so all before it becomes durable.
        let mark = vec![Record::Checkpoint { group: id, at }];
        self.appended.apply(&mark);
        self.pending.push_back(mark);
        match shard.checkpoint() {
            Ok(_) => {
                self.settle()?;
                let mark = self.pending.pop_front();
                let mark = mark.ok_or_else(|| Failure::wrong("a completion too many"))?;
                self.durable.apply(&mark);
                Ok(())
            }
            Err(_) if self.disk.is_down() => Err(Failure::Down),
            Err(CheckpointError::Empty) => Err(Failure::wrong("nothing was applied")),
            Err(error) => Err(Failure::wrong(format!("group {id}: {error}"))),
        }
    }

    /// Purges up to some entry that is in the checkpoint.
    fn purge(&mut self, id: GroupId) {
        let shard = self.groups[&id].shard.as_ref().expect("opened before it is used");
        let Some(checkpoint) = shard.checkpoint_meta() else { return };
        let state = self.appended.state(id);
        let Some(first) = state.first.filter(|first| *first <= checkpoint.at.index) else { return };
        let index = first + self.random.below(checkpoint.at.index - first + 1);
        if let Some(upto) = self.log().log_id_at(id, index) {
            self.append(vec![Record::Purge { group: id, upto }]);
        }
    }

    /// Keeps an entry, or lets go of all that are kept.
    fn hold(&mut self, id: GroupId) -> Result<(), Failure> {
        if self.held.len() > 3 {
            if !self.lets_go {
                return Ok(());
            }
            self.held.clear();
        }
        let Some(first) = self.appended.state(id).first else { return Ok(()) };
        let read = self.log().read(id, first..first + 1, usize::MAX);
        let held = self.log().pin_entry(id, first);
        match (held, read.as_deref()) {
            (Ok(held), Ok([(_, payload)])) => self.held.push((held, payload.clone())),
            _ if self.disk.is_down() => return Err(Failure::Down),
            (held, read) => {
                return Err(Failure::wrong(format!("entry {first} is lost: {held:?}, {read:?}")));
            }
        }
        Ok(())
    }

    fn check_held(&mut self) -> Result<(), Failure> {
        if self.disk.is_down() {
            return Ok(());
        }
        for (held, expected) in &self.held {
            let found = held.payload();
            if found.as_ref().ok() != Some(expected) {
                return Err(Failure::wrong(format!("{held:?} is kept and yet {found:?}")));
            }
        }
        Ok(())
    }
}
