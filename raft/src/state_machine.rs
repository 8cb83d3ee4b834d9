//! openraft's state machine: the group's [`Shard`], and the news of what was applied.
//!
//! openraft calls it from one task, which makes it the shard's single writer. What openraft calls a
//! snapshot is the engine's checkpoint. The [checkpointer](crate::checkpointer) takes it, outside of
//! openraft, because an error while "building a snapshot" ends a group for good and a full disk
//! must not; openraft is told afterwards, and learns so up to where the log may be purged.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::Stream;
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{OptionalSend, Snapshot};
use switchboard_engine::{Command, EntryPayload, EntryReader, LogId, Reply, Shard};
use tokio::sync::{broadcast, watch};

use crate::blocking;
use crate::limits::APPLIED_EVENTS_MAX;
use crate::log_time::LogTime;
use crate::planted::{self, PlantedBug};
use crate::snapshot::{SnapshotData, SnapshotDir};
use crate::types::{
    RaftLogId, RaftSnapshot, Replies, SnapshotMeta, StoredMembership, TypeConfig,
    payload_to_engine, stored_membership, to_engine, to_raft,
};

/// An entry of commands that was applied, for those who watch the group.
#[derive(Debug)]
pub struct Applied {
    /// Which entry.
    pub log_id: LogId,
    /// The log time of its commands.
    pub stamp_ms: u64,
    commands: Bytes,
    replies: Replies,
}

impl Applied {
    /// Each command with its reply, in order. Commands share the memory of the entry.
    pub fn items(&self) -> impl Iterator<Item = (Command, &Reply)> {
        // It was applied, so it can be read; were it not so, nothing would come out.
        EntryReader::new(self.commands.clone())
            .into_iter()
            .flatten()
            .map_while(Result::ok)
            .map(|decoded| decoded.command)
            .zip(self.replies.as_slice())
    }
}

/// What applying tells the rest of the group.
pub(crate) struct News {
    pub(crate) log_time: Arc<LogTime>,
    /// The last entry that the log held when it was opened: those up to it were stamped in an earlier life.
    inherited: Option<LogId>,
    applied: watch::Sender<Option<LogId>>,
    events: broadcast::Sender<Arc<Applied>>,
}

impl News {
    pub(crate) fn new(
        log_time: Arc<LogTime>,
        applied: Option<LogId>,
        inherited: Option<LogId>,
    ) -> Self {
        Self {
            log_time,
            inherited,
            applied: watch::Sender::new(applied),
            events: broadcast::Sender::new(APPLIED_EVENTS_MAX),
        }
    }

    pub(crate) fn watch_applied(&self) -> watch::Receiver<Option<LogId>> {
        self.applied.subscribe()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Applied>> {
        self.events.subscribe()
    }

    fn tell(&self, log_id: LogId, payload: EntryPayload, replies: &Replies) {
        self.applied.send_replace(Some(log_id));
        let EntryPayload::Commands(commands) = payload else { return };
        let Ok(reader) = EntryReader::new(commands.clone()) else { return };
        let stamp_ms = reader.stamp_ms();
        if Some(log_id) > self.inherited {
            self.log_time.observe(stamp_ms);
        } else {
            self.log_time.remember(stamp_ms);
        }
        if self.events.receiver_count() > 0 {
            let applied = Applied { log_id, stamp_ms, commands, replies: replies.clone() };
            // An error means that the last listener has left since.
            let _ = self.events.send(Arc::new(applied));
        }
    }
}

/// The state machine of one group.
pub(crate) struct StateMachine {
    shard: Arc<Shard>,
    news: Arc<News>,
    snapshots: SnapshotDir,
}

impl StateMachine {
    pub(crate) fn new(shard: Arc<Shard>, news: Arc<News>, snapshots: SnapshotDir) -> Self {
        Self { shard, news, snapshots }
    }

