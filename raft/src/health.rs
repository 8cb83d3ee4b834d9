//! What a node looks at again and again: the space on its disk, and whether its groups still run.

use std::sync::Arc;

use switchboard_engine::log::Log;
use switchboard_engine::{Formats, META_GROUP, MetaState};
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
            biased;
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        admission.note(log.space().level);
    }
}

/// Tells of the first group that stopped by an error, or of a log that is closed: without groups
/// that write, nobody else would notice.
pub(crate) async fn watch_failures(
    log: Log,
    groups: impl Fn() -> Vec<Arc<Group>> + Send,
    formats: Formats,
    failure: watch::Sender<Option<NodeFailure>>,
    stop: CancellationToken,
) {
    let mut looks = tokio::time::interval(limits::FAILURE_LOOK_INTERVAL);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        if let Some(found) = find_failure(&log, &groups(), formats).await {
            tracing::error!(%found, "the node cannot go on");
            failure.send_replace(Some(found));
            return;
        }
    }
}

/// The format that the meta group has been raised to, and those of this node, if it is not among them.
pub(crate) fn unreadable(meta: &Group, formats: Formats) -> Option<(u32, Formats)> {
    let active = meta.shard().meta(MetaState::format);
    (!formats.reads(active)).then_some((active, formats))
}

async fn find_failure(log: &Log, groups: &[Arc<Group>], formats: Formats) -> Option<NodeFailure> {
    let meta = groups.iter().find(|group| group.id() == META_GROUP);
    if let Some((active, formats)) = meta.and_then(|meta| unreadable(meta, formats)) {
        return Some(NodeFailure::Format { active, formats });
    }
    let mut stopped = None;
    for group in groups {
        // Asked of openraft itself: its metrics stay as they were when it panics.
        if let Err(error) = group.voters().await
            && !group.is_leaving()
        {
            stopped = Some(NodeFailure::Group { group: group.id(), reason: error.to_string() });
            break;
        }
    }
    stopped.or_else(|| log.stats().closed.then_some(NodeFailure::Log))
}

#[cfg(test)]
mod tests {
    use switchboard_engine::fs::sim::SimFiles;

    use super::*;
    use crate::node::Node;
    use crate::options::NodeOptions;

    #[tokio::test]
    async fn a_group_whose_openraft_panicked_is_noticed() {
        let mut options = NodeOptions::new("/data", 1, "node-1");
        options.files = Arc::new(SimFiles::new(1));
        options.log.segment_bytes = limits::SEGMENT_BYTES_MIN;
        let node = Node::open(options).await.expect("opens");
        assert_eq!(find_failure(node.log(), &node.groups(), Formats::OF_THIS_BUILD).await, None);

        // The task of openraft that answers this question is gone with it.
        let asked = node.meta().raft().with_raft_state(|_| -> () { panic!("on purpose") }).await;
        assert!(asked.is_err(), "{asked:?}");
        let found = find_failure(node.log(), &node.groups(), Formats::OF_THIS_BUILD).await;
        assert!(matches!(found, Some(NodeFailure::Group { group: 0, .. })), "{found:?}");
        node.shutdown().await;
    }
}
