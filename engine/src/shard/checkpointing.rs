//! Taking a checkpoint: bodies that still wait, the state, the mark in the log.

use std::{collections::BTreeSet, io};

use super::{
    CheckpointError, Shard,
    pass::{Pass, Passed},
};
use crate::{
    CheckpointMeta, LogId,
    checkpoint::{write_counts, write_dedup_index, write_header, write_meta},
    id_files::Run,
    limits::{OLD_FILE_SMALL_BYTES, OLD_FILES_SMALL_MAX},
    log::Record,
    planted::{self, Bug},
    state::{Live, Snapshot},
};

/// What a checkpoint names.
pub(super) struct Written {
    passed: Passed,
    ids: Vec<Run>,
}

impl Shard {
    /// Makes the state as of the last entry applied durable outside the log; returns where it stands.
    /// Blocks; `apply` and reads go on.
    ///
    /// # Errors
    /// See [`CheckpointError`]. The checkpoint before stays in force, and what was written is removed
    /// by a later one.
    pub fn checkpoint(&self) -> Result<LogId, CheckpointError> {
        let _one_at_a_time = self.writing.lock();
        self.check_not_ended()?;
        let snapshot = self.snapshot();
        let at = snapshot.header.applied.ok_or(CheckpointError::Empty)?;
        if let Some(done) = self.checkpoint_meta().filter(|done| done.at >= at) {
            return Ok(done.at);
        }
        if planted::is(Bug::EarlyPurge) && self.options.purge_after_checkpoint {
            self.log.append_wait(vec![Record::Purge { group: self.group, upto: at }])?;
        }
        let rewritten = self.files_to_rewrite()?;
        let written = self.write_checkpoint(&snapshot, at, rewritten, false);
        let mut written = written.inspect_err(|_| self.clear_away())?;
        let membership = snapshot.header.membership.clone();
        drop(snapshot);
        let state = self.state();
        // Each is dropped as soon as it is done with.
        let moved = std::mem::take(&mut written.passed.moved);
        moved.into_iter().for_each(|moved| moved.relocate(&state));
        *self.checkpoint.write() = Some(CheckpointMeta { at, membership });
        self.adopt_files(at.index, written)?;
        if self.options.purge_after_checkpoint {
            self.log.append_wait(vec![Record::Purge { group: self.group, upto: at }])?;
        }
        Ok(at)
    }

    /// Writes a snapshot and everything that it names, and marks it in the log: it is durable when this
    /// returns. `afresh`: it is of another state than the checkpoint before.
    pub(super) fn write_checkpoint(
        &self,
        snapshot: &Snapshot,
        at: LogId,
        rewritten: BTreeSet<u32>,
        afresh: bool,
    ) -> Result<Written, CheckpointError> {
        let written = self.checkpoints.write(at.index, |sections| {
            write_header(sections, &snapshot.header)?;
            write_counts(sections, snapshot.users)?;
            let passed = Pass::new(self, snapshot, rewritten).run(snapshot, sections)?;
            let ids = self.ids.write(&snapshot.dedup, afresh)?;
            write_dedup_index(sections, &snapshot.dedup, &ids)?;
            write_meta(sections, &snapshot.meta)?;
            Ok::<_, CheckpointError>(Written { passed, ids })
        })?;
        self.log.append_wait(vec![Record::Checkpoint { group: self.group, at }])?;
        Ok(written)
    }

    /// Gives back the space that an unfinished checkpoint took, as far as that goes. One that has got its
    /// name may be found by the next start, so it keeps what it names, also while others fail after it.
    pub(super) fn clear_away(&self) {
        let adopted = self.checkpoint_meta().map_or(0, |meta| meta.at.index);
        let is_adopted = |found: &u64| *found <= adopted;
        if self.checkpoints.indexes().is_ok_and(|found| found.iter().all(is_adopted)) {
            self.checkpoints.remove_unfinished();
            let _ = self.ids.remove_unused();
            let _ = self.old.retain(&self.live.lock());
        }
    }

    /// Old files of which less than half is live, and small ones once there are many. What is live was
    /// counted by the checkpoint before, on its way; since then it can only have become less.
    fn files_to_rewrite(&self) -> Result<BTreeSet<u32>, CheckpointError> {
        let sizes = self.old.sizes()?;
        let small = sizes.values().filter(|size| **size < OLD_FILE_SMALL_BYTES).count();
        let is_worth_it = |(file, live): (u32, u64)| {
            let size = sizes.get(&file).copied().unwrap_or(0);
            let gathers = small > OLD_FILES_SMALL_MAX && size < OLD_FILE_SMALL_BYTES;
            (gathers || live.saturating_mul(2) < size).then_some(file)
        };
        Ok(self.live.lock().iter().filter_map(is_worth_it).collect())
    }

    /// Removes what the newest checkpoint does not name, at start.
    pub(super) fn remove_unused(&self, newest: Option<u64>, live: Live) -> io::Result<()> {
        if newest.is_some() && !planted::is(Bug::EarlyRemoval) {
            self.checkpoints.secure()?;
        }
        self.checkpoints.remove_below(newest.unwrap_or(0))?;
        self.ids.remove_unused()?;
        self.old.retain(&live).map_err(io::Error::other)?;
        *self.live.lock() = live;
        Ok(())
    }

    /// Removes what a checkpoint that is durable now does not name. What it names is known before anything is
    /// removed: if that fails, a later call must not take it for unused.
    pub(super) fn adopt_files(&self, index: u64, written: Written) -> Result<(), CheckpointError> {
        self.ids.adopt(written.ids);
        *self.live.lock() = written.passed.live;
        self.checkpoints.remove_below(index)?;
        self.ids.remove_unused()?;
        Ok(self.old.retain(&self.live.lock())?)
    }
}
