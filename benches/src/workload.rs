//! The work that every row and every peer is given.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use switchboard_engine::{
    Claim, Command, DeviceId, Enqueue, EntryBuilder, EntryPayload, GroupId, Init, LogId,
    MessageKind, PRIMARY_DEVICE, PushError, Reply, Rules, Shard, ShardOptions,
    fs::{Files, RealFiles},
    group_of_shard,
    log::{Log, LogOptions, Record},
};

/// The group of the embedded store, so that what is prepared here can be opened by it.
pub const GROUP: GroupId = group_of_shard(0);
/// Stamps of prepared entries: some day in 2026.
pub const STAMP_MS: u64 = 1_790_000_000_000;
/// Bytes of a message's body, unless a row says otherwise.
pub const BODY_BYTES: usize = 256;
const TERM: u64 = 1;
const RECENT_BYTES: usize = 1 << 20;

/// A bijection that leaves no pattern (SplitMix64).
pub fn scatter(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// User number `n`: 16 bytes, like a UUID.
pub fn user(n: u64) -> [u8; 16] {
    let (high, low) = (scatter(n).to_be_bytes(), scatter(!n).to_be_bytes());
    let mut name = [0; 16];
    name[..8].copy_from_slice(&high);
    name[8..].copy_from_slice(&low);
    name
}

/// The primary device of user number `n`.
pub fn device(n: u64) -> DeviceId {
    DeviceId { user: Bytes::copy_from_slice(&user(n)), device: PRIMARY_DEVICE }
}

/// User number `n` connects; the connection's number is drawn from `n`.
pub fn claim(n: u64) -> Command {
    Command::Claim(Claim {
        device: device(n),
        gateway_id: 1 + (n % 64) as u32,
        incarnation: 1,
        connection_id: scatter(n ^ 1),
        push_token: Bytes::new(),
    })
}

/// Message number `n`, for user number `to`.
pub fn message(n: u64, to: u64, body: &Bytes) -> Enqueue {
    let mut message_id = [0; 16];
    message_id[..8].copy_from_slice(&n.to_be_bytes());
    Enqueue {
        to_user: Bytes::copy_from_slice(&user(to)),
        to_device: PRIMARY_DEVICE,
        message_id,
        from: device(scatter(n) % 1_000_000),
        ttl_ms: 0,
        kind: MessageKind::Content,
        body: body.clone(),
    }
}

/// Takes commands straight to a shard, an entry at a time, with or without its log.
pub struct Feeder {
    shard: Shard,
    /// Set if entries are written to it before they are applied, as the embedded store does.
    log: Option<Log>,
    next_index: u64,
    /// The stamp of the next entries.
    pub stamp_ms: u64,
}

impl Feeder {
    /// An empty shard in a new directory, begun with these rules. Without `is_logged` its commands
    /// are in no log, and only what a checkpoint holds survives.
    pub fn new(dir: &Path, rules: Rules, is_logged: bool) -> Result<Self> {
        Self::with_files(Arc::new(RealFiles), dir, rules, is_logged)
    }

    /// The same in files of the caller's.
    pub fn with_files(
        files: Arc<dyn Files>,
        dir: &Path,
        rules: Rules,
        is_logged: bool,
    ) -> Result<Self> {
        // Payloads kept for readers would count as memory of what is measured.
        let log_options = LogOptions { recent_bytes_max: RECENT_BYTES, ..LogOptions::default() };
        let log = Log::open(files.clone(), dir, log_options)?;
        let options = ShardOptions { purge_after_checkpoint: is_logged };
        let shard = Shard::open(log.clone(), files, dir, GROUP, options)?;
        let log = is_logged.then_some(log);
        let mut feeder = Self { shard, log, next_index: 1, stamp_ms: STAMP_MS };
        feeder.apply([Command::Init(Init { generation: 0, dedup_key: [7; 16], rules })])?;
        Ok(feeder)
    }

    /// The shard.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The log, if entries are written to it.
    pub fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// Applies commands in as many entries as they need.
    pub fn apply(&mut self, commands: impl IntoIterator<Item = Command>) -> Result<()> {
        self.apply_with(commands, |_| ())
    }

    /// The same, and hands out the answers in order.
    pub fn apply_with(
        &mut self,
        commands: impl IntoIterator<Item = Command>,
        mut answer: impl FnMut(&Reply),
    ) -> Result<()> {
        let mut builder = EntryBuilder::new(self.stamp_ms);
        for command in commands {
            match builder.push(&command) {
                Ok(()) => {}
                Err(PushError::Full) => {
                    let next = EntryBuilder::new(self.stamp_ms);
                    self.entry(std::mem::replace(&mut builder, next))?.iter().for_each(&mut answer);
                    builder.push(&command)?;
                }
                Err(refused) => return Err(refused.into()),
            }
        }
        if !builder.is_empty() {
            self.entry(builder)?.iter().for_each(answer);
        }
        Ok(())
    }

    fn entry(&mut self, builder: EntryBuilder) -> Result<Vec<Reply>> {
        let (commands, log_id) = (builder.len(), LogId::new(TERM, self.next_index));
        let payload = EntryPayload::Commands(builder.finish());
        if let Some(log) = &self.log {
            let entry = Record::Entry { group: GROUP, log_id, payload: payload.clone() };
            log.append_wait(vec![entry, Record::Committed { group: GROUP, log_id }])?;
        }
        let replies = self.shard.apply(log_id, &payload)?;
        ensure!(replies.len() == commands && replies.iter().all(is_done), "a command was refused");
        self.next_index += 1;
        Ok(replies)
    }

    /// Takes a checkpoint, and lets the log go up to it.
    pub fn checkpoint(&self) -> Result<()> {
        self.shard.checkpoint()?;
        Ok(())
    }
}

fn is_done(reply: &Reply) -> bool {
    use switchboard_engine::Status::Ok;
    match reply {
        Reply::Done(status) => *status == Ok,
        Reply::Claimed(reply) => reply.status == Ok,
        Reply::Enqueued(reply) => reply.status == Ok,
        Reply::Acked(reply) => reply.status == Ok,
        _ => true,
    }
}

/// Opens the shard that a feeder left behind.
pub fn reopen_shard(dir: &Path) -> Result<Shard> {
    open_shard(open_shard_log(dir)?, dir)
}

/// The log of it alone.
pub fn open_shard_log(dir: &Path) -> Result<Log> {
    Ok(Log::open(Arc::new(RealFiles), dir, LogOptions::default())?)
}

/// The shard on its log.
pub fn open_shard(log: Log, dir: &Path) -> Result<Shard> {
    let options = ShardOptions { purge_after_checkpoint: true };
    let shard = Shard::open(log, Arc::new(RealFiles), dir, GROUP, options);
    shard.context("cannot open what was prepared")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn users_differ() {
        let users: HashSet<_> = (0..10_000).map(user).collect();
        assert_eq!(users.len(), 10_000);
    }

    #[test]
    fn what_is_fed_into_the_log_is_what_a_store_opens() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut feeder = Feeder::new(dir.path(), Rules::default(), true).expect("feeder");
        let body = Bytes::from_static(b"hello");
        feeder.apply((0..100).map(claim)).expect("claims");
        feeder.checkpoint().expect("checkpoint");
        let messages = (0..100).map(|n| Command::Enqueue(message(n, n, &body)));
        feeder.apply(messages).expect("messages");
        drop(feeder);
        let store = switchboard_engine::Store::open(dir.path(), Default::default()).expect("open");
        assert_eq!((store.stats().sessions, store.stats().messages), (100, 100));
    }
}
