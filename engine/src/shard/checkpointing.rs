//! Taking a checkpoint: bodies that still wait, the state, the mark in the log.

use std::{collections::BTreeSet, io};

use super::{
    CheckpointError, Shard,
    pass::{Live, Pass, Passed},
};
use crate::{
    CheckpointMeta, LogId,
    checkpoint::{write_header, write_rest},
    limits::{OLD_FILE_SMALL_BYTES, OLD_FILES_SMALL_MAX},
    log::Record,
    state::Snapshot,
};

impl Shard {
    /// Makes the state as of the last entry applied durable outside the log; returns where it stands.
    /// Blocks; `apply` and reads go on.
    ///
    /// # Errors
    /// See [`CheckpointError`]. The checkpoint before stays in force, and what was written is removed
    /// by a later one.
    pub fn checkpoint(&self) -> Result<LogId, CheckpointError> {
        let _one_at_a_time = self.writing.lock();
        let snapshot = self.snapshot();
        let at = snapshot.header.applied.ok_or(CheckpointError::Empty)?;
        if let Some(done) = self.checkpoint_meta().filter(|done| done.at >= at) {
            return Ok(done.at);
        }
        let rewritten = self.files_to_rewrite()?;
        let Passed { live, moved } = self.write_checkpoint(&snapshot, at, rewritten)?;
        let membership = snapshot.header.membership.clone();
        drop(snapshot);
        let state = self.state();
        moved.iter().for_each(|moved| moved.relocate(&state));
        *self.checkpoint.write() = Some(CheckpointMeta { at, membership });
        self.checkpoints.remove_below(at.index)?;
        self.keep_old_files(live)?;
        if self.options.purge_after_checkpoint {
            self.log.append_wait(vec![Record::Purge { group: self.group, upto: at }])?;
        }
        Ok(at)
    }

    /// Writes a snapshot and everything that it names, and marks it in the log: it is durable when this
    /// returns.
    pub(super) fn write_checkpoint(
        &self,
        snapshot: &Snapshot,
        at: LogId,
        rewritten: BTreeSet<u32>,
    ) -> Result<Passed, CheckpointError> {
        let passed = self.checkpoints.write(at.index, |sections| {
            write_header(sections, &snapshot.header)?;
            let passed = Pass::new(self, snapshot, rewritten).run(snapshot, sections)?;
            write_rest(sections, snapshot)?;
            Ok::<_, CheckpointError>(passed)
        })?;
        self.log.append_wait(vec![Record::Checkpoint { group: self.group, at }])?;
        Ok(passed)
    }

    /// Old files of which less than half is live, and small ones once there are many. What is live was
    /// counted by the checkpoint before, on its way; since then it can only have become less.
    fn files_to_rewrite(&self) -> Result<BTreeSet<u32>, CheckpointError> {
        let sizes = self.old.sizes()?;
        let small = sizes.values().filter(|size| **size < OLD_FILE_SMALL_BYTES).count();
        let is_worth_it = |(file, live): (&u32, &u64)| {
            let size = sizes.get(file).copied().unwrap_or(0);
            let gathers = small > OLD_FILES_SMALL_MAX && size < OLD_FILE_SMALL_BYTES;
            (gathers || live.saturating_mul(2) < size).then_some(*file)
        };
        Ok(self.live.lock().iter().filter_map(is_worth_it).collect())
    }

    /// Removes files that the newest checkpoint does not name.
    pub(super) fn remove_unused(&self, newest: Option<u64>, live: Live) -> io::Result<()> {
        self.checkpoints.remove_below(newest.unwrap_or(0))?;
        self.keep_old_files(live).map_err(io::Error::other)
    }

    fn keep_old_files(&self, live: Live) -> Result<(), crate::BodyError> {
        self.old.retain(&live)?;
        *self.live.lock() = live;
        Ok(())
    }
}
