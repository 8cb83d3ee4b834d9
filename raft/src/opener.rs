//! How a node opens its groups.

use std::sync::Arc;

use switchboard_engine::log::Log;
use switchboard_engine::{GroupId, META_GROUP, Shard};

use crate::admission::Admission;
use crate::clocks::Clocks;
use crate::error::NodeOpenError;
use crate::group::{Group, GroupParts};
use crate::newcomer::Newcomer;
use crate::options::NodeOptions;
use crate::proposer::Bounds;
use crate::snapshot::SnapshotDir;

/// Everything that groups are opened with.
pub(crate) struct GroupOpener {
    pub(crate) options: NodeOptions,
    pub(crate) log: Log,
    pub(crate) snapshots: SnapshotDir,
    pub(crate) admission: Arc<Admission>,
    pub(crate) clocks: Arc<Clocks>,
}

impl GroupOpener {
    /// The groups besides the meta group that the log holds something of.
    pub(crate) fn known_groups(&self) -> Vec<GroupId> {
        let groups = self.log.groups().into_iter();
        groups.filter(|id| *id != META_GROUP && self.holds_something(*id)).collect()
    }

    /// Opens a group that the node may not know yet. What an earlier life of it has left on the disk, when
    /// a crash cut its end short, is removed first, and the replica is marked as a newcomer.
    pub(crate) async fn open_new(&self, id: GroupId) -> Result<Arc<Group>, NodeOpenError> {
        if !self.holds_something(id) {
            let (files, dir) = (self.options.files.clone(), self.options.data_dir.clone());
            blocking(move || {
                Shard::forget(&files, &dir, id)
                    .and_then(|()| Newcomer::mark(&*files, &dir, id))
                    .map_err(|source| NodeOpenError::Leftovers { group: id, source })
            })
            .await?;
        }
        self.open(id).await
    }

    fn holds_something(&self, id: GroupId) -> bool {
        let state = self.log.group_state(id);
        state.vote.is_some() || state.last.is_some() || state.checkpoint.is_some()
    }

    /// Loads a group's state and starts its replica.
    pub(crate) async fn open(&self, id: GroupId) -> Result<Arc<Group>, NodeOpenError> {
        let (options, log) = (self.options.clone(), self.log.clone());
        let (shard, newcomer) = blocking(move || {
            let newcomer = Newcomer::open(options.files.clone(), &options.data_dir, id)
                .map_err(|source| NodeOpenError::Leftovers { group: id, source })?;
            let shard = Shard::open(log, options.files, &options.data_dir, id, options.shard)
                .map_err(|source| NodeOpenError::Shard { group: id, source })?;
            Ok::<_, NodeOpenError>((shard, newcomer))
        })
        .await?;
        let options = &self.options;
        let parts = GroupParts {
            id,
            node_id: options.node_id,
            log: self.log.clone(),
            shard: Arc::new(shard),
            newcomer,
            clocks: self.clocks.clone(),
            transport: options.transport.clone(),
            snapshots: self.snapshots.clone(),
            bounds: Bounds {
                items_max: options.waiting_items_max,
                bytes_max: options.waiting_bytes_max,
            },
            admission: self.admission.clone(),
        };
        Ok(Group::open(parts).await?)
    }
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    match crate::blocking::run(work).await {
        Ok(result) => result,
        // Blocking tasks are not cancelled, so it panicked; so do we.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
