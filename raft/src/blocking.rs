//! Work that blocks: on a thread of the runtime that may, or in place where there are no threads.
//!
//! In a simulation a thread would end the determinism: when it comes back is up to the machine. So
//! the work is done at once, which is as good, because there the disk is memory.

use tokio::task::JoinError;

/// Runs what blocks. An error means that it panicked.
#[cfg(not(feature = "simulation"))]
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    tokio::task::spawn_blocking(work).await
}

/// Runs what blocks. An error means that it panicked.
#[cfg(feature = "simulation")]
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if crate::simulation::is_running() {
        // A task of its own, so that a panic ends where it would end with a thread.
        tokio::spawn(async move { work() }).await
    } else {
        tokio::task::spawn_blocking(work).await
    }
}

/// How many pieces of blocking work are worth having under way at once.
pub(crate) fn parallelism() -> usize {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_running() {
        return 1;
    }
    std::thread::available_parallelism().map_or(2, usize::from)
}
