//! A node: one log, a replica of the meta group and of its shards, and the tasks that look after
//! them.
//!
//! ```text
//!            ┌ meta group 0 ┐
//!  Log ◀─────┤ shard group 1 ├──── ticker, checkpointer, failure watch: one task each
//!  (one)     └ …           N ┘
//! ```
//! A node opens what its disk knows: on a fresh directory that is the meta group alone, without
//! members, which waits to be initialized or to be told of a cluster. Groups never share anything but
//! the log and the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryFutureExt, TryStreamExt, stream};
use parking_lot::{Mutex, RwLock};
use switchboard_engine::log::Log;
use switchboard_engine::{Formats, GroupId, META_GROUP, group_of_shard};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::blocking;
use crate::checkpointer::{Checkpointer, Policy};
use crate::clocks::{self, Clocks, peers_of};
use crate::error::{NodeFailure, NodeOpenError};
use crate::group::Group;
use crate::health::{unreadable, watch_disk, watch_failures};
use crate::opener::{GroupOpener, blocking};
use crate::options::{NodeOptions, check};
use crate::shard_of::shard_of;
use crate::snapshot::{PartialSnapshot, SnapshotDir};
use crate::ticker;
use crate::transfer;
use crate::types::NodeId;
use crate::{placing, readmitting};

/// A running node. Clones are handles of the same one.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    opener: GroupOpener,
    meta: Arc<Group>,
    /// All groups but the meta group. A lock, because groups come by initialization and moves; it
    /// is held to look one up.
    groups: RwLock<Groups>,
    /// Held while a group is opened.
    opening: tokio::sync::Mutex<()>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    stop: CancellationToken,
    failure: watch::Sender<Option<NodeFailure>>,
}

#[derive(Default)]
struct Groups {
    by_id: BTreeMap<GroupId, Arc<Group>>,
    /// All shards of the cluster in order, where all of them are here; else none.
    shards: Arc<[Arc<Group>]>,
    /// All shards of the cluster, by number; none where there is no replica here.
    table: Arc<[Option<Arc<Group>>]>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("options", &self.inner.opener.options).finish_non_exhaustive()
    }
}

impl Node {
    /// Opens the log and every group that it knows, and starts them.
    ///
    /// Reading log and checkpoints blocks, which happens off the runtime's threads.
    pub async fn open(options: NodeOptions) -> Result<Self, NodeOpenError> {
        check(&options)?;
        let (log, snapshots) = {
            let options = options.clone();
            blocking(move || {
                let log = Log::open(options.files.clone(), &options.data_dir, options.log)?;
                if let Some(bytes) = log.stats().cut_at_open {
                    tracing::warn!(
                        bytes,
                        "somebody has cut the newest segment of the log: what stood behind is gone"
                    );
                }
                let snapshots = SnapshotDir::open(options.files, &options.data_dir);
                Ok::<_, NodeOpenError>((log, snapshots.map_err(NodeOpenError::Snapshots)?))
            })
            .await?
        };
        let clocks = Arc::new(Clocks::new(options.clock.clone()));
        let admission = Arc::new(Admission::default());
        let opener = GroupOpener { options, log, snapshots, admission, clocks };
        let meta = opener.open_new(META_GROUP).await?;
        if let Some((active, formats)) = unreadable(&meta, opener.options.formats) {
            // Before it takes part in anything: it must not answer what it cannot read.
            meta.shutdown().await;
            return Err(NodeOpenError::Format { active, formats });
        }
        // Loading is work for the processor, so as many at once as there are processors.
        let by_id: BTreeMap<_, _> = stream::iter(opener.known_groups())
            .map(|id| opener.open(id).map_ok(move |group| (id, group)))
            .buffer_unordered(blocking::parallelism())
            .try_collect()
            .await?;
        let groups = Groups { by_id, ..Groups::default() };
        let node = Self {
            inner: Arc::new(Inner {
                opener,
                meta,
                groups: RwLock::new(groups),
                opening: tokio::sync::Mutex::default(),
                tasks: Mutex::default(),
                stop: CancellationToken::new(),
                failure: watch::Sender::new(None),
            }),
        };
        node.adopt_shards();
        for group in node.groups() {
            elect_if_sole(&group, node.node_id()).await;
        }
        let peers = peers_of(node.node_id(), &node.groups()).await;
        node.inner.opener.clocks.set_peers(peers.as_ref());
        node.start_tasks();
        Ok(node)
    }

