//! `Locate`: where users are, as fresh as the caller asks.
//!
//! ```text
//!   users ──▶ by shard ──▶ one check of freshness a shard ──▶ one batched look-up a shard ──▶ in order
//! ```
//! A batch costs one hash a user to find its shard; the shard's own map then works on all of its users at
//! once, so that their cache misses overlap. Sessions of gateways whose incarnation has ended are left out.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use switchboard_api::{
    v1::{self, ItemStatus, Read, forwarded_answer::Answer, forwarded_call::Call},
    validate,
};
use switchboard_engine::{Located, MetaState};
use switchboard_raft::{BarrierError, Consistency, Group, shard_of};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::{
    convert, errors,
    forward::Wire,
    service::{Service, check_batch},
};

/// The places in the request of the users of one shard, and its replica here.
type Part = (Arc<Group>, Vec<usize>);

impl Service {
    /// Looks users up: where this replica stands, or at the leaders of their shards.
    pub(crate) async fn locate(&self, request: v1::LocateRequest) -> v1::LocateResponse {
        if self.peers.is_alone() || request.read() == Read::Local {
            return self.locate_here(request).await;
        }
        let read = request.read;
        let staleness_ms = AtomicU64::new(0);
        let wire = Wire {
            call: |users: Vec<(i32, Bytes)>| {
                let read = users.first().map_or(0, |(read, _)| *read);
                let users = users.into_iter().map(|(_, user)| user).collect();
                Call::Locate(v1::LocateRequest { users, read })
            },
            // A leader's answer is fresh: there is no staleness to pass on.
            results: |answer| match answer {
                Answer::Locate(response) => Some(response.results),
                _ => None,
            },
            missing: refused,
        };
        let local = async |users: Vec<(i32, Bytes)>| {
            let users = users.into_iter().map(|(_, user)| user).collect();
            let response = self.locate_here(v1::LocateRequest { users, read }).await;
            staleness_ms.store(response.staleness_ms, Ordering::Relaxed);
            Ok(response.results)
        };
        let count = request.users.len();
        let users = request.users.into_iter().map(|user| (read, user)).collect();
        let results = self.routed(users, |(_, user)| user, wire, local).await;
        v1::LocateResponse {
            results: results.unwrap_or_else(|_| vec![refused(ItemStatus::Unavailable); count]),
            staleness_ms: staleness_ms.into_inner(),
        }
    }

    /// Answers a request whose number of users was checked, as well as this replica can.
    pub(crate) async fn locate_here(&self, request: v1::LocateRequest) -> v1::LocateResponse {
        let consistency = match request.read() {
            Read::Local => Consistency::Local,
            Read::Lease => Consistency::Lease,
            Read::Linearizable => Consistency::Linearizable,
        };
        let mut results = vec![refused(ItemStatus::Unavailable); request.users.len()];
        let parts = self.by_shard(&request.users, &mut results);
        let (readable, staleness_ms) = freshen(parts, consistency).await;
        self.node.meta().shard().meta(|meta| {
            for (group, places) in readable {
                let users: Vec<&[u8]> =
                    places.iter().map(|at| request.users[*at].as_ref()).collect();
                for (at, located) in places.iter().zip(group.shard().locate_batch(&users)) {
                    results[*at] = found(meta, located);
                }
            }
        });
        v1::LocateResponse { results, staleness_ms }
    }

    /// Sorts users by shard; notes the answer of those who are no users.
    fn by_shard(
        &self,
        users: &[Bytes],
        results: &mut [v1::locate_response::Result],
    ) -> BTreeMap<u32, Part> {
        let shards = self.node.shards();
        let count = u32::try_from(shards.len()).unwrap_or(0);
        let mut parts = BTreeMap::<u32, Part>::new();
        for (at, user) in users.iter().enumerate() {
            if let Err(fault) = validate::user(user) {
                results[at] = refused(fault.status());
                continue;
            }
            // Before there is a cluster, nobody is anywhere.
            if count == 0 {
                continue;
            }
            let shard = shard_of(user, count);
            if let Some(group) = shards.get(shard as usize) {
                parts.entry(shard).or_insert_with(|| (group.clone(), Vec::new())).1.push(at);
            }
        }
        parts
    }

    /// Answers requests of a stream, one after the other.
    pub(crate) async fn serve_locates(
        self: Arc<Self>,
        mut requests: Streaming<v1::LocateStreamRequest>,
        answers: mpsc::Sender<Result<v1::LocateStreamResponse, Status>>,
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
            let response = match check_batch(&request, request.users.len()) {
                Ok(()) => self.locate(request).await,
                // A stream carries many callers' requests: one that breaks a limit fails alone.
                Err(_) => v1::LocateResponse {
                    results: vec![refused(ItemStatus::Invalid); request.users.len()],
                    staleness_ms: 0,
                },
            };
            if answers
                .send(Ok(v1::LocateStreamResponse { id, response: Some(response) }))
                .await
                .is_err()
            {
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

fn found(meta: &MetaState, located: Located) -> v1::locate_response::Result {
    let live =
        located.sessions.into_iter().filter(|s| !meta.has_ended(s.gateway_id, s.incarnation));
    v1::locate_response::Result {
        status: ItemStatus::Ok.into(),
        sessions: live.map(convert::session_info).collect(),
        devices: located.devices.into_iter().map(u32::from).collect(),
    }
}

fn refused(status: ItemStatus) -> v1::locate_response::Result {
    v1::locate_response::Result { status: status.into(), ..Default::default() }
}
