//! The engine embedded in a process: one shard on one disk, without a network and without async.
//!
//! ```text
//!   threads ──▶ queue ──▶ whoever finds nobody committing: one entry, one sync, apply ──▶ answers
//! ```
//! A call returns when what it did is durable on this disk. Calls that come while a sync is under way
//! share the next one. Durability ends with the disk: for more, run the servers.
//!
//! Invariants: one entry is under way at a time, and what is durable is committed, since nobody else
//! writes this log. After a failed write nothing is taken any more until the store is opened again.

mod commit;
mod error;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;

use commit::Commits;
pub use error::{StoreError, StoreOpenError};

use crate::{
    Ack, Acked, Claim, Claimed, Clock, Command, DeviceId, Enqueue, Enqueued, GroupId, Init,
    Located, LogId, MailboxStat, Page, Purge, Purged, Release, Reply, Rules, SessionRecord, Shard,
    ShardOptions, ShardStats, Status, SystemClock, Unregister, Unregistered,
    fs::{Files, RealFiles},
    group_of_shard,
    limits::STORE_CHECKPOINT_BYTES,
    log::{Log, LogOptions, Record},
};

const GROUP: GroupId = group_of_shard(0);

/// Options of [`Store::open`].
#[derive(Clone)]
pub struct Options {
    /// Limits to begin with; a directory that has begun keeps its own. See [`Store::set_rules`].
    pub rules: Rules,
    /// Of the append log. An entry takes at most a quarter of a segment: below 8 MiB a segment, large
    /// batches are refused.
    pub log: LogOptions,
    /// Bytes of log after which a checkpoint is taken. Default 64 MiB.
    pub checkpoint_bytes: u64,
    /// Where stamps come from. Default: the system's clock.
    pub clock: Arc<dyn Clock>,
    /// Where files are. Default: the system's.
    pub files: Arc<dyn Files>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            log: LogOptions::default(),
            checkpoint_bytes: STORE_CHECKPOINT_BYTES,
            clock: Arc::new(SystemClock::new()),
            files: Arc::new(RealFiles),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rules, checkpoint_bytes, .. } = self;
        f.debug_struct("Options")
            .field("rules", rules)
            .field("checkpoint_bytes", checkpoint_bytes)
            .finish_non_exhaustive()
    }
}

/// Sessions and mailboxes in a directory. Share it in an `Arc`, call it from any thread.
///
/// ```
/// use bytes::Bytes;
/// use switchboard_engine::{DeviceId, Enqueue, MessageKind, Options, Status, Store};
///
/// let dir = tempfile::tempdir()?;
/// let store = Store::open(dir.path(), Options::default())?;
/// let (alice, bob) = (DeviceId::new("alice", 1), DeviceId::new("bob", 1));
///
/// let claim = store.claim(&bob, 7, 1)?;
/// let message = Enqueue {
///     to_user: bob.user.clone(),
///     to_device: bob.device,
///     message_id: [1; 16],
///     from: alice,
///     ttl_ms: 0,
///     kind: MessageKind::Content,
///     body: Bytes::from_static(b"hello"),
/// };
/// let receipts = store.enqueue(&[message])?;
/// assert_eq!(receipts[0].status, Status::Ok);
/// assert_eq!(receipts[0].sessions[0].epoch, claim.epoch);
///
/// let page = store.fetch(&bob, 0, 100)?;
/// assert_eq!(&page.messages[0].body[..], b"hello");
/// store.ack(&bob, page.tail)?;
/// assert_eq!(store.stat(&bob)?.messages, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Store {
    shard: Shard,
    commits: Commits,
    clock: Arc<dyn Clock>,
}