    fn start_tasks(&self) {
        let GroupOpener { options, log, admission, clocks, .. } = &self.inner.opener;
        let policy =
            Policy { group_bytes: options.checkpoint_bytes, log_bytes: options.log_bytes_max };
        // Tasks hold no handle of the node, or it would never be dropped.
        let weak = Arc::downgrade(&self.inner);
        let groups = move || weak.upgrade().map_or_else(Vec::new, |inner| inner.all_groups());
        let stop = &self.inner.stop;
        let checkpointer = Checkpointer::new(policy, groups.clone());
        *self.inner.tasks.lock() = vec![
            tokio::spawn(ticker::run(groups.clone(), stop.clone())),
            tokio::spawn(transfer::balance(options.node_id, groups.clone(), stop.clone())),
            tokio::spawn(readmitting::run(Arc::downgrade(&self.inner), stop.clone())),
            tokio::spawn(placing::follow(Arc::downgrade(&self.inner), stop.clone())),
            tokio::spawn(checkpointer.run(stop.clone())),
            tokio::spawn(watch_disk(log.clone(), admission.clone(), stop.clone())),
            tokio::spawn(clocks::run(
                clocks.clone(),
                options.transport.clone(),
                options.node_id,
                groups.clone(),
                stop.clone(),
            )),
            tokio::spawn(watch_failures(
                log.clone(),
                groups,
                options.formats,
                self.inner.failure.clone(),
                stop.clone(),
            )),
        ];
    }