    fn live(&self) -> Live {
        Live { shard: self.shard.clone(), dir: self.snapshots.clone() }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = CheckpointBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, StoredMembership)> {
        let membership = stored_membership(self.shard.membership()).map_err(io::Error::other)?;
        Ok((self.shard.applied().map(to_raft), membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let log_id = to_engine(&entry.log_id());
            let mut payload = payload_to_engine(entry.payload);
            if planted::is(PlantedBug::ApplyByWallClock) {
                payload = stamped_by(self.news.log_time.clock_ms(), payload);
            }
            let replies = self.shard.apply(log_id, &payload).map_err(io::Error::other)?;
            let replies = Replies::new(replies);
            self.news.tell(log_id, payload, &replies);
            if let Some(responder) = responder {
                responder.send(replies);
            }
            // An entry may hold tens of thousands of commands: let others have the thread.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Asked to without force, the checkpoint that is there is reported and none is taken.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<CheckpointBuilder> {
        if !force && self.shard.checkpoint_meta().is_none() {
            return None;
        }
        Some(CheckpointBuilder { live: self.live(), take: force })
    }

    async fn get_snapshot_builder(&mut self) -> CheckpointBuilder {
        CheckpointBuilder { live: self.live(), take: true }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let file = snapshot.into_file().await?;
        let (shard, expected) = (self.shard.clone(), meta.clone());
        let install = blocking::run(move || {
            let found = file.meta()?;
            if found != expected {
                let message = format!("a snapshot of {found} came as one of {expected}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            shard.import(&mut file.reader()?).map_err(io::Error::other)
        });
        install.await.map_err(io::Error::other)??;
        self.news.log_time.observe(self.shard.log_time_ms());
        self.news.applied.send_replace(self.shard.applied());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        self.live().snapshot()
    }
}

/// The payload as if it had been stamped here: the planted bug
/// [`PlantedBug::ApplyByWallClock`].
fn stamped_by(clock_ms: u64, payload: EntryPayload) -> EntryPayload {
    let EntryPayload::Commands(bytes) = &payload else { return payload };
    let Ok(reader) = EntryReader::new(bytes.clone()) else { return payload };
    let mut builder = switchboard_engine::EntryBuilder::new(clock_ms);
    for decoded in reader.into_iter().map_while(Result::ok) {
        // It fitted an entry before.
        let _ = builder.push(&decoded.command);
    }
    EntryPayload::Commands(builder.finish())
}

/// The shard as a snapshot that has not travelled yet.
#[derive(Clone)]
struct Live {
    shard: Arc<Shard>,
    dir: SnapshotDir,
}

impl Live {
    /// The snapshot that the shard's checkpoint stands for.
    fn snapshot(self) -> io::Result<Option<RaftSnapshot>> {
        let Some(checkpoint) = self.shard.checkpoint_meta() else { return Ok(None) };
        let meta = SnapshotMeta {
            last_log_id: Some(to_raft(checkpoint.at)),
            last_membership: stored_membership(checkpoint.membership).map_err(io::Error::other)?,
        };
        let snapshot = SnapshotData::Live { shard: self.shard, dir: self.dir };
        Ok(Some(Snapshot { meta, snapshot }))
    }
}

/// Reports the shard's checkpoint, after taking one if openraft insists.
pub(crate) struct CheckpointBuilder {
    live: Live,
    take: bool,
}

impl RaftSnapshotBuilder<TypeConfig> for CheckpointBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        // Before the first entry there is nothing to take, and a snapshot of nothing is right.
        if self.take && self.live.shard.applied().is_some() {
            let shard = self.live.shard.clone();
            let taken = blocking::run(move || shard.checkpoint());
            taken.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        }
        if let Some(snapshot) = self.live.clone().snapshot()? {
            return Ok(snapshot);
        }
        let Live { shard, dir } = self.live.clone();
        Ok(Snapshot { meta: SnapshotMeta::default(), snapshot: SnapshotData::Live { shard, dir } })
    }
}
