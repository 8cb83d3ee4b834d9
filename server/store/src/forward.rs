//! Requests that belong to another node: any node answers any request, by one hop to the leader.
//!
//! Items of a batch go each to the leader of its user's shard, as this node knows it, and come back in
//! the order of the items. What arrives by a hop is answered here whatever comes of it, so nothing
//! hops twice: where leadership has just moved the caller hears UNAVAILABLE, and tries again.

use std::sync::Arc;

use futures::future::join_all;
use switchboard_api::v1::{self, ItemStatus, forwarded_answer::Answer, forwarded_call::Call};
use switchboard_raft::{Group, NodeId, shard_of};
use tonic::{Request, Status};

use crate::{errors, service::Service};

/// Where the items of a batch go.
pub(crate) struct Split<I> {
    /// Those of this node, and those of shards that nobody is known to lead.
    pub(crate) here: Part<I>,
    pub(crate) elsewhere: Vec<(NodeId, Part<I>)>,
}

/// Items with their places in the batch.
pub(crate) struct Part<I> {
    pub(crate) items: Vec<I>,
    pub(crate) places: Vec<usize>,
}

impl<I> Part<I> {
    fn push(&mut self, place: usize, item: I) {
        self.places.push(place);
        self.items.push(item);
    }
}

impl<I> Default for Part<I> {
    fn default() -> Self {
        Self { items: Vec::new(), places: Vec::new() }
    }
}

/// Deals items out; the order within each part is that of the batch. `leader` says which other node
/// leads a shard.
pub(crate) fn split<I>(
    items: Vec<I>,
    user: impl Fn(&I) -> &[u8],
    leaders: &[Option<NodeId>],
) -> Split<I> {
    let mut split = Split { here: Part::default(), elsewhere: Vec::new() };
    let shards = u32::try_from(leaders.len()).unwrap_or(0);
    let leader = |item: &I| match shards {
        // There are no shards yet.
        0 => None,
        shards => leaders.get(shard_of(user(item), shards) as usize).copied().flatten(),
    };
    // Who routes by the shard map sends a node what it leads: then nothing need be moved.
    if leaders.iter().all(Option::is_none) || items.iter().all(|item| leader(item).is_none()) {
        split.here.places = (0..items.len()).collect();
        split.here.items = items;
        return split;
    }
    for (place, item) in items.into_iter().enumerate() {
        let Some(node) = leader(&item) else {
            split.here.push(place, item);
            continue;
        };
        match split.elsewhere.iter_mut().find(|(known, _)| *known == node) {
            Some((_, part)) => part.push(place, item),
            None => {
                let mut part = Part::default();
                part.push(place, item);
                split.elsewhere.push((node, part));
            }
        }
    }
    split
}

/// Puts answers where their items were.
pub(crate) fn put<R>(all: &mut [Option<R>], places: &[usize], results: Vec<R>) {
    for (place, result) in places.iter().zip(results) {
        if let Some(slot) = all.get_mut(*place) {
            *slot = Some(result);
        }
    }
}

/// How a batch is forwarded: its items as a call, and the answer's results.
pub(crate) struct Wire<I, R> {
    pub(crate) call: fn(Vec<I>) -> Call,
    pub(crate) results: fn(Answer) -> Option<Vec<R>>,
    pub(crate) missing: fn(ItemStatus) -> R,
}

impl Service {
    /// Which other node leads this group.
    pub(crate) fn elsewhere(&self, group: &Group) -> Option<NodeId> {
        if self.peers.is_alone() {
            return None;
        }
        group.leader().filter(|leader| *leader != self.node.node_id())
    }