    /// The id of this node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.inner.opener.options.node_id
    }

    /// The formats that this node reads.
    #[must_use]
    pub fn formats(&self) -> Formats {
        self.inner.opener.options.formats
    }

    /// The random id of its disk, written once.
    #[must_use]
    pub fn disk_id(&self) -> [u8; 16] {
        self.inner.opener.log.disk_id()
    }

    /// The log that all its groups share.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.inner.opener.log
    }

    /// The meta group, which every node replicates.
    #[must_use]
    pub fn meta(&self) -> &Arc<Group> {
        &self.inner.meta
    }

    /// How many shards the cluster has; none before it is made.
    #[must_use]
    pub fn shard_count(&self) -> Option<u32> {
        let shards = self.meta().shard().meta(|meta| meta.shards());
        (shards > 0).then_some(shards)
    }

    /// All shards of the cluster in order, shard 0 first; empty before it is made, and on a node that does
    /// not have all of them (see [`Self::shard_table`]).
    #[must_use]
    pub fn shards(&self) -> Arc<[Arc<Group>]> {
        self.inner.groups.read().shards.clone()
    }

    /// All shards of the cluster by number, none where there is no replica here; empty before it is made.
    #[must_use]
    pub fn shard_table(&self) -> Arc<[Option<Arc<Group>>]> {
        self.inner.groups.read().table.clone()
    }

    /// The group of the shard that `user` belongs to, if it is replicated here.
    #[must_use]
    pub fn shard_for(&self, user: &[u8]) -> Option<Arc<Group>> {
        let groups = self.inner.groups.read();
        let count = u32::try_from(groups.table.len()).ok().filter(|count| *count > 0)?;
        groups.table.get(shard_of(user, count) as usize).cloned().flatten()
    }

    /// A group by its id, if it is replicated here.
    #[must_use]
    pub fn group(&self, id: GroupId) -> Option<Arc<Group>> {
        if id == META_GROUP {
            return Some(self.inner.meta.clone());
        }
        self.inner.groups.read().by_id.get(&id).cloned()
    }

    /// All groups here, the meta group first.
    #[must_use]
    pub fn groups(&self) -> Vec<Arc<Group>> {
        self.inner.all_groups()
    }

    /// Resolves if the log or a group stops for good by an error; the process should end then, and start again.
    pub async fn failed(&self) -> NodeFailure {
        let mut failure = self.inner.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await;
        match failed.ok().and_then(|failed| failed.clone()) {
            Some(failure) => failure,
            // The sender lives as long as this handle.
            None => std::future::pending().await,
        }
    }

    /// Stops tasks and groups and syncs the log. What waited is answered; entries that are under
    /// way may or may not be durable.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        let tasks = std::mem::take(&mut *self.inner.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the node did not stop cleanly");
            }
        }
        let groups = self.groups();
        futures::future::join_all(groups.iter().map(|group| group.shutdown())).await;
        let log = self.inner.opener.log.clone();
        match blocking::run(move || log.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the log could not be synced at shutdown"),
            Err(error) => tracing::error!(%error, "the log panicked at shutdown"),
        }
    }

    /// A new snapshot file, to be filled on a thread that may block; see [`Group::receive_snapshot`].
    pub fn begin_snapshot(&self) -> std::io::Result<PartialSnapshot> {
        self.inner.opener.snapshots.begin()
    }

    /// The options that it was opened with.
    #[must_use]
    pub fn options(&self) -> &NodeOptions {
        &self.inner.opener.options
    }

    /// The group, opened if it is not there yet.
    pub(crate) async fn ensure_group(&self, id: GroupId) -> Result<Arc<Group>, NodeOpenError> {
        if let Some(group) = self.group(id) {
            return Ok(group);
        }
        // One at a time: two replicas of a group on one log would write over each other.
        let _opening = self.inner.opening.lock().await;
        if let Some(group) = self.group(id) {
            return Ok(group);
        }
        let group = self.inner.opener.open_new(id).await?;
        self.inner.groups.write().by_id.insert(id, group.clone());
        Ok(group)
    }

    /// Puts the shards in order, once the meta group says how many there are.
    pub(crate) fn adopt_shards(&self) {
        let Some(count) = self.shard_count() else { return };
        let mut groups = self.inner.groups.write();
        let here = |shard: u32| groups.by_id.get(&group_of_shard(shard)).cloned();
        let table: Vec<_> = (0..count).map(here).collect();
        // Who goes by their number must not take a part of them for all.
        let all: Option<Vec<_>> = table.iter().cloned().collect();
        groups.shards = all.unwrap_or_default().into();
        groups.table = table.into();
    }
}

impl Inner {
    pub(crate) fn meta(&self) -> &Arc<Group> {
        &self.meta
    }

    /// Held while a group is opened or dropped.
    pub(crate) fn opening(&self) -> &tokio::sync::Mutex<()> {
        &self.opening
    }

    /// Takes a group out, so that nobody finds it any more.
    pub(crate) fn take_group(&self, id: GroupId) -> Option<Arc<Group>> {
        let mut groups = self.groups.write();
        let group = groups.by_id.remove(&id)?;
        groups.shards = Arc::default();
        let others = |known: &Option<Arc<Group>>| known.clone().filter(|known| known.id() != id);
        groups.table = groups.table.iter().map(others).collect();
        Some(group)
    }

    /// Puts a group back that was taken out and stays.
    pub(crate) fn put_group_back(&self, group: Arc<Group>) {
        self.groups.write().by_id.insert(group.id(), group);
    }

    fn all_groups(&self) -> Vec<Arc<Group>> {
        let groups = self.groups.read();
        std::iter::once(&self.meta).chain(groups.by_id.values()).cloned().collect()
    }
}

/// A group whose only voter is this node needs no election timeout: nobody else can lead it.
async fn elect_if_sole(group: &Group, node_id: NodeId) {
    let elected = match group.voters().await {
        Ok(voters) if voters == [node_id] => group.raft().trigger().elect(false).await,
        other => other.map(drop),
    };
    if let Err(error) = elected {
        tracing::error!(group = group.id(), %error, "a group cannot elect itself");
    }
}
