//! One group on one disk: its state in memory, its message bodies, its checkpoints.
//!
//! ```text
//!   apply ──▶ State ◀── locate, fetch, stat            one writer, many readers
//!               │ snapshot
//!   checkpoint ─┴─▶ old files (bodies that still wait) ─▶ checkpoint file ─▶ mark in the log
//! ```
//! A shard is opened from its newest checkpoint and the committed entries after it. A body is read
//! from where it lies: in the log while it is young, in an old file afterwards. What is read is pinned
//! under the lock and checked outside of it, so a checkpoint never takes a body away from a reader.
//!
//! Invariants: `purged ≤ checkpoint ≤ applied`; a checkpoint is marked in the log only after its file,
//! the old files it names, and their directories are durable; the log may be purged up to it only after
//! the living state points to the old files, which is so when [`Shard::checkpoint`] returns.

mod checkpointing;
mod error;
mod export;
mod fetch;
mod forgetting;
mod import;
mod pass;
mod regions;

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

pub use error::{
    CheckpointError, CheckpointLoadError, ExportError, FetchError, ImportError, ShardOpenError,
};
pub use fetch::{Page, StoredMessage};
pub use import::{ExportHeader, Restoration};

use regions::Regions;

use crate::{
    ApplyError, CheckpointMeta, DeviceId, EntryPayload, GroupId, Located, LocatedOne, LogId,
    MailboxStat, MetaState, PRIMARY_DEVICE, Reply, Rules, SessionRecord, ShardStats,
    bodies::OldFiles,
    checkpoint::Checkpoints,
    fs::Files,
    id_files::IdFiles,
    limits::REPLAY_READ_BYTES,
    log::Log,
    state::{Answer, Header, Live, Snapshot, State},
};

/// Options of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardOptions {
    /// Purge the log up to a checkpoint as soon as there is one. Under Raft the log's owner decides
    /// that, because a slow follower may still need the prefix. Default false.
    pub purge_after_checkpoint: bool,
}

/// The state, bodies and checkpoints of one group. Share it in an `Arc`.
#[derive(Debug)]
pub struct Shard {
    group: GroupId,
    log: Log,
    options: ShardOptions,
    /// Replaced as a whole by an import; otherwise locked for a clone.
    state: RwLock<Arc<State>>,
    /// Look-ups go past the lock.
    regions: Regions,
    old: OldFiles,
    ids: IdFiles,
    /// What is live in old files, as the newest checkpoint counted it. A lock, for who holds `writing`.
    live: Mutex<Live>,
    checkpoints: Checkpoints,
    /// Keeps `apply` out while a snapshot begins, and a second writer out of `apply`.
    applying: Mutex<()>,
    /// Keeps checkpoints and imports out of each other's way.
    writing: Mutex<()>,
    /// Set, with `writing` held, when the replica is about to go: what is written later would outlive it.
    ended: AtomicBool,
    checkpoint: RwLock<Option<CheckpointMeta>>,
}

impl Shard {
    /// Loads the newest checkpoint and replays the log up to what is known to be committed. Blocks.
    ///
    /// # Errors
    /// See [`ShardOpenError`]; damage is named with its file and offset, and nothing is repaired.
    pub fn open(
        log: Log,
        files: Arc<dyn Files>,
        data_dir: &Path,
        group: GroupId,
        options: ShardOptions,
    ) -> Result<Self, ShardOpenError> {
        let directory = |source| ShardOpenError::Directory { dir: data_dir.to_owned(), source };
        let checkpoints = Checkpoints::open(files.clone(), data_dir, group).map_err(directory)?;
        let ids = IdFiles::open(files.clone(), data_dir, group).map_err(directory)?;
        let old = OldFiles::open(files, data_dir, group)?;
        let newest = checkpoints.indexes().map_err(directory)?.last().copied();
        let marked = log.group_state(group).checkpoint;
        if let Some(at) = marked.filter(|at| newest.is_none_or(|newest| newest < at.index)) {
            let dir = data_dir.join("checkpoints");
            return Err(ShardOpenError::CheckpointMissing { group, at, dir });
        }
        let (state, live) = match newest {
            None => (State::new(Header::new(group)), Live::default()),
            Some(index) => checkpoints.load(index, &ids).map_err(|error| {
                ShardOpenError::Checkpoint { path: checkpoints.path(index), source: error.into() }
            })?,
        };
        let header = state.header();
        let meta = newest.and(header.applied);
        let meta = meta.map(|at| CheckpointMeta { at, membership: header.membership });
        let shard = Self {
            group,
            log,
            options,
            regions: Regions::new(Arc::clone(state.region())),
            state: RwLock::new(Arc::new(state)),
            old,
            ids,
            live: Mutex::default(),
            checkpoints,
            applying: Mutex::new(()),
            writing: Mutex::new(()),
            ended: AtomicBool::new(false),
            checkpoint: RwLock::new(meta),
        };
        // What a checkpoint that did not finish has left behind.
        shard.remove_unused(newest, live).map_err(directory)?;
        shard.replay()?;
        Ok(shard)
    }

