//! The gRPC side of the store in memory.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _, stream};
use switchboard_api::v1::{
    self, ItemStatus, cluster_service_server::ClusterService,
    gateway_service_server::GatewayService, mailbox_service_server::MailboxService,
    session_service_server::SessionService, *,
};
use switchboard_api::{Ahead, LocateStreamResponse};
use tonic::{Request, Response, Status, Streaming};

use super::Shared;

type Answer<T> = Result<Response<T>, Status>;
type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn unimplemented<T>() -> Answer<T> {
    Err(Status::unimplemented("not in this store"))
}

/// Pending for ever where `None` comes out: the store is mute.
fn answers<Q: Send + 'static, A: Send + 'static>(
    requests: Streaming<Q>,
    answer: impl Fn(Q) -> Option<A> + Send + 'static,
) -> BoxStream<A> {
    Box::pin(requests.then(move |request| {
        let answered = request.map(&answer);
        async move {
            match answered {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) => std::future::pending().await,
                Err(status) => Err(status),
            }
        }
    }))
}

#[tonic::async_trait]
impl MailboxService for Shared {
    type EnqueueStreamStream = BoxStream<EnqueueStreamResponse>;

    async fn enqueue(&self, request: Request<EnqueueRequest>) -> Answer<EnqueueResponse> {
        match self.enqueue(request.into_inner().items) {
            Some(results) => Ok(Response::new(EnqueueResponse { results })),
            None => std::future::pending().await,
        }
    }

    async fn enqueue_stream(
        &self,
        request: Request<Streaming<EnqueueStreamRequest>>,
    ) -> Answer<Self::EnqueueStreamStream> {
        let shared = own(self);
        Ok(Response::new(answers(request.into_inner(), move |request: EnqueueStreamRequest| {
            let results = shared.enqueue(request.request?.items)?;
            Some(EnqueueStreamResponse {
                id: request.id,
                response: Some(EnqueueResponse { results }),
            })
        })))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Answer<FetchResponse> {
        let request = request.into_inner();
        let user = request.device.unwrap_or_default().user;
        if user.is_empty() {
            return Err(Status::invalid_argument("no user"));
        }
        let stored = self.stored.lock();
        let messages = stored.mailboxes.get(&user).cloned().unwrap_or_default();
        let tail = messages.last().map_or(0, |message| message.seq);
        Ok(Response::new(FetchResponse { messages, more: false, tail }))
    }

    async fn ack(&self, request: Request<AckRequest>) -> Answer<AckResponse> {
        let mut stored = self.stored.lock();
        let mut results = Vec::new();
        for item in request.into_inner().items {
            let user = item.device.unwrap_or_default().user;
            stored.mailboxes.entry(user).or_default().retain(|m| m.seq > item.up_to_seq);
            results.push(ack_response::Result { status: 0, ack_floor: item.up_to_seq });
        }
        Ok(Response::new(AckResponse { results }))
    }

    async fn stat(&self, request: Request<StatRequest>) -> Answer<StatResponse> {
        let stored = self.stored.lock();
        let count = |user: &[u8]| stored.mailboxes.get(user).map_or(0, Vec::len) as u64;
        let items = request.into_inner().items;
        let results = items.iter().map(|item| stat_response::Result {
            messages: count(&item.device.clone().unwrap_or_default().user),
            ..Default::default()
        });
        Ok(Response::new(StatResponse { results: results.collect() }))
    }

    async fn purge(&self, _: Request<PurgeRequest>) -> Answer<PurgeResponse> {
        unimplemented()
    }
}

fn own(shared: &Shared) -> Arc<Shared> {
    shared.this.upgrade().expect("the server holds it")
}

#[tonic::async_trait]
impl SessionService for Shared {
    type LocateStreamStream = BoxStream<LocateStreamResponse>;
    type WatchStream = BoxStream<WatchResponse>;

