//! `Locate`: where users are, as fresh as the caller asks.
//!
//! ```text
//!   users ──▶ by shard ─┬▶ one check of freshness a shard ──▶ one batched look-up a shard ─┬▶ in order
//!                       └▶ led elsewhere, or not here: one request a node ───────────────┘
//! ```
//! A batch costs one hash a user to find its shard; the shard's own map then works on all of its users at
//! once, so that their cache misses overlap. Sessions of gateways whose incarnation has ended are left out.

mod answer;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use switchboard_api::{
    Ahead, LocateStreamResponse,
    v1::{self, ItemStatus, Read, forwarded_answer::Answer, forwarded_call::Call},
    validate,
};
use switchboard_engine::{Located, LocatedOne, MetaState};
use switchboard_raft::{BarrierError, Consistency, Group, NodeId, shard_of};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use self::answer::Found;
use crate::{
    convert, errors,
    service::{Service, check_batch},
};

/// The places in the request of the users of each shard.
type Places = BTreeMap<u32, Vec<usize>>;

/// The places in the request of the users of one shard, and its replica here.
type Part = (Arc<Group>, Vec<usize>);

/// The places in the request of users whose shards other nodes lead.
type Elsewhere = BTreeMap<NodeId, Vec<usize>>;

impl Service {
    /// Looks users up: where this replica stands, or at the leaders of their shards. A shard that has no
    /// replica here is read where it has one, also as it stands.
    pub(crate) async fn locate(&self, request: v1::LocateRequest) -> v1::LocateResponse {
        self.find(request).await.into_response()
    }

    async fn find(&self, request: v1::LocateRequest) -> answer::Answer {
        let mut results = vec![Found::Refused(ItemStatus::Unavailable); request.users.len()];
        let shards = self.by_shard(&request.users, &mut results);
        let (here, elsewhere) = self.deal_out(shards, request.read());
        let hops = elsewhere.into_iter().map(|(node, places)| {
            let users = places.iter().map(|at| request.users[*at].clone()).collect();
            let call = Call::Locate(v1::LocateRequest { users, read: request.read });
            let answer = self.peers.forward(node, call);
            async move { (places, answer.await) }
        });
        let (mut staleness_ms, answers) = tokio::join!(
            async {
                if here.is_empty() { 0 } else { self.look_up(&request, here, &mut results).await }
            },
            join_all(hops)
        );
        for (places, answer) in answers {
            let Ok(Answer::Locate(response)) = answer else { continue };
            staleness_ms = staleness_ms.max(response.staleness_ms);
            for (at, result) in places.into_iter().zip(response.results) {
                results[at] = Found::Several(result);
            }
        }
        answer::Answer { users: request.users, found: results, staleness_ms }
    }

    /// Answers a request whose number of users was checked, as well as this replica can.
    pub(crate) async fn locate_here(&self, request: v1::LocateRequest) -> v1::LocateResponse {
        let mut results = vec![Found::Refused(ItemStatus::Unavailable); request.users.len()];
        let shards = self.by_shard(&request.users, &mut results);
        let table = self.node.shard_table();
        let part = |(shard, places)| {
            let group = table.get(shard as usize).cloned().flatten()?;
            Some((shard, (group, places)))
        };
        let parts = shards.into_iter().filter_map(part).collect();
        let staleness_ms = self.look_up(&request, parts, &mut results).await;
        answer::Answer { users: request.users, found: results, staleness_ms }.into_response()
    }

    /// Fills in the results of users whose shards are read here; how stale they may be.
    async fn look_up(
        &self,
        request: &v1::LocateRequest,
        parts: BTreeMap<u32, Part>,
        results: &mut [Found],
    ) -> u64 {
        let consistency = match request.read() {
            Read::Local => Consistency::Local,
            Read::Lease => Consistency::Lease,
            Read::Linearizable => Consistency::Linearizable,
        };
        let (readable, staleness_ms) = freshen(parts, consistency).await;
        self.node.meta().shard().meta(|meta| {
            for (group, places) in readable {
                let users: Vec<&[u8]> =
                    places.iter().map(|at| request.users[*at].as_ref()).collect();
                let mut places = places.iter();
                group.shard().locate_each(&users, |located| {
                    if let Some(at) = places.next() {
                        results[*at] = found(meta, located);
                    }
                });
            }
        });
        staleness_ms
    }