    fn replay(&self) -> Result<(), ShardOpenError> {
        let known = self.log.group_state(self.group);
        let Some(committed) = known.committed else { return Ok(()) };
        let mut next = match (self.applied(), known.first) {
            (_, None) => return Ok(()),
            (None, Some(first)) if known.purged.is_none() => first,
            (applied, Some(first)) => {
                let needed = applied.map_or(0, |at| at.index.saturating_add(1));
                if first > needed {
                    return Err(ShardOpenError::Gap { group: self.group, needed, first });
                }
                needed
            }
        };
        while next <= committed.index {
            let to = committed.index.saturating_add(1);
            let entries = self.log.read(self.group, next..to, REPLAY_READ_BYTES)?;
            if entries.is_empty() {
                let group = self.group;
                return Err(ShardOpenError::Missing { group, needed: next, committed });
            }
            for (at, payload) in entries {
                self.apply(at, &payload)?;
                next = at.index.saturating_add(1);
            }
        }
        Ok(())
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read())
    }

    /// Applies a committed entry and answers one reply for each of its commands, in order.
    ///
    /// # Errors
    /// See [`ApplyError`]; the state is as it was then.
    pub fn apply(&self, at: LogId, payload: &EntryPayload) -> Result<Vec<Reply>, ApplyError> {
        let _one_writer = self.applying.lock();
        self.state().apply(at, payload)
    }

    /// Which group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The last entry applied.
    #[must_use]
    pub fn applied(&self) -> Option<LogId> {
        self.state().header().applied
    }

    /// The last membership applied, and where it stood.
    #[must_use]
    pub fn membership(&self) -> Option<(LogId, Bytes)> {
        self.state().header().membership
    }

    /// The stamp of the last entry applied, in Unix milliseconds; never goes back.
    #[must_use]
    pub fn log_time_ms(&self) -> u64 {
        self.state().log_time_ms()
    }

    /// Whether the group's first command has been applied.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.state().header().begun
    }

    /// The limits in force.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.state().rules()
    }

    /// The sessions and devices of a user, those of ended incarnations included.
    #[must_use]
    pub fn locate(&self, user: &[u8]) -> Located {
        match self.regions.look(|region| region.look_up(user)) {
            Some(answer) if answer != Answer::Ask => Located::of(user, answer),
            _ => self.state().locate(user),
        }
    }

    /// The same for several users, in their order: cheaper than one by one.
    #[must_use]
    pub fn locate_batch(&self, users: &[&[u8]]) -> Vec<Located> {
        self.state().locate_batch(users)
    }

    /// The same, told one by one, in their order.
    pub fn locate_each(&self, users: &[&[u8]], found: impl FnMut(LocatedOne)) {
        self.state().locate_each(users, found);
    }

    /// The session of one device, also if its incarnation has ended.
    #[must_use]
    #[inline]
    pub fn session(&self, user: &[u8], device: u16) -> Option<SessionRecord> {
        match self.regions.look(|region| region.look_up(user)) {
            Some(Answer::Online(session)) => (device == PRIMARY_DEVICE).then_some(session),
            Some(Answer::Offline) => None,
            Some(Answer::Ask) | None => self.state().session(user, device),
        }
    }

    /// Appends to `out` the session of each user's primary device, in the order of `users`; also those
    /// of ended incarnations. Cheaper than one by one.
    pub fn sessions_batch(&self, users: &[&[u8]], out: &mut Vec<Option<SessionRecord>>) {
        self.state().sessions_batch(users, out);
    }

    /// The push token of a device.
    #[must_use]
    pub fn push_token(&self, device: &DeviceId) -> Option<Bytes> {
        self.state().push_token(device)
    }

    /// What waits for a device.
    #[must_use]
    pub fn stat(&self, device: &DeviceId) -> MailboxStat {
        self.state().stat(device)
    }

    /// Looks at the state of the meta group (empty in any other).
    pub fn meta<R>(&self, look: impl FnOnce(&MetaState) -> R) -> R {
        let meta = self.state().meta();
        look(&meta)
    }

    /// Sums over the shard.
    #[must_use]
    pub fn stats(&self) -> ShardStats {
        self.state().stats()
    }

    /// When the next message expires, in log time; while that is past, the leader proposes ticks.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.state().next_due_ms()
    }

    /// A hash of the contents (not of places on disk) as of the last entry applied: equal on every
    /// replica at the same log id.
    #[must_use]
    pub fn state_hash(&self) -> (LogId, u128) {
        let snapshot = self.snapshot();
        (snapshot.header.applied.unwrap_or_default(), snapshot.hash())
    }

    /// What is known of the newest durable checkpoint.
    #[must_use]
    pub fn checkpoint_meta(&self) -> Option<CheckpointMeta> {
        self.checkpoint.read().clone()
    }

    fn snapshot(&self) -> Snapshot {
        let _no_writer = self.applying.lock();
        Snapshot::of(&self.state())
    }
}
