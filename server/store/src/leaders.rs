//! Who leads the shards that have no replica on this node, or one that nobody need tell of it.
//!
//! A replica hears of its leader from Raft, unless it comes or goes: then its group has no word for it yet, or
//! no more.
//! For such shards, and those that are not here, the nodes that have one are asked, again and again: each
//! names the shards that it leads itself. Between two looks an answer may be old; what is then sent to the
//! wrong node comes back as UNAVAILABLE, which makes the next look come at once, and is tried again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use switchboard_api::v1::{self, forwarded_answer::Answer, forwarded_call::Call};
use switchboard_engine::META_GROUP;
use switchboard_raft::{Group, NodeId, shard_of};
use tokio::sync::Notify;

use crate::{errors, limits, service::Service};

/// What other nodes said that they lead.
#[derive(Default)]
pub(crate) struct Leaders {
    /// Term and node by shard. A lock, because every request may ask; held to look one up.
    known: RwLock<BTreeMap<u32, (u64, NodeId)>>,
    /// Shards with a replica here that comes or goes, or should have gone. A lock for the same reason.
    unsettled: RwLock<BTreeSet<u32>>,
    /// Whether there are any, so that mostly nobody takes that lock.
    is_any_unsettled: AtomicBool,
    /// Something was sent to a node that may not lead its shard.
    doubted: Notify,
}

impl Leaders {
    fn get(&self, shard: u32) -> Option<NodeId> {
        self.known.read().get(&shard).map(|(_, node)| *node)
    }

    /// Who leads a shard by what was heard here and by what others said: the later term is right.
    fn later(&self, shard: u32, own: Option<(u64, NodeId)>) -> Option<NodeId> {
        let known = self.known.read().get(&shard).copied();
        // Of equals, who leads says so itself.
        let is_own = |own: &(u64, NodeId)| known.is_none_or(|known| own.0 > known.0);
        own.filter(is_own).or(known).map(|(_, node)| node)
    }

    /// What was sent elsewhere came back undone: the answers may be old.
    pub(crate) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Waits until it is time to ask again; whether that is because of a doubt.
    async fn next_look(&self, interval: Duration) -> bool {
        let doubted = async {
            // What comes back is sent again soon, and while a shard has no leader asking helps nobody.
            tokio::time::sleep(limits::LEADERS_ASK_PAUSE).await;
            self.doubted.notified().await;
        };
        tokio::time::timeout(interval, doubted).await.is_ok()
    }

    fn set_unsettled(&self, unsettled: BTreeSet<u32>) {
        self.is_any_unsettled.store(!unsettled.is_empty(), Ordering::Release);
        *self.unsettled.write() = unsettled;
    }

    fn is_unsettled(&self, shard: u32) -> bool {
        self.is_any_unsettled.load(Ordering::Acquire) && self.unsettled.read().contains(&shard)
    }

    /// The later term is right: a node that was deposed may not know it yet.
    fn note(&self, node: NodeId, leads: &[v1::leads_response::Shard]) {
        let mut known = self.known.write();
        known.retain(|shard, (_, of)| *of != node || leads.iter().any(|one| one.shard == *shard));
        for v1::leads_response::Shard { shard, term } in leads {
            let entry = known.entry(*shard).or_insert((*term, node));
            if *term >= entry.0 {
                *entry = (*term, node);
            }
        }
    }
}

/// Where requests for a shard are answered.
pub(crate) enum Home {
    /// By the replica here, which leads, or as well as it can.
    Here,
    /// By that node.
    Elsewhere(NodeId),
}

impl Service {
    /// Where requests for a user are answered.
    pub(crate) fn home_of(&self, user: &[u8]) -> Result<Home, tonic::Status> {
        let table = self.node.shard_table();
        let count = u32::try_from(table.len()).unwrap_or(0);
        if count == 0 {
            return Err(errors::not_initialized());
        }
        let shard = shard_of(user, count);
        let group = table.get(shard as usize).cloned().flatten();
        match (self.leader_elsewhere(shard, group.as_deref()), group) {
            (Some(node), _) => Ok(Home::Elsewhere(node)),
            (None, Some(_)) => Ok(Home::Here),
            (None, None) => Err(errors::no_leader(shard)),
        }
    }

