//! Which replicas this node has: what the meta group's placement names, as far as it is applied here.
//!
//! ```text
//!  placement names this node ─▶ an empty replica, in a new life of the group ─▶ its leader feeds it
//!  placement names it no more ─▶ its group counts on it no more ─▶ the log forgets the group ─▶ its files go
//! ```
//! A replica that is new here has no vote before it has [caught up](crate::newcomer).
//!
//! The placement that is applied here may be old, or wrong, so it only raises the question. What decides is
//! the word of the group's leader that this node is no member and that every voter knows it.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use switchboard_engine::log::Record;
use switchboard_engine::{GroupId, META_GROUP, Shard, group_of_shard};
use tokio_util::sync::CancellationToken;

use crate::blocking;
use crate::group::Group;
use crate::limits::{MAY_FORGET_WAIT_MAX, PLACEMENT_LOOK_INTERVAL};
use crate::network::{PeerRequest, PeerResponse};
use crate::node::{Inner, Node};
use crate::types::NodeId;

/// What there is to do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    open: Vec<u32>,
    drop: Vec<u32>,
}

/// Opens and drops replicas until it is stopped.
pub(crate) async fn follow(inner: Weak<Inner>, stop: CancellationToken) {
    let mut applied = match inner.upgrade() {
        Some(inner) => inner.meta().watch_applied(),
        None => return,
    };
    loop {
        applied.borrow_and_update();
        let Some(inner) = inner.upgrade() else { return };
        let node = Node { inner };
        let Wanted { open, drop: unwanted } = wanted(&node);
        let mut is_any_left = false;
        for shard in open {
            if let Err(error) = node.ensure_group(group_of_shard(shard)).await {
                tracing::error!(shard, %error, "a shard cannot be opened");
                is_any_left = true;
            }
        }
        for shard in unwanted {
            is_any_left |= !node.drop_if_forgotten(group_of_shard(shard)).await;
        }
        node.adopt_shards();
        drop(node);
        // What a leader says of a replica is not told without being asked.
        let pause = match is_any_left {
            false => Duration::from_secs(3_600),
            true => PLACEMENT_LOOK_INTERVAL,
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = applied.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn wanted(node: &Node) -> Wanted {
    let here = |shard: u32| node.group(group_of_shard(shard)).is_some();
    node.meta().shard().meta(|meta| {
        let node_id = node.node_id();
        let is_member = meta.nodes().any(|known| known.node_id == node_id);
        let placement = meta.placement();
        let mut wanted = Wanted::default();
        for shard in 0..meta.shards() {
            let named = placement.names(shard, node_id);
            if is_member && named && !here(shard) {
                wanted.open.push(shard);
            } else if !named && here(shard) {
                wanted.drop.push(shard);
            }
        }
        wanted
    })
}

impl Node {
    /// Drops the replica of a group if nobody counts on it any more; says whether it is gone.
    ///
    /// The group itself is asked, twice: to leave a replica in peace that is needed, and again when this
    /// one takes nothing any more, so that what it has promised and stored until then is all there is.
    pub(crate) async fn drop_if_forgotten(&self, id: GroupId) -> bool {
        debug_assert_ne!(id, META_GROUP, "every node has the meta group");
        let _opening = self.inner.opening().lock().await;
        let (node, Some(group)) = (self.node_id(), self.group(id)) else { return false };
        let others = self.who_may_lead(Some(&group)).await;
        if !self.is_said_to_be_forgotten(id, node, &others).await {
            return false;
        }
        group.set_leaving(true);
        self.inner.take_group(id);
        if !self.is_said_to_be_forgotten(id, node, &others).await {
            group.set_leaving(false);
            self.inner.put_group_back(group);
            return false;
        }
        self.drop_group(group).await;
        true
    }

    /// Whether a leader of the group, here or elsewhere, says for certain that nobody counts on the replica
    /// of another node.
    pub(crate) async fn is_forgotten(&self, id: GroupId, node: NodeId) -> bool {
        let group = self.group(id);
        if let Some(group) = &group
            && group.may_forget(node).await
        {
            return true;
        }
        let mut others = self.who_may_lead(group.as_ref()).await;
        others.remove(&node);
        self.is_said_to_be_forgotten(id, node, &others).await
    }

    /// The other nodes of the cluster, and those that a replica here knows as members.
    async fn who_may_lead(&self, group: Option<&Arc<Group>>) -> BTreeSet<NodeId> {
        let mut others: BTreeSet<_> = self.members().iter().map(|m| m.node_id).collect();
        if let Some(group) = group {
            others.extend(group.members().await.unwrap_or_default());
        }
        others.remove(&self.node_id());
        others
    }

    /// An answer may only be missing: a replica that is kept too long harms nobody.
    async fn is_said_to_be_forgotten(
        &self,
        id: GroupId,
        node: NodeId,
        others: &BTreeSet<NodeId>,
    ) -> bool {
        let asked = others.iter().map(|other| {
            let request = PeerRequest::MayForget { node };
            self.options().transport.call(*other, id, request, MAY_FORGET_WAIT_MAX)
        });
        let answers = futures::future::join_all(asked).await;
        answers
            .iter()
            .any(|answer| matches!(answer, Ok(PeerResponse::MayForget { is_certain: true })))
    }

    /// Ends a replica that nobody finds any more and removes what it has on the disk.
    async fn drop_group(&self, group: Arc<Group>) {
        let id = group.id();
        group.shutdown().await;
        let shard = group.shard().clone();
        if let Err(error) = blocking::run(move || shard.end()).await {
            tracing::error!(group = id, %error, "a replica that belongs elsewhere is not dropped");
            return;
        }
        // The log forgets first: a state whose log lives on would miss its files.
        if let Err(reason) = forget(&group).await {
            tracing::error!(group = id, reason, "a replica that belongs elsewhere is not dropped");
            return;
        }
        drop(group);
        tracing::info!(group = id, "a replica that belongs elsewhere is dropped");
        let (files, dir) = (self.options().files.clone(), self.options().data_dir.clone());
        let removed = blocking::run(move || Shard::forget(&files, &dir, id)).await;
        if let Ok(Err(error)) = removed {
            tracing::error!(group = id, %error, "files of a dropped replica stay");
        }
    }
}

/// Has the log forget the group, and waits until that is durable.
async fn forget(group: &Arc<Group>) -> Result<(), String> {
    let (sender, done) = tokio::sync::oneshot::channel();
    let record = Record::Drop { group: group.id() };
    group.log().append(vec![record], Box::new(move |result| drop(sender.send(result))));
    match done.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the log was closed".to_owned()),
    }
}
