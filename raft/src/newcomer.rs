//! A replica that is new on this node, and may stand where another one has made promises: one that was
//! dropped, or that was lost with its disk.
//!
//! ```text
//!  opened, empty ─▶ marked on the disk ─▶ holds all that a leader had committed ─▶ mark removed: it votes
//! ```
//! Who left a group long ago, and was away since, still counts on the replica that was here then. An empty
//! one, or one that is fed old entries with old members in them, would elect him. One that holds what a leader
//! has committed in its own term knows of every change of members before that, and its log is ahead of his.
//!
//! The mark is an empty file `newcomers/GROUP`. It is there before the replica is, and goes after what makes
//! it unnecessary is durable.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use switchboard_engine::GroupId;
use switchboard_engine::fs::{Files, write_whole};

use crate::blocking;
use crate::types::{TypeConfig, to_engine, vote_parts};

/// What an append says that a newcomer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// What is committed, if the leader has committed something in its own term: it knows all then.
    certain: Option<u64>,
    /// The last entry that is held once the append is taken.
    last: Option<u64>,
}

impl Told {
    pub(crate) fn by(append: &AppendEntriesRequest<TypeConfig>) -> Self {
        let (term, _) = vote_parts(&append.vote);
        let committed = append.leader_commit.as_ref().map(to_engine);
        let last = append.entries.last().map(|entry| entry.log_id).or(append.prev_log_id);
        Self {
            certain: committed.filter(|at| at.term == term).map(|at| at.index),
            last: last.as_ref().map(|at| to_engine(at).index),
        }
    }
}

/// Whether a replica is new here.
pub(crate) struct Newcomer {
    files: Arc<dyn Files>,
    dir: PathBuf,
    group: GroupId,
    is_new: AtomicBool,
    /// What it has to hold. A lock, for appends may be answered side by side; held to compare.
    must_hold: Mutex<Option<u64>>,
}

fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("newcomers")
}

impl Newcomer {
    /// Marks a replica that is about to be opened. Blocks.
    pub(crate) fn mark(files: &dyn Files, data_dir: &Path, group: GroupId) -> io::Result<()> {
        let dir = directory(data_dir);
        files.create_dir_all(&dir)?;
        write_whole(files, &dir, &group.to_string(), &[])
    }

    /// Looks whether a replica is marked. Blocks.
    pub(crate) fn open(files: Arc<dyn Files>, data_dir: &Path, group: GroupId) -> io::Result<Self> {
        let dir = directory(data_dir);
        let is_new = match files.list(&dir) {
            Ok(names) => names.contains(&group.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        let is_new = AtomicBool::new(is_new);
        Ok(Self { files, dir, group, is_new, must_hold: Mutex::default() })
    }

    /// Whether it is new still, so that it must neither vote nor stand for election.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new.load(Ordering::Acquire)
    }

    /// An append was taken, and is durable. Says whether the replica holds enough to be new no more.
    pub(crate) fn has_caught_up(&self, told: Told) -> bool {
        if !self.is_new() {
            return false;
        }
        let mut must_hold = self.must_hold.lock();
        if must_hold.is_none() {
            *must_hold = told.certain;
        }
        must_hold.is_some() && told.last >= *must_hold
    }

    /// Ends it, durably first.
    pub(crate) async fn end(&self) -> io::Result<()> {
        if !self.is_new() {
            return Ok(());
        }
        let (files, dir, name) = (self.files.clone(), self.dir.clone(), self.group.to_string());
        let removed = blocking::run(move || {
            match files.remove(&dir.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                // Somebody else ended it at the same time.
                _ => {}
            }
            files.sync_dir(&dir)
        });
        removed.await.map_err(io::Error::other)??;
        self.is_new.store(false, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use switchboard_engine::fs::sim::SimFiles;

    use super::*;

    const DATA: &str = "/data";

    fn open(files: &Arc<dyn Files>) -> Newcomer {
        Newcomer::open(files.clone(), Path::new(DATA), 3).expect("readable")
    }

    #[tokio::test]
    async fn it_is_new_until_it_holds_what_a_leader_has_committed_in_its_term() {
        let files: Arc<dyn Files> = Arc::new(SimFiles::new(1));
        assert!(!open(&files).is_new(), "nothing says so");
        Newcomer::mark(&*files, Path::new(DATA), 3).expect("marked");
        let newcomer = open(&files);
        assert!(newcomer.is_new());
        let uncertain = Told { certain: None, last: Some(9) };
        assert!(!newcomer.has_caught_up(uncertain), "a leader may not know yet what is committed");
        assert!(!newcomer.has_caught_up(Told { certain: Some(7), last: Some(2) }));
        assert!(!newcomer.has_caught_up(Told { certain: Some(9), last: Some(6) }));
        assert!(newcomer.has_caught_up(Told { certain: Some(20), last: Some(7) }));
        newcomer.end().await.expect("removed");
        assert!(!newcomer.is_new() && !open(&files).is_new());
        newcomer.end().await.expect("once is enough");
    }

    #[test]
    fn a_restart_leaves_it_as_new_as_it_was() {
        let files: Arc<dyn Files> = Arc::new(SimFiles::new(2));
        Newcomer::mark(&*files, Path::new(DATA), 3).expect("marked");
        Newcomer::mark(&*files, Path::new(DATA), 3).expect("marked again");
        assert!(!open(&files).has_caught_up(Told { certain: Some(7), last: Some(6) }));
        let again = open(&files);
        assert!(again.is_new());
        assert!(!again.has_caught_up(Told { certain: Some(8), last: Some(7) }), "told anew");
    }
}