    /// Which other node leads each shard; none where this one does or nobody is known to.
    pub(crate) fn leaders_elsewhere(&self) -> Vec<Option<NodeId>> {
        let table = self.node.shard_table();
        let shards = table.iter().zip(0..);
        shards.map(|(group, shard)| self.leader_elsewhere(shard, group.as_deref())).collect()
    }

    /// Which other node leads a shard whose replica here, if any, is this one. Of a shard that is not here
    /// any node that has it, and can be asked, is better than none.
    pub(crate) fn leader_elsewhere(&self, shard: u32, group: Option<&Group>) -> Option<NodeId> {
        match group {
            Some(group) if self.peers.is_alone() || !self.is_unsettled(group) => {
                self.elsewhere(group)
            }
            Some(group) => self.leader_by_all(shard, group),
            None => self.leaders.get(shard).or_else(|| self.any_replica(shard)),
        }
        .filter(|leader| *leader != self.node.node_id())
    }

    /// Whether a replica here may not know who leads: it comes or goes. A new one may be here before a look at what
    /// moves has shown that it comes.
    fn is_unsettled(&self, group: &Group) -> bool {
        group.is_new() || self.leaders.is_unsettled(group.id() - 1)
    }

    fn any_replica(&self, shard: u32) -> Option<NodeId> {
        let replicas = self.replicas_of(shard);
        let connected = replicas.iter().find(|node| self.peers.is_connected(**node));
        connected.or(replicas.first()).copied()
    }

    /// Who leads a shard whose replica here may not have heard of it.
    fn leader_by_all(&self, shard: u32, group: &Group) -> Option<NodeId> {
        let own = group.leader().map(|leader| (group.status().term, leader));
        self.leaders.later(shard, own)
    }

    /// Who leads a shard, wherever it is; none if nobody is known to.
    pub(crate) fn leader_of(&self, shard: u32) -> Option<NodeId> {
        match self.node.shard_table().get(shard as usize).cloned().flatten() {
            Some(group) if self.is_unsettled(&group) => self.leader_by_all(shard, &group),
            Some(group) => group.leader(),
            None => self.leaders.get(shard),
        }
    }

    /// The voters of a shard: by its own replica here, or else as the placement says.
    pub(crate) fn replicas_of(&self, shard: u32) -> Vec<NodeId> {
        let group = self.node.shard_table().get(shard as usize).cloned().flatten();
        let settled = group.filter(|group| !self.is_unsettled(group));
        let voters = settled.map(|group| group.status().voters).unwrap_or_default();
        if !voters.is_empty() {
            return voters;
        }
        let meta = self.node.meta().shard();
        meta.meta(|meta| meta.placement().replicas(shard).map(<[_]>::to_vec).unwrap_or_default())
    }

    /// The shards that this node leads.
    pub(crate) fn leads_here(&self) -> v1::LeadsResponse {
        let leads = self.node.groups().into_iter().filter(|group| group.is_leader());
        let shard = |group: Arc<Group>| v1::leads_response::Shard {
            shard: group.id() - 1,
            term: group.status().term,
        };
        let shards = leads.filter(|group| group.id() != META_GROUP).map(shard).collect();
        v1::LeadsResponse { shards }
    }

    /// Asks for the leaders of shards that are not here, or come or go, until the shutdown.
    pub(crate) async fn follow_leaders(self: Arc<Self>) {
        let token = self.shutdown.token();
        loop {
            self.leaders.set_unsettled(self.unsettled_shards());
            let nodes = self.nodes_to_ask().into_iter();
            let asked: Vec<_> = nodes.map(|node| self.ask_for_leads(node)).collect();
            tokio::select! {
                () = token.cancelled() => return,
                answers = futures::future::join_all(asked) => {
                    for (node, leads) in answers {
                        self.leaders.note(node, &leads.shards);
                    }
                }
            }
            tokio::select! {
                () = token.cancelled() => return,
                _ = self.leaders.next_look(self.leaders_look_interval()) => {}
            }
        }
    }

