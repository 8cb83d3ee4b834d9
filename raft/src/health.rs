//! What a node looks at again and again: the space on its disk, and whether its groups still run.

use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use switchboard_engine::log::Log;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::error::NodeFailure;
use crate::group::Group;
use crate::limits;

/// Looks at the free space, for [`Admission`].
pub(crate) async fn watch_disk(log: Log, admission: Arc<Admission>, stop: CancellationToken) {
    let mut looks = tokio::time::interval(limits::DISK_LOOK_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        admission.note(log.space().level);
    }
}

/// Tells of the first group that stopped by an error.
pub(crate) async fn watch_failures(
    groups: impl Fn() -> Vec<Arc<Group>> + Send,
    failure: watch::Sender<Option<NodeFailure>>,
    stop: CancellationToken,
) {
    let mut looks = tokio::time::interval(limits::FAILURE_LOOK_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        for group in groups() {
            let running = group.raft().metrics().borrow_watched().running_state.clone();
            if let Err(error) = running {
                let found = NodeFailure { group: group.id(), reason: error.to_string() };
                tracing::error!(%found, "the node cannot go on");
                failure.send_replace(Some(found));
                return;
            }
        }
    }
}