    /// Deals shards out: those that are read here, and the places of users that other nodes answer for.
    /// A shard that is not here and has no known leader is in neither.
    fn deal_out(&self, shards: Places, read: Read) -> (BTreeMap<u32, Part>, Elsewhere) {
        let table = self.node.shard_table();
        let (mut here, mut elsewhere) = (BTreeMap::new(), Elsewhere::new());
        for (shard, places) in shards {
            let group = table.get(shard as usize).cloned().flatten();
            // A replica that still catches up may know of nobody.
            let stands = group.as_ref().is_some_and(|group| !group.is_learner());
            let is_read_here = self.peers.is_alone() || (stands && read == Read::Local);
            let leader = self.leader_elsewhere(shard, group.as_deref()).filter(|_| !is_read_here);
            match (leader, group) {
                (Some(node), _) => elsewhere.entry(node).or_default().extend(places),
                (None, Some(group)) if stands => {
                    here.insert(shard, (group, places));
                }
                (None, _) => {}
            }
        }
        (here, elsewhere)
    }

    /// Sorts users by shard; notes the answer of those who are no users.
    fn by_shard(&self, users: &[Bytes], results: &mut [Found]) -> Places {
        let count = u32::try_from(self.node.shard_table().len()).unwrap_or(0);
        let mut shards = Places::new();
        for (at, user) in users.iter().enumerate() {
            if let Err(fault) = validate::user(user) {
                results[at] = Found::Refused(fault.status());
                continue;
            }
            // Before there is a cluster, nobody is anywhere.
            if count == 0 {
                continue;
            }
            shards.entry(shard_of(user, count)).or_default().push(at);
        }
        shards
    }

    /// Answers requests of a stream, one after the other.
    pub(crate) async fn serve_locates(
        self: Arc<Self>,
        mut requests: Streaming<v1::LocateStreamRequest>,
        answers: mpsc::Sender<Result<LocateStreamResponse, Status>>,
    ) {
        let token = self.shutdown.token();
        loop {
            let request = tokio::select! {
                () = token.cancelled() => {
                    // The reader may be gone already.
                    let _ = answers.send(Err(errors::stopping())).await;
                    return;
                }
                request = requests.message() => request,
            };
            let v1::LocateStreamRequest { id, request } = match request {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(error) => {
                    // The reader may be gone already.
                    let _ = answers.send(Err(errors::unreadable_request(error))).await;
                    return;
                }
            };
            let request = request.unwrap_or_default();
            let answer = match check_batch(&request, request.users.len()) {
                Ok(()) => self.find(request).await,
                // A stream carries many callers' requests: one that breaks a limit fails alone.
                Err(_) => {
                    let found = vec![Found::Refused(ItemStatus::Invalid); request.users.len()];
                    answer::Answer { users: request.users, found, staleness_ms: 0 }
                }
            };
            let response = Some(Ahead::Encoded(answer.encode()));
            if answers.send(Ok(LocateStreamResponse { id, response })).await.is_err() {
                return;
            }
        }
    }
}

/// Makes shards as fresh as asked for: those that are, and how stale they may be.
async fn freshen(parts: BTreeMap<u32, Part>, consistency: Consistency) -> (Vec<Part>, u64) {
    let mut checks: FuturesUnordered<_> = parts
        .into_values()
        .map(async |part| {
            let passed = part.0.barrier(consistency).await;
            (part, passed)
        })
        .collect();
    let (mut readable, mut staleness_ms) = (Vec::new(), 0);
    while let Some((part, passed)) = checks.next().await {
        match passed {
            Ok(staleness) => {
                staleness_ms = staleness_ms.max(staleness.ms.unwrap_or(u64::MAX));
                readable.push(part);
            }
            Err(
                BarrierError::NotLeader { .. } | BarrierError::NoQuorum | BarrierError::Stopped,
            ) => {}
        }
    }
    (readable, staleness_ms)
}

fn found(meta: &MetaState, located: LocatedOne) -> Found {
    let is_live = |gateway_id: u32, incarnation: u64| !meta.has_ended(gateway_id, incarnation);
    match located {
        LocatedOne::Primary(session) => {
            Found::Primary(session.filter(|s| is_live(s.gateway_id, s.incarnation)))
        }
        LocatedOne::Several(Located { sessions, devices }) => {
            let live = sessions.into_iter().filter(|s| is_live(s.gateway_id, s.incarnation));
            Found::Several(v1::locate_response::Result {
                status: ItemStatus::Ok.into(),
                sessions: live.map(convert::session_info).collect(),
                devices: devices.into_iter().map(u32::from).collect(),
            })
        }
    }
}