    /// A shard that moves changes its leader, and until this node hears of that, whoever asks it sends all that is
    /// for the shard to the wrong node.
    fn leaders_look_interval(&self) -> Duration {
        let is_moving =
            self.node.meta().shard().meta(|meta| meta.placement().moves().next().is_some());
        if is_moving { limits::LEADERS_LOOK_WHILE_MOVING } else { limits::LEADERS_LOOK_INTERVAL }
    }

    /// What a node leads; who does not answer leads nothing that could be reached.
    async fn ask_for_leads(&self, node: NodeId) -> (NodeId, v1::LeadsResponse) {
        let take = |answer| match answer {
            Answer::Leads(leads) => Some(leads),
            _ => None,
        };
        let hop = self.hop(node, Call::Leads(v1::LeadsRequest {}), take);
        let answer = tokio::time::timeout(limits::LEADERS_WAIT_MAX, hop).await;
        (node, answer.ok().and_then(Result::ok).unwrap_or_default())
    }

    /// The replicas of shards that are on this node.
    pub(crate) fn shards_here(&self) -> Vec<Arc<Group>> {
        self.node.shard_table().iter().flatten().cloned().collect()
    }

    /// The shards whose replicas here the placement does not name, or not yet, or not for long.
    fn unsettled_shards(&self) -> BTreeSet<u32> {
        let node = self.node.node_id();
        let here = self.shards_here().into_iter().map(|group| group.id() - 1);
        self.node.meta().shard().meta(|meta| {
            let placement = meta.placement();
            let leaves = |shard: &u32| {
                let moving = placement.move_of(*shard).map(|one| one.replica);
                let is_moving = moving.is_some_and(|one| one.from == node || one.to == node);
                is_moving || !placement.names(*shard, node)
            };
            here.filter(leaves).collect()
        })
    }

    /// The nodes that have, or get, a replica of a shard that has none here, or one that comes or goes.
    fn nodes_to_ask(&self) -> BTreeSet<NodeId> {
        let table = self.node.shard_table();
        let shards = table.iter().zip(0_u32..);
        let knows = |group: &Arc<Group>| !self.is_unsettled(group);
        let absent = shards.filter(|(group, _)| !group.as_ref().is_some_and(knows));
        let mut nodes: BTreeSet<NodeId> = self.node.meta().shard().meta(|meta| {
            let placement = meta.placement();
            let of = |shard: u32| {
                let to = placement.move_of(shard).map(|moving| moving.replica.to);
                placement.replicas(shard).unwrap_or_default().iter().copied().chain(to)
            };
            absent.flat_map(|(_, shard)| of(shard)).collect()
        });
        nodes.remove(&self.node.node_id());
        nodes.remove(&0);
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_sent_to_the_wrong_node_makes_one_look_come_early() {
        let leaders = Leaders::default();
        assert!(!leaders.next_look(limits::LEADERS_LOOK_INTERVAL).await);
        leaders.doubt();
        leaders.doubt();
        assert!(leaders.next_look(limits::LEADERS_LOOK_INTERVAL).await);
        assert!(
            !leaders.next_look(limits::LEADERS_LOOK_INTERVAL).await,
            "both are answered by one look"
        );
    }

    #[test]
    fn the_leader_of_the_latest_term_counts_and_who_leads_no_more_is_forgotten() {
        let leaders = Leaders::default();
        let leads = |shard, term| v1::leads_response::Shard { shard, term };
        leaders.note(1, &[leads(0, 3), leads(1, 1)]);
        leaders.note(2, &[leads(0, 2)]);
        assert_eq!((leaders.get(0), leaders.get(1)), (Some(1), Some(1)));
        // A replica that comes or goes may know less, or more.
        assert_eq!(leaders.later(0, Some((2, 9))), Some(1));
        assert_eq!(leaders.later(0, Some((4, 9))), Some(9));
        assert_eq!((leaders.later(7, Some((1, 9))), leaders.later(7, None)), (Some(9), None));
        leaders.note(2, &[leads(0, 4)]);
        leaders.note(1, &[leads(0, 3)]);
        assert_eq!((leaders.get(0), leaders.get(1)), (Some(2), None));
    }
}
