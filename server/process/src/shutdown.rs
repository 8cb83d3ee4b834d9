//! Graceful shutdown of one server: a token that says "stop", and the set of tasks to wait for.

use std::{future::Future, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::TaskTracker,
};

/// The exit code of a process that a second signal cut short (128 + SIGINT).
const EXIT_FORCED: i32 = 130;

/// A cancellation token together with the tasks that must end after it.
///
/// Clones are handles to the same shutdown. Triggering it twice is harmless.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let shutdown = switchboard_process::Shutdown::new();
/// let token = shutdown.token();
/// shutdown.spawn(async move { token.cancelled().await });
/// shutdown.trigger();
/// assert!(shutdown.drain(std::time::Duration::from_secs(5)).await);
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// A shutdown that nothing has triggered.
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that is cancelled when the shutdown begins.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Begins the shutdown.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Whether the shutdown has begun.
    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves when the shutdown begins.
    pub fn triggered(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }

    /// Spawns a task that [`Shutdown::drain`] waits for.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Waits until every task spawned here has ended; false if `wait_max` passed first.
    pub async fn drain(&self, wait_max: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(wait_max, self.tasks.wait()).await.is_ok()
    }

    /// Triggers the shutdown at the first SIGTERM or SIGINT; the second one ends the process at
    /// once, for an operator who will not wait.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let token = self.token();
        // Not tracked: this task outlives the drain, so that a second signal can cut it short.
        tokio::spawn(async move {
            let mut first = true;
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if !first {
                    tracing::warn!(signal = name, "second signal: exiting without waiting");
                    std::process::exit(EXIT_FORCED);
                }
                tracing::info!(signal = name, "shutting down");
                token.cancel();
                first = false;
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_waits_for_tasks_and_reports_those_that_hang() {
        let shutdown = Shutdown::new();
        let (release, held) = tokio::sync::oneshot::channel::<()>();
        shutdown.spawn(async move { held.await.ok() });
        shutdown.trigger();
        assert!(!shutdown.drain(Duration::ZERO).await);
        drop(release);
        assert!(shutdown.drain(Duration::from_secs(60)).await);
        assert!(shutdown.is_triggered());
    }
}