    /// Answers a batch: what belongs here by `local`, the rest by the nodes that it belongs to. It
    /// fails as a whole only if all of it went one way and failed there.
    pub(crate) async fn routed<I, R>(
        &self,
        items: Vec<I>,
        user: impl Fn(&I) -> &[u8],
        wire: Wire<I, R>,
        local: impl AsyncFnOnce(Vec<I>) -> Result<Vec<R>, Status>,
    ) -> Result<Vec<R>, Status> {
        if self.peers.is_alone() {
            return local(items).await;
        }
        let leaders = self.leaders_elsewhere();
        self.routed_to(&leaders, items, user, wire, local).await
    }

    /// The same for what any replica may answer: only what has none here goes elsewhere.
    pub(crate) async fn routed_if_absent<I, R>(
        &self,
        items: Vec<I>,
        user: impl Fn(&I) -> &[u8],
        wire: Wire<I, R>,
        local: impl AsyncFnOnce(Vec<I>) -> Result<Vec<R>, Status>,
    ) -> Result<Vec<R>, Status> {
        if !self.has_absent_shards() {
            return local(items).await;
        }
        let table = self.node.shard_table();
        let leaders = self.leaders_elsewhere().into_iter().zip(table.iter());
        let absent = leaders.map(|(leader, group)| match group {
            Some(group) if !group.is_learner() => None,
            _ => leader,
        });
        let absent: Vec<_> = absent.collect();
        self.routed_to(&absent, items, user, wire, local).await
    }

    /// Whether a shard has no replica here that could answer.
    pub(crate) fn has_absent_shards(&self) -> bool {
        let table = self.node.shard_table();
        table.iter().any(|group| group.as_ref().is_none_or(|group| group.is_learner()))
    }

    async fn routed_to<I, R>(
        &self,
        leaders: &[Option<NodeId>],
        items: Vec<I>,
        user: impl Fn(&I) -> &[u8],
        wire: Wire<I, R>,
        local: impl AsyncFnOnce(Vec<I>) -> Result<Vec<R>, Status>,
    ) -> Result<Vec<R>, Status> {
        let count = items.len();
        let Split { here, mut elsewhere } = split(items, user, leaders);
        let ways = elsewhere.len() + usize::from(!here.items.is_empty());
        let hops: Vec<_> = elsewhere
            .iter_mut()
            .map(|(node, part)| {
                let answer =
                    self.peers.forward(*node, (wire.call)(std::mem::take(&mut part.items)));
                async move { (&part.places, answer.await) }
            })
            .collect();
        let mut all: Vec<Option<R>> = (0..count).map(|_| None).collect();
        let mut failure = None;
        let mine =
            async { if here.items.is_empty() { Ok(Vec::new()) } else { local(here.items).await } };
        let (mine, theirs) = tokio::join!(mine, join_all(hops));
        match mine {
            Ok(results) => put(&mut all, &here.places, results),
            Err(status) => failure = Some(status),
        }
        for (places, answer) in theirs {
            match answer {
                Ok(answer) => put(&mut all, places, (wire.results)(answer).unwrap_or_default()),
                Err(status) => failure = Some(status),
            }
        }
        if let Some(status) = failure.filter(|_| ways == 1) {
            return Err(status);
        }
        let missing = || (wire.missing)(ItemStatus::Unavailable);
        Ok(all.into_iter().map(|result| result.unwrap_or_else(missing)).collect())
    }

