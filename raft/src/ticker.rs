//! Ticks: entries without commands but their stamp, so that log time moves on and what is due
//! happens although nobody writes.
//!
//! A leader proposes one at most once a second, and only while something of its shard is due; an
//! idle cluster writes nothing.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::group::Group;
use crate::limits::TICK_INTERVAL;

/// Looks at all groups once an interval until it is stopped.
pub(crate) async fn run(groups: impl Fn() -> Vec<Arc<Group>> + Send, stop: CancellationToken) {
    let mut looks = tokio::time::interval(TICK_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        for group in groups() {
            group.tick_if_due();
            // A look at a large shard takes a while, and requests wait for this thread meanwhile.
            tokio::task::yield_now().await;
        }
    }
}
