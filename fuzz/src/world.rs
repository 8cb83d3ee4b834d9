//! One group on a simulated disk, driven entry by entry.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use switchboard_engine::{
    Ack, Claim, Command, DeviceId, Enqueue, EntryBuilder, EntryPayload, GroupId, ImportError, Init,
    LogId, MessageKind, Reply, Rules, Shard, ShardOpenError, ShardOptions,
    fs::{Files, OpenMode, sim::SimFiles},
    log::{Log, LogOptions, Record, WriterMode},
};

pub(crate) const GROUP: GroupId = 1;
pub(crate) const DIR: &str = "/data";
pub(crate) const START_MS: u64 = 1_700_000_000_000;
const TERM: u64 = 1;

/// The smallest segments, so that little data fills many, and no thread.
pub(crate) fn log_options() -> LogOptions {
    LogOptions {
        segment_bytes: 32 * 1024,
        writer: WriterMode::Stepped,
        reserve_bytes: 0,
        disk_id: Some([9; 16]),
        ..LogOptions::default()
    }
}

/// Puts a file on a disk, durably.
pub(crate) fn put(files: &SimFiles, path: &Path, bytes: &[u8]) {
    let dir = path.parent().expect("a path in a directory");
    files.create_dir_all(dir).expect("make the directory");
    let file = files.open(path, OpenMode::CreateNew).expect("create the file");
    file.write_at(bytes, 0).expect("write the file");
    file.sync_data().expect("sync the file");
    files.sync_dir(dir).expect("sync the directory");
}

/// A log, and the shard that its entries are applied to.
pub(crate) struct World {
    pub(crate) files: SimFiles,
    pub(crate) log: Log,
    pub(crate) shard: Shard,
    pub(crate) now_ms: u64,
}

impl World {
    /// Opens what is on a disk; only the shard may refuse.
    pub(crate) fn open(files: SimFiles) -> Result<Self, ShardOpenError> {
        let shared: Arc<dyn Files> = Arc::new(files.clone());
        let log = Log::open(shared.clone(), Path::new(DIR), log_options()).expect("a sound log");
        let options = ShardOptions { purge_after_checkpoint: true };
        let shard = Shard::open(log.clone(), shared, Path::new(DIR), GROUP, options)?;
        let now_ms = shard.log_time_ms().max(START_MS);
        Ok(Self { files, log, shard, now_ms })
    }

    /// An empty disk, and a group that has begun on it.
    pub(crate) fn begin(rules: Rules) -> Self {
        let mut world = Self::open(SimFiles::new(1)).expect("an empty disk");
        let init = Command::Init(Init { generation: 0, dedup_key: [7; 16], rules });
        world.one(init);
        world
    }

    /// Ends the process, by a kill or with the power, and opens the disk again.
    pub(crate) fn reopened(self, is_power_cut: bool) -> Result<Self, ShardOpenError> {
        let Self { files, log, shard, .. } = self;
        drop((log, shard));
        if is_power_cut {
            files.power_cut()
        } else {
            files.kill()
        }
        Self::open(files)
    }

    /// Makes an entry durable and committed at the next index, and applies it.
    pub(crate) fn propose(&mut self, commands: &[Command]) -> Vec<Reply> {
        let mut entry = EntryBuilder::new(self.now_ms);
        for command in commands {
            entry.push(command).expect("it fits");
        }
        let payload = EntryPayload::Commands(entry.finish());
        let last = self.shard.applied().unwrap_or_default();
        let log_id = LogId::new(TERM.max(last.term), last.index + 1);
        self.append(log_id, payload).expect("an entry that can be applied")
    }

    /// The same for any entry; `None` if log or shard refuse it.
    pub(crate) fn append(&self, log_id: LogId, payload: EntryPayload) -> Option<Vec<Reply>> {
        let entry = Record::Entry { group: GROUP, log_id, payload: payload.clone() };
        let committed = Record::Committed { group: GROUP, log_id };
        self.log.append_wait(vec![entry, committed]).ok()?;
        self.shard.apply(log_id, &payload).ok()
    }

    pub(crate) fn one(&mut self, command: Command) -> Reply {
        self.propose(&[command]).pop().expect("a reply for each command")
    }

    /// The state as a stream; `None` if a body cannot be had.
    pub(crate) fn export(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.shard.export(&mut bytes).ok()?;
        Some(bytes)
    }
}

impl World {
    /// Takes an export, and lets the log begin after it, as the owner of a log does.
    pub(crate) fn import(&self, export: &[u8]) -> Result<(), ImportError> {
        self.shard.import(&mut &export[..])?;
        let upto = self.shard.applied().expect("an import has a last entry");
        let nothing = Record::Truncate { group: GROUP, after: None };
        let purge = Record::Purge { group: GROUP, upto };
        self.log.append_wait(vec![nothing, purge]).expect("a log that works");
        Ok(())
    }
}

pub(crate) fn enqueue(to: &DeviceId, number: u64, body: &[u8]) -> Enqueue {
    Enqueue {
        to_user: to.user.clone(),
        to_device: to.device,
        message_id: u128::from(number).to_le_bytes(),
        from: DeviceId::new("sender", 1),
        ttl_ms: 0,
        kind: MessageKind::Content,
        body: Bytes::copy_from_slice(body),
    }
}

pub(crate) fn claim(device: &DeviceId, connection_id: u64, push_token: &'static [u8]) -> Command {
    Command::Claim(Claim {
        device: device.clone(),
        gateway_id: 1,
        incarnation: 1,
        connection_id,
        push_token: Bytes::from_static(push_token),
    })
}

pub(crate) fn ack(device: &DeviceId, epoch: u64, up_to_seq: u64, seqs: Vec<u64>) -> Command {
    Command::Ack(Ack { device: device.clone(), epoch, up_to_seq, seqs })
}

/// A world with a bit of everything in it, old and young, for seeds.
pub(crate) fn furnished() -> World {
    let rules = Rules { dedup_horizon_ms: 1_000, ..Rules::default() };
    let mut world = World::begin(rules);
    let (one, two) = (DeviceId::new("ann", 1), DeviceId::new("ann", 2));
    let long = DeviceId::new("a user with a name that does not fit into a small slot", 1);
    world.propose(&[claim(&one, 1, b""), claim(&two, 2, b"token"), claim(&long, 3, b"")]);
    let to_all = DeviceId::new("ann", 0);
    world.propose(&[
        Command::Enqueue(enqueue(&to_all, 1, b"to all devices")),
        Command::Enqueue(Enqueue { kind: MessageKind::Receipt, ..enqueue(&one, 2, b"") }),
        Command::Enqueue(enqueue(&long, 3, &[3; 300])),
    ]);
    let membership = EntryPayload::Membership(Bytes::from_static(b"membership"));
    world.append(LogId::new(TERM, 3), membership.clone());
    world.shard.checkpoint().expect("a checkpoint");
    world.now_ms += 200;
    let brief = Enqueue { ttl_ms: 50, ..enqueue(&one, 4, b"brief") };
    world.propose(&[Command::Enqueue(brief), Command::Enqueue(enqueue(&two, 5, b"young"))]);
    world.now_ms += 100;
    world.propose(&[Command::Tick]);
    world
}