    /// Answers what another node passed on. Whether the caller may do what operators may was decided
    /// there.
    pub(crate) async fn answer_forwarded(self: Arc<Self>, call: Call) -> v1::ForwardedAnswer {
        let answer = match call {
            Call::Claim(request) => self.claim_here(request).await.map(Answer::Claim),
            Call::Release(request) => self.release_here(request).await.map(Answer::Release),
            Call::Unregister(request) => {
                self.unregister_here(request).await.map(Answer::Unregister)
            }
            Call::Locate(request) => Ok(Answer::Locate(self.locate_here(request).await)),
            Call::Enqueue(request) => self.enqueue_here(request).await.map(Answer::Enqueue),
            Call::Fetch(request) => self.fetch_here(request).await.map(Answer::Fetch),
            Call::Stat(request) => Ok(Answer::Stat(self.stat_here(request))),
            Call::Ack(request) => self.ack_here(request).await.map(Answer::Ack),
            Call::Purge(request) => self.purge_here(request).await.map(Answer::Purge),
            Call::Register(request) => self.register_here(request).await.map(Answer::Register),
            Call::Deregister(request) => {
                self.deregister_here(request).await.map(Answer::Deregister)
            }
            Call::KeepAlive(request) => self.keep_alive_here(request).await.map(Answer::KeepAlive),
            Call::List(request) => Ok(Answer::List(self.list_here(request))),
            Call::TransferLeader(request) => {
                self.transfer_leader_here(request).await.map(Answer::TransferLeader)
            }
            Call::Status(v1::StatusRequest {}) => Ok(Answer::Status(self.status())),
            Call::Clock(v1::ClockRequest {}) => Ok(Answer::Clock(self.clock_here())),
            Call::ReadPoint(request) => self.read_point_here(request).await.map(Answer::ReadPoint),
            Call::RaiseFormat(request) => {
                self.raise_format_here(request).await.map(Answer::RaiseFormat)
            }
            Call::Leads(v1::LeadsRequest {}) => Ok(Answer::Leads(self.leads_here())),
            Call::AdvanceMove(request) => {
                self.advance_move_here(request).await.map(Answer::AdvanceMove)
            }
            Call::Moves(v1::MovesRequest {}) => Ok(Answer::Moves(self.moves_here())),
            Call::ChangePlacement(request) => {
                self.change_placement_here(request).await.map(Answer::ChangePlacement)
            }
            Call::StateHash(request) => self.state_hash_here(request).await.map(Answer::StateHash),
        };
        let answer = answer.unwrap_or_else(|status| {
            Answer::Error(v1::ForwardedError {
                code: status.code().into(),
                message: status.message().to_owned(),
                details: bytes::Bytes::copy_from_slice(status.details()),
            })
        });
        v1::ForwardedAnswer { answer: Some(answer) }
    }

    /// Passes a whole request on to a node and takes the answer out of its envelope.
    pub(crate) async fn hop<R>(
        &self,
        to: NodeId,
        call: Call,
        take: impl FnOnce(Answer) -> Option<R>,
    ) -> Result<R, Status> {
        let answer = self.peers.forward(to, call).await?;
        take(answer).ok_or_else(|| errors::peer_unreachable(to))
    }

    /// Refuses who is no operator.
    pub(crate) fn check_operator<T>(&self, request: &Request<T>, what: &str) -> Result<(), Status> {
        if self.is_operator(request) { Ok(()) } else { Err(errors::operators_only(what)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_go_to_their_leaders_and_come_back_in_order() {
        let users: Vec<String> = (0..100).map(|n| format!("user-{n}")).collect();
        let leaders = [None, Some(2), Some(3), None];
        let Split { here, elsewhere } = split(users.clone(), |user| user.as_bytes(), &leaders);
        let mut all: Vec<Option<String>> = vec![None; users.len()];
        for user in &here.items {
            assert!(matches!(shard_of(user.as_bytes(), 4), 0 | 3));
        }
        put(&mut all, &here.places, here.items);
        for (node, part) in elsewhere {
            assert!(part.places.is_sorted());
            for user in &part.items {
                assert_eq!(leaders[shard_of(user.as_bytes(), 4) as usize], Some(node));
            }
            put(&mut all, &part.places, part.items);
        }
        let all: Vec<String> = all.into_iter().map(Option::unwrap).collect();
        assert_eq!(all, users);
    }

    #[test]
    fn before_there_are_shards_everything_stays_here() {
        let split = split(vec!["a", "b"], |user| user.as_bytes(), &[]);
        assert_eq!((split.here.items.len(), split.elsewhere.len()), (2, 0));
    }
}
