//! A shard on a disk that never fails: what the same log makes of the state.

use std::path::Path;
use std::sync::Arc;

use switchboard_engine::fs::{
    Files,
    sim::{Random, SimFiles},
};
use switchboard_engine::log::{Log, LogOptions, Record, WriteMethod, WriterMode};
use switchboard_engine::{
    Command, EntryBuilder, EntryPayload, GroupId, LogId, Reply, Shard, ShardOptions,
};

pub(crate) struct Reference {
    group: GroupId,
    log: Log,
    pub(crate) shard: Shard,
}

impl Reference {
    pub(crate) fn new(group: GroupId) -> Self {
        let files: Arc<dyn Files> = Arc::new(SimFiles::new(0));
        let dir = Path::new("/reference");
        let log = Log::open(files.clone(), dir, log_options()).expect("no fault was planned");
        let shard = Shard::open(log.clone(), files, dir, group, ShardOptions::default());
        Self { group, log, shard: shard.expect("no fault was planned") }
    }

    pub(crate) fn apply(&self, at: LogId, payload: &EntryPayload) -> Vec<Reply> {
        let entry = Record::Entry { group: self.group, log_id: at, payload: payload.clone() };
        self.log.append_wait(vec![entry]).expect("no fault was planned");
        self.shard.apply(at, payload).expect("an entry that was made by an entry builder")
    }

    pub(crate) fn hash(&self) -> (LogId, u128) {
        self.shard.state_hash()
    }
}

/// Written past the page cache or through it, as chance decides.
pub(crate) fn any_method(random: &mut Random) -> LogOptions {
    let method = if random.one_in(2) { WriteMethod::Direct } else { WriteMethod::Buffered };
    LogOptions { method, ..log_options() }
}

/// Segments as small as they may be, no thread.
pub(crate) fn log_options() -> LogOptions {
    LogOptions {
        segment_bytes: 32 * 1024,
        recent_bytes_max: 0,
        reserve_bytes: 0,
        disk_id: Some([1; 16]),
        writer: WriterMode::Stepped,
        ..LogOptions::default()
    }
}

pub(crate) fn payload(stamp_ms: u64, commands: &[Command]) -> EntryPayload {
    let mut entry = EntryBuilder::new(stamp_ms);
    for command in commands {
        entry.push(command).expect("the commands of a test fit an entry");
    }
    EntryPayload::Commands(entry.finish())
}