    async fn claim(&self, request: Request<ClaimRequest>) -> Answer<ClaimResponse> {
        let request = request.into_inner();
        let mut stored = self.stored.lock();
        let mut results = Vec::new();
        for item in request.items {
            let epoch = stored.position();
            let user = item.device.clone().unwrap_or_default().user;
            let session = SessionInfo {
                device: item.device,
                gateway_id: request.gateway_id,
                incarnation: request.incarnation,
                connection_id: item.connection_id,
                epoch,
                connected_at_ms: 1,
            };
            let replaced = stored.sessions.insert(user, session);
            results.push(claim_response::Result { epoch, replaced, ..Default::default() });
        }
        Ok(Response::new(ClaimResponse { results }))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Answer<ReleaseResponse> {
        let mut stored = self.stored.lock();
        let mut results = Vec::new();
        for item in request.into_inner().items {
            let user = item.device.unwrap_or_default().user;
            let held = stored.sessions.get(&user).is_some_and(|s| s.epoch == item.epoch);
            if held {
                stored.sessions.remove(&user);
            }
            let status = if held { ItemStatus::Ok } else { ItemStatus::Fenced };
            results.push(release_response::Result { status: status.into() });
        }
        Ok(Response::new(ReleaseResponse { results }))
    }

    async fn unregister(&self, _: Request<UnregisterRequest>) -> Answer<UnregisterResponse> {
        unimplemented()
    }

    async fn locate(&self, request: Request<LocateRequest>) -> Answer<LocateResponse> {
        Ok(Response::new(located(self, &request.into_inner())))
    }

    async fn locate_stream(
        &self,
        request: Request<Streaming<LocateStreamRequest>>,
    ) -> Answer<Self::LocateStreamStream> {
        let shared = own(self);
        Ok(Response::new(answers(request.into_inner(), move |request: LocateStreamRequest| {
            let response = located(&shared, &request.request?);
            Some(LocateStreamResponse { id: request.id, response: Some(Ahead::Message(response)) })
        })))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        unimplemented()
    }
}

fn located(shared: &Shared, request: &LocateRequest) -> LocateResponse {
    let stored = shared.stored.lock();
    let results = request.users.iter().map(|user| locate_response::Result {
        status: 0,
        sessions: stored.sessions.get(user).cloned().into_iter().collect(),
        devices: vec![1],
    });
    LocateResponse { results: results.collect(), staleness_ms: request.read as u64 }
}

#[tonic::async_trait]
impl GatewayService for Shared {
    type KeepAliveStream = BoxStream<KeepAliveResponse>;
    type WatchStream = BoxStream<WatchGatewaysResponse>;

    async fn register(&self, request: Request<RegisterRequest>) -> Answer<RegisterResponse> {
        let request = request.into_inner();
        let (mut gateway_id, mut incarnation) = (0, 0);
        self.change_gateways(|stored| {
            incarnation = stored.position();
            gateway_id = stored
                .gateways
                .iter()
                .find(|g| g.name == request.name && g.kind == request.kind)
                .map_or(stored.gateways.len() as u32 + 1, |g| g.gateway_id);
            stored.gateways.retain(|g| g.gateway_id != gateway_id);
            stored.gateways.push(GatewayInfo {
                gateway_id,
                incarnation,
                name: request.name,
                address: request.address,
                kind: request.kind,
                live: true,
                ..Default::default()
            });
        });
        let lease_ms = self.lease_ms;
        Ok(Response::new(RegisterResponse { gateway_id, incarnation, lease_ms }))
    }

    async fn keep_alive(
        &self,
        request: Request<Streaming<KeepAliveRequest>>,
    ) -> Answer<Self::KeepAliveStream> {
        let shared = own(self);
        Ok(Response::new(answers(request.into_inner(), move |request: KeepAliveRequest| {
            let mut stored = shared.stored.lock();
            let held =
                stored.gateways.iter_mut().find(|g| g.live && g.incarnation == request.incarnation);
            let lease_ms_left = held.map_or(0, |gateway| {
                gateway.connections = request.connections;
                shared.lease_ms
            });
            Some(KeepAliveResponse { lease_ms_left, reconnect_budget_per_s: 77 })
        })))
    }

    async fn deregister(&self, request: Request<DeregisterRequest>) -> Answer<DeregisterResponse> {
        let incarnation = request.into_inner().incarnation;
        self.change_gateways(|stored| {
            for gateway in &mut stored.gateways {
                gateway.live &= gateway.incarnation != incarnation;
            }
        });
        Ok(Response::new(DeregisterResponse {}))
    }

    async fn list(&self, request: Request<ListRequest>) -> Answer<ListResponse> {
        let ListRequest { kind, include_ended } = request.into_inner();
        let mut gateways = self.stored.lock().gateways.clone();
        gateways.retain(|g| g.kind == kind && (g.live || include_ended));
        Ok(Response::new(ListResponse { gateways }))
    }

