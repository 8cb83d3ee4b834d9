//! Calls as callers make them: who is told to come back comes back, and nobody waits for ever.

use std::time::Duration;

use tonic::{Code, Status};

/// Longest wait for anything; reached by a hang only, however busy the machine is.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

const PAUSE: Duration = Duration::from_millis(20);

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    found(what, async || holds().await.then_some(())).await;
}

/// Waits until there is something.
pub(crate) async fn found<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looked = async {
        loop {
            match look().await {
                Some(found) => return found,
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    tokio::time::timeout(DEADLINE, looked).await.expect(what)
}

/// Repeats a call while it says that nothing has happened and when to come back, as when a shard has no leader.
pub(crate) async fn retried<R>(mut call: impl AsyncFnMut() -> Result<R, Status>) -> R {
    found("answered", async || match call().await {
        Ok(answer) => Some(answer),
        Err(status) => {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            None
        }
    })
    .await
}

/// The refusal of a call that must not be taken; while there is no leader for it, it is repeated.
pub(crate) async fn refused<R>(mut call: impl AsyncFnMut() -> Result<R, Status>) -> Status {
    retried(async || match call().await {
        Ok(_) => panic!("it must be refused"),
        Err(status) if status.code() == Code::Unavailable => Err(status),
        Err(status) => Ok(status),
    })
    .await
}
