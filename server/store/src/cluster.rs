//! `ClusterService`: what a node knows of placement and of itself.

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use switchboard_api::v1::{
    self, change_placement_request::Change, cluster_service_server::ClusterService,
};
use switchboard_engine::{MetaState, log::SpaceLevel};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{errors, limits, service::Service};

/// The service over a node.
#[derive(Clone)]
pub(crate) struct Cluster(pub(crate) Arc<Service>);

type Progress = Pin<Box<dyn Stream<Item = Result<v1::MoveProgress, Status>> + Send>>;

impl Cluster {
    async fn begin(&self, request: v1::ApplyPlanRequest) -> Result<Response<Progress>, Status> {
        let permit = self.0.watch_permit()?;
        let shards = self.0.begin(request).await?;
        let (progress, receiver) = mpsc::channel(1);
        let service = self.0.clone();
        self.0.shutdown.spawn(async move {
            service.serve_progress(shards, progress).await;
            drop(permit);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(self.0.status()))
    }

    async fn shard_map(
        &self,
        _: Request<v1::ShardMapRequest>,
    ) -> Result<Response<v1::ShardMapResponse>, Status> {
        Ok(Response::new(self.0.shard_map()))
    }

    async fn init_cluster(
        &self,
        request: Request<v1::InitClusterRequest>,
    ) -> Result<Response<v1::InitClusterResponse>, Status> {
        self.0.check_operator(&request, "InitCluster")?;
        self.0.init_cluster(request.into_inner()).await.map(Response::new)
    }

    async fn list_nodes(
        &self,
        _: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        Ok(Response::new(self.0.list_nodes().await))
    }

    async fn list_shards(
        &self,
        _: Request<v1::ListShardsRequest>,
    ) -> Result<Response<v1::ListShardsResponse>, Status> {
        Ok(Response::new(self.0.list_shards().await))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        self.0.check_operator(&request, "TransferLeader")?;
        self.0.transfer_leader(request.into_inner()).await.map(Response::new)
    }

    async fn upgrade(
        &self,
        request: Request<v1::UpgradeRequest>,
    ) -> Result<Response<v1::UpgradeResponse>, Status> {
        self.0.check_operator(&request, "Upgrade")?;
        self.0.upgrade(request.into_inner()).await.map(Response::new)
    }

    async fn compare_replicas(
        &self,
        request: Request<v1::CompareReplicasRequest>,
    ) -> Result<Response<v1::CompareReplicasResponse>, Status> {
        self.0.compare_replicas(request.into_inner()).await.map(Response::new)
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<v1::BackupResponse, Status>> + Send>>;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        self.0.check_operator(&request, "Backup")?;
        let stream = self.0.backup(request.into_inner().groups)?;
        Ok(Response::new(Box::pin(stream)))
    }

    type VerifyStream = Pin<Box<dyn Stream<Item = Result<v1::VerifyResponse, Status>> + Send>>;

    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        self.0.check_operator(&request, "Verify")?;
        let stream = self.0.verify(request.into_inner().groups)?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn add_node(
        &self,
        request: Request<v1::AddNodeRequest>,
    ) -> Result<Response<v1::AddNodeResponse>, Status> {
        self.0.check_operator(&request, "AddNode")?;
        let change = Change::AddNode(request.into_inner());
        let placement_version = self.0.change_placement(change).await?;
        Ok(Response::new(v1::AddNodeResponse { placement_version }))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        self.0.check_operator(&request, "RemoveNode")?;
        let change = Change::RemoveNode(request.into_inner());
        let placement_version = self.0.change_placement(change).await?;
        Ok(Response::new(v1::RemoveNodeResponse { placement_version }))
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        self.0.check_operator(&request, "DrainNode")?;
        let change = Change::DrainNode(request.into_inner());
        let placement_version = self.0.change_placement(change).await?;
        Ok(Response::new(v1::DrainNodeResponse { placement_version }))
    }

    async fn plan_rebalance(
        &self,
        _: Request<v1::PlanRebalanceRequest>,
    ) -> Result<Response<v1::PlanRebalanceResponse>, Status> {
        self.0.plan_rebalance().await.map(Response::new)
    }

    type ApplyPlanStream = Progress;

    async fn apply_plan(
        &self,
        request: Request<v1::ApplyPlanRequest>,
    ) -> Result<Response<Progress>, Status> {
        self.0.check_operator(&request, "ApplyPlan")?;
        self.begin(request.into_inner()).await
    }

    type MoveShardStream = Progress;

    async fn move_shard(
        &self,
        request: Request<v1::MoveShardRequest>,
    ) -> Result<Response<Progress>, Status> {
        self.0.check_operator(&request, "MoveShard")?;
        let moves = request.into_inner().replica.into_iter().collect();
        self.begin(v1::ApplyPlanRequest { placement_version: 0, moves }).await
    }

    async fn abort_move(
        &self,
        request: Request<v1::AbortMoveRequest>,
    ) -> Result<Response<v1::AbortMoveResponse>, Status> {
        self.0.check_operator(&request, "AbortMove")?;
        self.0.change_placement(Change::AbortMove(request.into_inner())).await?;
        Ok(Response::new(v1::AbortMoveResponse {}))
    }

    async fn list_moves(
        &self,
        _: Request<v1::ListMovesRequest>,
    ) -> Result<Response<v1::ListMovesResponse>, Status> {
        let moves = self.0.list_moves().await?;
        Ok(Response::new(v1::ListMovesResponse { moves }))
    }

    async fn probe(
        &self,
        request: Request<v1::ProbeRequest>,
    ) -> Result<Response<v1::ProbeResponse>, Status> {
        self.0.check_operator(&request, "Probe")?;
        Ok(Response::new(self.0.probe(request.into_inner()).await?))
    }

    type WatchShardMapStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchShardMapResponse, Status>> + Send>>;

    async fn watch_shard_map(
        &self,
        _: Request<v1::WatchShardMapRequest>,
    ) -> Result<Response<Self::WatchShardMapStream>, Status> {
        let permit = self.0.watch_permit()?;
        let (maps, receiver) = mpsc::channel(1);
        let service = self.0.clone();
        self.0.shutdown.spawn(async move {
            service.serve_map(maps).await;
            drop(permit);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Service {
    /// The shard map as this node sees it.
    fn shard_map(&self) -> v1::ShardMapResponse {
        let count = u32::try_from(self.node.shard_table().len()).unwrap_or(0);
        let placement = (0..count).map(|shard| v1::ShardInfo {
            shard,
            leader_node_id: self.leader_of(shard).unwrap_or(0),
            replica_node_ids: self.replicas_of(shard),
        });
        let placement = placement.collect();
        self.node.meta().shard().meta(|meta| v1::ShardMapResponse {
            placement_version: meta.placement().version(),
            shards: meta.shards(),
            nodes: nodes(meta),
            placement,
        })
    }

    /// This node's own account of itself, by shard.
    pub(crate) fn status(&self) -> v1::StatusResponse {
        let groups = self.shards_here();
        let shards = groups.iter().map(|group| {
            let shard = group.id() - 1;
            let (raft, state) = (group.status(), group.shard().stats());
            v1::ShardStatus {
                shard,
                term: raft.term,
                leader_node_id: raft.leader.unwrap_or(0),
                last_log_index: raft.last_index.unwrap_or(0),
                committed_index: raft.committed.map_or(0, |id| id.index),
                applied_index: raft.applied.map_or(0, |id| id.index),
                checkpoint_index: raft.checkpoint.map_or(0, |id| id.index),
                purged_index: raft.purged.map_or(0, |id| id.index),
                users: state.users,
                sessions: state.sessions,
                messages: state.messages,
                message_bytes: state.message_bytes,
                dedup_horizon_ms: state.dedup_horizon_ms,
                log_time_ms: state.log_time_ms,
            }
        });
        let shards = shards.collect();
        let log = self.node.log().stats();
        let formats = self.node.formats();
        v1::StatusResponse {
            node_id: self.node.node_id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            disk_id: self.node.disk_id().iter().map(|byte| format!("{byte:02x}")).collect(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            log_segments: log.segments as u64,
            log_bytes: log.bytes_total,
            disk_almost_full: self.node.log().space().level != SpaceLevel::Ample,
            nodes: self.node.meta().shard().meta(nodes),
            shards,
            format_oldest: formats.oldest,
            format_newest: formats.newest,
            format_active: self.active_format(),
            meta_leader_node_id: self.node.meta().leader().unwrap_or(0),
        }
    }

    /// Compares the shard map from time to time, for all who watch it, until the shutdown: leaders change
    /// without a write to the meta group.
    pub(crate) async fn follow_map(self: Arc<Self>) {
        let token = self.shutdown.token();
        let pause = || tokio::time::sleep(limits::SHARD_MAP_LOOK_INTERVAL);
        while token.run_until_cancelled(pause()).await.is_some() {
            let map = self.shard_map();
            self.map.send_if_modified(|last| {
                let is_other = *last != map;
                *last = map;
                is_other
            });
        }
    }

    /// Sends the map now and after each change.
    async fn serve_map(&self, maps: mpsc::Sender<Result<v1::WatchShardMapResponse, Status>>) {
        let token = self.shutdown.token();
        let mut changes = self.map.subscribe();
        let mut map = self.shard_map();
        loop {
            if maps.send(Ok(v1::WatchShardMapResponse { map: Some(map) })).await.is_err() {
                return;
            }
            tokio::select! {
                () = token.cancelled() => {
                    // The watcher may be gone already.
                    let _ = maps.send(Err(errors::stopping())).await;
                    return;
                }
                () = maps.closed() => return,
                Ok(()) = changes.changed() => map = changes.borrow_and_update().clone(),
            }
        }
    }
}

fn nodes(meta: &MetaState) -> Vec<v1::NodeInfo> {
    let info = |node: &switchboard_engine::NodeInfo| v1::NodeInfo {
        node_id: node.node_id,
        address: node.address.clone(),
    };
    meta.nodes().map(info).collect()
}
