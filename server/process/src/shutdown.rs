//! Graceful shutdown of one server: a token that says "stop", and the set of tasks to wait for.

use std::{future::Future, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::{limits::SHUTDOWN_MAX, telemetry};

/// The exit code of a process that did not end in order in time.
const EXIT_LATE: i32 = 1;
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

    /// Something that is no task and that [`Shutdown::drain`] waits for: until the value is dropped.
    pub fn hold(&self) -> TaskTrackerToken {
        self.tasks.token()
    }

    /// Waits until every task spawned here has ended; false if `wait_max` passed first.
    pub async fn drain(&self, wait_max: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(wait_max, self.tasks.wait()).await.is_ok()
    }

    /// Triggers the shutdown at the first SIGTERM or SIGINT. The process ends at once at the second
    /// one, for an operator who will not wait, and [`SHUTDOWN_MAX`] after the first, for a
    /// supervisor that should not have to use force.
    ///
    /// A thread listens, not a task: signals are heard also when every thread of the server's
    /// runtime is stuck.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let installed = {
            let _entered = runtime.enter();
            Signals::install()
        };
        let signals = match installed {
            Ok(signals) => signals,
            Err(error) => {
                // A runtime may not be dropped by a task of another one.
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let token = self.token();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(listen(signals, token)))?;
        Ok(())
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Does not return: the process ends in order meanwhile, or is ended here.
async fn listen(mut signals: Signals, token: CancellationToken) {
    let signal = signals.next().await;
    tracing::info!(signal, "shutting down");
    token.cancel();
    let code = match tokio::time::timeout(SHUTDOWN_MAX, signals.next()).await {
        Ok(signal) => {
            tracing::warn!(signal, "second signal: exiting without waiting");
            EXIT_FORCED
        }
        Err(_) => {
            tracing::error!("not everything has ended after {SHUTDOWN_MAX:?}: exiting without");
            EXIT_LATE
        }
    };
    telemetry::flush();
    std::process::exit(code);
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
