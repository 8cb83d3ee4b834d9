//! Bugs that a test plants to prove that a checker bites: each of a kind that was found in other
//! systems. Without the feature `planted-bugs` the question is a constant, and the bug is not built.

/// A bug to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// Entries are reported as durable before they are written.
    AnswerBeforeSync,
    /// Entries are applied by the clock of the node that applies them.
    ApplyByWallClock,
    /// A vote for a candidate is kept in memory only; that for a leader is kept.
    LostVote,
    /// A leader that restarts within its lease goes on leading in its old term.
    LeaderRestore,
    /// The log is purged before the checkpoint that replaces it is durable.
    PurgeBeforeCheckpoint,
    /// Reads are served without a check of leadership.
    StaleRead,
    /// Stamps follow the clock of the leader alone.
    OwnClock,
    /// A node that lost its disk is a voter as before. It is planted in whoever would keep it out.
    LostDiskVotes,
    /// Who votes changes at once, without the step in which both the old and the new voters decide.
    SkippedJointStep,
    /// An append without entries arrives ahead of entries that were sent before it.
    OvertakingAppend,
}

#[cfg(feature = "planted-bugs")]
mod planting {
    use std::cell::Cell;
    use std::sync::LazyLock;

    use super::PlantedBug;

    /// Names the bug of a process of its own, which no test can reach: `PLANTED_BUG=stale-read`.
    const VARIABLE: &str = "PLANTED_BUG";

    static OF_THE_PROCESS: LazyLock<Option<PlantedBug>> = LazyLock::new(|| {
        let name = std::env::var_os(VARIABLE)?;
        assert!(name == "stale-read", "{VARIABLE} names no bug that a process can have: {name:?}");
        Some(PlantedBug::StaleRead)
    });

    thread_local! {
        static PLANTED: Cell<Option<PlantedBug>> = const { Cell::new(None) };
    }

    /// Plants a bug in everything that runs on this thread, until the value returned is dropped.
    #[must_use]
    pub fn plant(bug: PlantedBug) -> Planted {
        PLANTED.set(Some(bug));
        Planted(())
    }

    /// See [`plant`].
    #[derive(Debug)]
    pub struct Planted(());

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }

    pub(crate) fn is(bug: PlantedBug) -> bool {
        PLANTED.get().or(*OF_THE_PROCESS) == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub(crate) use planting::is;
#[cfg(feature = "planted-bugs")]
pub use planting::{Planted, plant};

/// Whether the bug is planted: never in this build.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn is(_bug: PlantedBug) -> bool {
    false
}
