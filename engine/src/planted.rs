//! Faults that a test can plant, to see that the crash tests find them.
//!
//! Without the feature `planted-bugs` the question is a constant, and nothing of this is left in a
//! program. With it, a test plants one fault at a time, for its own thread: simulated logs are stepped,
//! so all they do is done on the thread of the test.

/// A fault of the engine, each one that was made before somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "planted-bugs"), expect(unreachable_pub, reason = "tests alone reach it"))]
pub enum Bug {
    /// Frames are written, but not synced.
    SkippedSync,
    /// Segments are let go when a purge is queued, before it is durable.
    EarlyRecycle,
    /// A frame names another than the one before it.
    WrongChain,
    /// A segment is written again while a reader holds it.
    HeldSegmentReused,
    /// A segment header leaves out votes, so that only an older segment has them.
    VoteLeftBehind,
    /// The last frame that was found is not made durable before the log goes on behind it.
    LastFrameNotSecured,
    /// A checkpoint names old files that are not synced.
    OldFilesNotSynced,
    /// A checkpoint names files of ids that are not synced.
    IdFilesNotSynced,
    /// A checkpoint is renamed, but its directory is not synced.
    CheckpointNameNotSynced,
    /// The log is purged before the checkpoint is durable.
    EarlyPurge,
    /// What an older checkpoint needs is removed before the name of the newer one is durable.
    EarlyRemoval,
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a fault for the calling thread, or none.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this fault is planted.
#[cfg(feature = "planted-bugs")]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// No fault is planted.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
