//! Removing what a replica that left has on the disk beside the log.

use std::{
    io,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use super::{CheckpointError, Shard};
use crate::{GroupId, checkpoint, fs::Files};

impl Shard {
    /// Waits for a checkpoint or an import that is under way, and refuses every later one: its mark would
    /// come into the log behind the end of this replica, as the first word of the next. Blocks.
    pub fn end(&self) {
        let _one_at_a_time = self.writing.lock();
        self.ended.store(true, Ordering::Release);
    }

    /// Called with `writing` held.
    pub(super) fn check_not_ended(&self) -> Result<(), CheckpointError> {
        if self.ended.load(Ordering::Acquire) { Err(CheckpointError::Ended) } else { Ok(()) }
    }

    /// Removes every checkpoint, body and id file of a group. The log must know nothing of it any more,
    /// durably: a state whose log lives on would miss them.
    ///
    /// What a crash leaves behind is removed by the same call; a group that returns must not find it.
    ///
    /// # Errors
    /// The system's, at the first file that stays.
    pub fn forget(files: &Arc<dyn Files>, data_dir: &Path, group: GroupId) -> io::Result<()> {
        for kind in ["bodies", "ids"] {
            let dir = data_dir.join(kind).join(group.to_string());
            let names = match files.list(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                names => names?,
            };
            for name in &names {
                files.remove(&dir.join(name))?;
            }
            if !names.is_empty() {
                files.sync_dir(&dir)?;
            }
        }
        checkpoint::forget(files, data_dir, group)
    }
}
