//! A group on a simulated disk, driven entry by entry.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use switchboard_engine::{
    Ack, Claim, Claimed, Command, DeviceId, Enqueue, Enqueued, EntryBuilder, EntryPayload, GroupId,
    Init, LogId, MessageKind, Page, Release, Reply, Rules, Shard, ShardOpenError, ShardOptions,
    fs::{Files, sim::SimFiles},
    log::{Log, LogOptions, Record, WriterMode},
};

pub(crate) const GROUP: GroupId = 1;
pub(crate) const START_MS: u64 = 1_700_000_000_000;

/// One replica of a group.
pub(crate) struct Replica {
    pub(crate) files: SimFiles,
    pub(crate) log: Log,
    pub(crate) shard: Shard,
    pub(crate) options: ShardOptions,
    group: GroupId,
}

impl Replica {
    pub(crate) fn new(seed: u64, options: ShardOptions) -> Self {
        Self::open(SimFiles::new(seed), GROUP, options)
    }

    /// One that may be of the meta group.
    pub(crate) fn of_group(seed: u64, group: GroupId) -> Self {
        Self::open(SimFiles::new(seed), group, ShardOptions::default())
    }

    /// Opens the shard once more beside itself: what would a restart say?
    pub(crate) fn open_again(&self) -> Result<Shard, ShardOpenError> {
        let files = Arc::new(self.files.clone());
        Shard::open(self.log.clone(), files, Path::new("/data"), self.group, self.options)
    }

    /// Opens what is on the disk.
    pub(crate) fn open(files: SimFiles, group: GroupId, options: ShardOptions) -> Self {
        let shared: Arc<dyn Files> = Arc::new(files.clone());
        let log_options = LogOptions {
            segment_bytes: 256 * 1024,
            writer: WriterMode::Stepped,
            reserve_bytes: 0,
            ..LogOptions::default()
        };
        let log = Log::open(shared.clone(), Path::new("/data"), log_options).expect("log");
        let shard = Shard::open(log.clone(), shared, Path::new("/data"), group, options);
        Self { files, log, shard: shard.expect("shard"), options, group }
    }

    /// Stops as a killed process does and opens again.
    pub(crate) fn reopened(self) -> Self {
        let Self { files, log, shard, options, group } = self;
        drop((log, shard));
        files.kill();
        Self::open(files, group, options)
    }

    /// Stops as a machine without power does and opens again.
    pub(crate) fn after_power_cut(self) -> Self {
        let Self { files, log, shard, options, group } = self;
        drop((log, shard));
        files.power_cut();
        Self::open(files, group, options)
    }

    /// Makes an entry durable and committed, and applies it.
    pub(crate) fn append(&self, at: LogId, payload: &EntryPayload) -> Vec<Reply> {
        let entry = Record::Entry { group: self.group, log_id: at, payload: payload.clone() };
        let committed = Record::Committed { group: self.group, log_id: at };
        self.log.append_wait(vec![entry, committed]).expect("append");
        self.shard.apply(at, payload).expect("apply")
    }

    pub(crate) fn fetch(&self, device: &DeviceId) -> Page {
        self.shard.fetch(device, 0, 1_024, 4 << 20).expect("fetch")
    }
}

/// A log of its own, applied to one or more replicas.
pub(crate) struct Driver {
    pub(crate) now_ms: u64,
    index: u64,
}

impl Driver {
    /// A log that is empty.
    pub(crate) fn new() -> Self {
        Self { now_ms: START_MS, index: 0 }
    }
    /// Goes on behind a state that was restored.
    pub(crate) fn skip_to(&mut self, replica: &Replica) {
        let upto = replica.shard.applied().expect("something was applied");
        let purge = Record::Purge { group: replica.group, upto };
        replica.log.append_wait(vec![purge]).expect("append");
        self.index = upto.index;
    }

    /// Begins the group.
    pub(crate) fn begin(replicas: &[&Replica], rules: Rules) -> Self {
        let mut driver = Self::new();
        let init = Command::Init(Init { generation: 0, dedup_key: [7; 16], rules });
        driver.propose(replicas, &[init]);
        driver
    }

    /// Appends one entry to every replica; all must answer the same.
    pub(crate) fn propose(&mut self, replicas: &[&Replica], commands: &[Command]) -> Vec<Reply> {
        let mut entry = EntryBuilder::new(self.now_ms);
        for command in commands {
            entry.push(command).expect("fits");
        }
        self.index += 1;
        let at = LogId::new(1, self.index);
        let payload = EntryPayload::Commands(entry.finish());
        let mut answers = replicas.iter().map(|replica| replica.append(at, &payload));
        let first = answers.next().expect("a replica");
        for other in answers {
            assert_eq!(first, other, "two replicas answer differently");
        }
        first
    }

    pub(crate) fn one(&mut self, replicas: &[&Replica], command: Command) -> Reply {
        self.propose(replicas, &[command]).remove(0)
    }
}

pub(crate) fn device(user: &str, number: u16) -> DeviceId {
    DeviceId::new(Bytes::copy_from_slice(user.as_bytes()), number)
}

pub(crate) fn id(number: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    id
}

pub(crate) fn enqueue(to: &str, to_device: u16, number: u64, body: impl Into<Bytes>) -> Command {
    Command::Enqueue(Enqueue {
        to_user: Bytes::copy_from_slice(to.as_bytes()),
        to_device,
        message_id: id(number),
        from: device("sender", 1),
        ttl_ms: 0,
        kind: MessageKind::Content,
        body: body.into(),
    })
}

pub(crate) fn claim(device: &DeviceId, connection_id: u64) -> Command {
    Command::Claim(Claim {
        device: device.clone(),
        gateway_id: 1,
        incarnation: 1,
        connection_id,
        push_token: Bytes::new(),
    })
}

pub(crate) fn release(device: &DeviceId, epoch: u64) -> Command {
    Command::Release(Release { device: device.clone(), epoch })
}

pub(crate) fn ack(device: &DeviceId, epoch: u64, up_to_seq: u64) -> Command {
    Command::Ack(Ack { device: device.clone(), epoch, up_to_seq, seqs: Vec::new() })
}

pub(crate) fn enqueued(reply: Reply) -> Enqueued {
    let Reply::Enqueued(reply) = reply else { panic!("no enqueue: {reply:?}") };
    reply
}

pub(crate) fn claimed(reply: Reply) -> Claimed {
    let Reply::Claimed(reply) = reply else { panic!("no claim: {reply:?}") };
    reply
}