impl Store {
    /// Opens a directory, or begins it. Only one process can have it open.
    ///
    /// # Errors
    /// See [`StoreOpenError`]; damage is named with its file and offset, and nothing is repaired.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, StoreOpenError> {
        let dir = dir.as_ref();
        let Options { rules, log, checkpoint_bytes, clock, files } = options;
        let reserve_bytes = log.reserve_bytes;
        let log = Log::open(Arc::clone(&files), dir, log)?;
        let known = log.group_state(GROUP);
        // Nobody else writes this log: what is durable is committed, also what a crash left
        // unanswered.
        if let Some(last) = known.last.filter(|last| known.committed < Some(*last)) {
            log.append_wait(vec![Record::Committed { group: GROUP, log_id: last }])?;
        }
        let shard_options = ShardOptions { purge_after_checkpoint: true };
        let shard = Shard::open(log.clone(), Arc::clone(&files), dir, GROUP, shard_options)?;
        let last = known.last.max(shard.applied());
        let commits = Commits::new(log, last, Arc::clone(&clock), checkpoint_bytes, reserve_bytes);
        let store = Self { shard, commits, clock };
        if !store.shard.is_initialized() {
            let mut dedup_key = [0; 16];
            files.fill_random(&mut dedup_key).map_err(StoreOpenError::Random)?;
            let init = Init { generation: 0, dedup_key, rules };
            match store.commit(vec![Command::Init(init)])?.as_slice() {
                [Reply::Done(Status::Ok)] => {}
                _ => return Err(StoreOpenError::Rules),
            }
        }
        Ok(store)
    }

    /// Refuses what takes space while less than the log's reserve is free.
    fn check_space(&self) -> Result<(), StoreError> {
        Ok(self.commits.check_space()?)
    }

    /// Connects a device to connection `connection` of gateway `gateway` (numbers that mean something
    /// to the caller). The newest claim wins.
    pub fn claim(
        &self,
        device: &DeviceId,
        gateway: u32,
        connection: u64,
    ) -> Result<Claimed, StoreError> {
        self.check_space()?;
        let command = Command::Claim(Claim {
            device: device.clone(),
            gateway_id: gateway,
            incarnation: 0,
            connection_id: connection,
            push_token: Bytes::new(),
        });
        match self.one(command)? {
            Reply::Claimed(claimed) if claimed.status == Status::Ok => Ok(claimed),
            reply => Err(refused(&reply)),
        }
    }

    /// Ends the session with this epoch (0: any). False: it had ended before.
    pub fn release(&self, device: &DeviceId, epoch: u64) -> Result<bool, StoreError> {
        match self.one(Command::Release(Release { device: device.clone(), epoch }))? {
            Reply::Released(released) => Ok(released.status == Status::Ok),
            reply => Err(refused(&reply)),
        }
    }

    /// Removes a device with its session and its mailbox; the primary is emptied.
    pub fn unregister(&self, device: &DeviceId) -> Result<Unregistered, StoreError> {
        match self.one(Command::Unregister(Unregister { device: device.clone() }))? {
            Reply::Unregistered(unregistered) => Ok(unregistered),
            reply => Err(refused(&reply)),
        }
    }

    /// Stores messages, durable when it returns. One answer each, in order: a refused item fails alone.
    pub fn enqueue(&self, items: &[Enqueue]) -> Result<Vec<Enqueued>, StoreError> {
        self.check_space()?;
        let commands = items.iter().cloned().map(Command::Enqueue);
        self.many(commands.collect(), Enqueued::refused, |reply| match reply {
            Reply::Enqueued(enqueued) => Ok(enqueued),
            reply => Err(refused(&reply)),
        })
    }

    /// Removes messages up to a seq (more than the last: all).
    pub fn ack(&self, device: &DeviceId, up_to_seq: u64) -> Result<Acked, StoreError> {
        self.ack_fenced(device, 0, up_to_seq, &[])
    }

    /// Removes messages up to a seq and those named (at most 1,024), if the device's session has this
    /// epoch; else the answer is `Fenced` and nothing changes. Epoch 0: whatever the session is.
    pub fn ack_fenced(
        &self,
        device: &DeviceId,
        epoch: u64,
        up_to_seq: u64,
        seqs: &[u64],
    ) -> Result<Acked, StoreError> {
        let ack = Ack { device: device.clone(), epoch, up_to_seq, seqs: seqs.to_vec() };
        match self.one(Command::Ack(ack))? {
            Reply::Acked(acked) => Ok(acked),
            reply => Err(refused(&reply)),
        }
    }

    /// Removes messages of many devices, with one sync for all of them. One answer each, in order: a
    /// refused item fails alone.
    pub fn ack_batch(&self, items: &[Ack]) -> Result<Vec<Acked>, StoreError> {
        let commands = items.iter().cloned().map(Command::Ack);
        self.many(commands.collect(), Acked::refused, |reply| match reply {
            Reply::Acked(acked) => Ok(acked),
            reply => Err(refused(&reply)),
        })
    }

    /// Empties a mailbox.
    pub fn purge(&self, device: &DeviceId, reason: &str) -> Result<Purged, StoreError> {
        let reason = Bytes::copy_from_slice(reason.as_bytes());
        match self.one(Command::Purge(Purge { device: device.clone(), reason }))? {
            Reply::Purged(purged) => Ok(purged),
            reply => Err(refused(&reply)),
        }
    }

    /// Changes the limits.
    pub fn set_rules(&self, rules: Rules) -> Result<(), StoreError> {
        match self.one(Command::SetRules(rules))? {
            Reply::Done(Status::Ok) => Ok(()),
            reply => Err(refused(&reply)),
        }
    }

    /// Messages with a seq above `after_seq` in order, at most `messages_max` (1,024) and 4 MiB of
    /// bodies, but at least one if any waits. May read a disk.
    pub fn fetch(
        &self,
        device: &DeviceId,
        after_seq: u64,
        messages_max: usize,
    ) -> Result<Page, StoreError> {
        self.let_time_pass()?;
        Ok(self.shard.fetch(device, after_seq, messages_max, usize::MAX)?)
    }

    /// The sessions and devices of a user.
    pub fn locate(&self, user: &[u8]) -> Located {
        self.shard.locate(user)
    }

    /// The sessions and devices of several users, in their order: cheaper than one by one.
    pub fn locate_batch(&self, users: &[&[u8]]) -> Vec<Located> {
        self.shard.locate_batch(users)
    }

    /// The session of one device.
    pub fn session(&self, user: &[u8], device: u16) -> Option<SessionRecord> {
        self.shard.session(user, device)
    }

    /// Appends to `out` the session of each user's primary device, in the order of `users`: cheaper
    /// than one by one.
    pub fn sessions_batch(&self, users: &[&[u8]], out: &mut Vec<Option<SessionRecord>>) {
        self.shard.sessions_batch(users, out);
    }

    /// What waits for a device.
    pub fn stat(&self, device: &DeviceId) -> Result<MailboxStat, StoreError> {
        self.let_time_pass()?;
        Ok(self.shard.stat(device))
    }

    /// Sums over the store.
    pub fn stats(&self) -> ShardStats {
        self.shard.stats()
    }

    /// A hash of everything in the store, and the log entry it stands at: equal wherever the same log was
    /// applied. Takes about as long as a checkpoint.
    pub fn state_hash(&self) -> (LogId, u128) {
        self.shard.state_hash()
    }

    /// Makes the state durable outside the log and lets the log go. Happens by itself as the log grows.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.shard.checkpoint()?;
        Ok(())
    }

    fn one(&self, command: Command) -> Result<Reply, StoreError> {
        command.check().map_err(|status| StoreError::Refused { status })?;
        self.commit(vec![command])?.pop().ok_or(StoreError::Closed)
    }

    /// Commits those that may be written down; the others are answered without being committed.
    fn many<T>(
        &self,
        commands: Vec<Command>,
        refuse: impl Fn(Status) -> T,
        answer: impl Fn(Reply) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let checks: Vec<_> = commands.iter().map(Command::check).collect();
        let good = commands.into_iter().zip(&checks).filter(|(_, check)| check.is_ok());
        let mut replies = self.commit(good.map(|(command, _)| command).collect())?.into_iter();
        let result = |check: &Result<(), Status>| match check {
            Err(status) => Ok(refuse(*status)),
            Ok(()) => answer(replies.next().ok_or(StoreError::Closed)?),
        };
        checks.iter().map(result).collect()
    }

    fn commit(&self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        self.commits.commit(&self.shard, commands)
    }

    /// Expiry follows log time; when nothing is written, a read moves it, at most once a second and
    /// only if something is due.
    fn let_time_pass(&self) -> Result<(), StoreError> {
        let now_ms = self.clock.unix_ms();
        let since = Duration::from_millis(now_ms.saturating_sub(self.shard.log_time_ms()));
        let is_due = since >= Duration::from_secs(1)
            && self.shard.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms);
        if is_due {
            self.commit(vec![Command::Tick])?;
        }
        Ok(())
    }
}

/// The status of a reply that is not what was hoped for.
fn refused(reply: &Reply) -> StoreError {
    let status = match reply {
        Reply::Done(status) | Reply::Ended(status) => *status,
        Reply::Claimed(reply) => reply.status,
        Reply::Released(reply) => reply.status,
        Reply::Unregistered(reply) => reply.status,
        Reply::Swept(reply) => reply.status,
        Reply::Enqueued(reply) => reply.status,
        Reply::Acked(reply) => reply.status,
        Reply::Purged(reply) => reply.status,
        Reply::Registered(reply) => reply.status,
    };
    StoreError::Refused { status }
}