    async fn watch(&self, request: Request<WatchGatewaysRequest>) -> Answer<Self::WatchStream> {
        let (shared, kind) = (own(self), request.into_inner().kind);
        let mut versions = self.gateways_version.subscribe();
        versions.mark_changed();
        let changes = stream::unfold(versions, move |mut versions| {
            let shared = shared.clone();
            async move {
                versions.changed().await.ok()?;
                let version = *versions.borrow_and_update();
                let mut gateways = shared.stored.lock().gateways.clone();
                gateways.retain(|gateway| gateway.kind == kind && gateway.live);
                Some((Ok(WatchGatewaysResponse { version, gateways }), versions))
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

#[tonic::async_trait]
impl ClusterService for Shared {
    type ApplyPlanStream = BoxStream<v1::MoveProgress>;
    type BackupStream = BoxStream<v1::BackupResponse>;
    type MoveShardStream = BoxStream<v1::MoveProgress>;
    type VerifyStream = BoxStream<v1::VerifyResponse>;
    type WatchShardMapStream = BoxStream<WatchShardMapResponse>;

    async fn upgrade(&self, _: Request<v1::UpgradeRequest>) -> Answer<v1::UpgradeResponse> {
        unimplemented()
    }

    async fn backup(&self, _: Request<v1::BackupRequest>) -> Answer<Self::BackupStream> {
        unimplemented()
    }

    async fn verify(&self, _: Request<v1::VerifyRequest>) -> Answer<Self::VerifyStream> {
        unimplemented()
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        unimplemented()
    }

    async fn init_cluster(
        &self,
        _: Request<v1::InitClusterRequest>,
    ) -> Answer<v1::InitClusterResponse> {
        unimplemented()
    }

    async fn list_nodes(&self, _: Request<v1::ListNodesRequest>) -> Answer<v1::ListNodesResponse> {
        unimplemented()
    }

    async fn list_shards(
        &self,
        _: Request<v1::ListShardsRequest>,
    ) -> Answer<v1::ListShardsResponse> {
        unimplemented()
    }

    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Answer<v1::TransferLeaderResponse> {
        unimplemented()
    }

    async fn compare_replicas(
        &self,
        _: Request<v1::CompareReplicasRequest>,
    ) -> Answer<v1::CompareReplicasResponse> {
        unimplemented()
    }

    async fn add_node(&self, _: Request<v1::AddNodeRequest>) -> Answer<v1::AddNodeResponse> {
        unimplemented()
    }

    async fn remove_node(
        &self,
        _: Request<v1::RemoveNodeRequest>,
    ) -> Answer<v1::RemoveNodeResponse> {
        unimplemented()
    }

    async fn drain_node(&self, _: Request<v1::DrainNodeRequest>) -> Answer<v1::DrainNodeResponse> {
        unimplemented()
    }

    async fn plan_rebalance(
        &self,
        _: Request<v1::PlanRebalanceRequest>,
    ) -> Answer<v1::PlanRebalanceResponse> {
        unimplemented()
    }

    async fn apply_plan(&self, _: Request<v1::ApplyPlanRequest>) -> Answer<Self::ApplyPlanStream> {
        unimplemented()
    }

    async fn move_shard(&self, _: Request<v1::MoveShardRequest>) -> Answer<Self::MoveShardStream> {
        unimplemented()
    }

    async fn abort_move(&self, _: Request<v1::AbortMoveRequest>) -> Answer<v1::AbortMoveResponse> {
        unimplemented()
    }

    async fn list_moves(&self, _: Request<v1::ListMovesRequest>) -> Answer<v1::ListMovesResponse> {
        unimplemented()
    }

    async fn probe(&self, _: Request<v1::ProbeRequest>) -> Answer<v1::ProbeResponse> {
        unimplemented()
    }

    async fn shard_map(&self, _: Request<ShardMapRequest>) -> Answer<ShardMapResponse> {
        Ok(Response::new(map(self)))
    }

    async fn watch_shard_map(
        &self,
        _: Request<WatchShardMapRequest>,
    ) -> Answer<Self::WatchShardMapStream> {
        let first = WatchShardMapResponse { map: Some(map(self)) };
        Ok(Response::new(Box::pin(stream::iter([Ok(first)]).chain(stream::pending()))))
    }
}

fn map(shared: &Shared) -> ShardMapResponse {
    let mut nodes = vec![NodeInfo { node_id: 1, address: shared.address.to_string() }];
    let other = shared.other.lock().clone();
    nodes.extend(other.map(|address| NodeInfo { node_id: 2, address }));
    let leader = |shard: u32| if nodes.len() == 2 && shard % 2 == 1 { 2 } else { 1 };
    let placement = (0..4)
        .map(|shard| v1::ShardInfo {
            shard,
            leader_node_id: leader(shard),
            replica_node_ids: nodes.iter().map(|node| node.node_id).collect(),
        })
        .collect();
    ShardMapResponse { placement_version: 1, shards: 4, nodes, placement }
}
