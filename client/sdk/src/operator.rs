//! What operators ask of a cluster; see `ClusterService`.

use std::sync::Arc;

use switchboard_api::v1;

use crate::{Client, Error, core::Repeat, node::Node};

impl Client {
    /// Makes a cluster of nodes that wait for one, of which the one that this client connects to is
    /// the first. Repeated, it ends what was cut short.
    pub async fn init_cluster(
        &self,
        request: v1::InitClusterRequest,
    ) -> Result<v1::InitClusterResponse, Error> {
        self.ask(Repeat::AfterFailure, move |node| {
            let request = request.clone();
            async move { Ok(node.cluster().init_cluster(request).await?.into_inner()) }
        })
        .await
    }

    /// Every node's own account of itself.
    pub async fn list_nodes(&self) -> Result<Vec<v1::list_nodes_response::Node>, Error> {
        self.ask(Repeat::AfterFailure, |node| async move {
            let request = v1::ListNodesRequest {};
            Ok(node.cluster().list_nodes(request).await?.into_inner().nodes)
        })
        .await
    }

    /// Every shard's replicas.
    pub async fn list_shards(&self) -> Result<Vec<v1::list_shards_response::Shard>, Error> {
        self.ask(Repeat::AfterFailure, |node| async move {
            let request = v1::ListShardsRequest {};
            Ok(node.cluster().list_shards(request).await?.into_inner().shards)
        })
        .await
    }

    /// Hands a shard's leadership to another replica and waits until that leads.
    pub async fn transfer_leader(&self, shard: u32, to_node_id: u64) -> Result<(), Error> {
        let request = v1::TransferLeaderRequest { shard, to_node_id };
        self.ask(Repeat::AfterFailure, move |node| async move {
            node.cluster().transfer_leader(request).await.map(drop)
        })
        .await
    }

    /// Raises the format that the cluster is written in; see `ClusterService.Upgrade`.
    pub async fn upgrade(&self, request: v1::UpgradeRequest) -> Result<v1::UpgradeResponse, Error> {
        self.ask(Repeat::AfterFailure, move |node| async move {
            Ok(node.cluster().upgrade(request).await?.into_inner())
        })
        .await
    }

    /// Whether the replicas of these shards agree; of all shards if none is named.
    pub async fn compare_replicas(
        &self,
        shards: Vec<u32>,
    ) -> Result<Vec<v1::compare_replicas_response::Shard>, Error> {
        self.ask(Repeat::AfterFailure, move |node| {
            let request = v1::CompareReplicasRequest { shards: shards.clone() };
            async move { Ok(node.cluster().compare_replicas(request).await?.into_inner().shards) }
        })
        .await
    }

    /// Takes a node that waits for it into the cluster; the placement version after it.
    pub async fn add_node(
        &self,
        node: v1::NodeInfo,
        zone: &str,
        lost_disk: bool,
    ) -> Result<u64, Error> {
        let request = v1::AddNodeRequest { node: Some(node), zone: zone.to_owned(), lost_disk };
        self.ask(Repeat::AfterFailure, move |node| {
            let request = request.clone();
            async move {
                Ok(node.cluster().add_node(request).await?.into_inner().placement_version)
            }
        })
        .await
    }

    /// Takes a node without replicas out for good; the placement version after it.
    pub async fn remove_node(&self, node_id: u64) -> Result<u64, Error> {
        let request = v1::RemoveNodeRequest { node_id };
        self.ask(Repeat::Harmful, move |node| async move {
            Ok(node.cluster().remove_node(request).await?.into_inner().placement_version)
        })
        .await
    }

    /// Lets a node's replicas go elsewhere, or takes that back; the placement version after it.
    pub async fn drain_node(&self, node_id: u64, undo: bool) -> Result<u64, Error> {
        let request = v1::DrainNodeRequest { node_id, undo };
        self.ask(Repeat::AfterFailure, move |node| async move {
            Ok(node.cluster().drain_node(request).await?.into_inner().placement_version)
        })
        .await
    }

    /// The moves that would balance the cluster, and the placement that they are for.
    pub async fn plan_rebalance(&self) -> Result<v1::PlanRebalanceResponse, Error> {
        self.ask(Repeat::AfterFailure, |node| async move {
            let request = v1::PlanRebalanceRequest {};
            Ok(node.cluster().plan_rebalance(request).await?.into_inner())
        })
        .await
    }

    /// Begins the moves of a plan, all or none, and returns once they have begun; `list_moves` tells
    /// how far they are.
    pub async fn apply_plan(&self, request: v1::ApplyPlanRequest) -> Result<(), Error> {
        self.ask(Repeat::Harmful, move |node| {
            let request = request.clone();
            // Whoever answers has begun the moves; they do not need the stream that tells of them.
            async move { node.cluster().apply_plan(request).await.map(drop) }
        })
        .await
    }

    /// Begins to undo the move of a shard, if its voters have not changed yet.
    pub async fn abort_move(&self, shard: u32) -> Result<(), Error> {
        let request = v1::AbortMoveRequest { shard };
        self.ask(Repeat::Harmful, move |node| async move {
            node.cluster().abort_move(request).await.map(drop)
        })
        .await
    }

    /// The moves that have begun and not ended.
    pub async fn list_moves(&self) -> Result<Vec<v1::MoveInfo>, Error> {
        self.ask(Repeat::AfterFailure, |node| async move {
            let request = v1::ListMovesRequest {};
            Ok(node.cluster().list_moves(request).await?.into_inner().moves)
        })
        .await
    }

    /// Makes a call on one node after another.
    async fn ask<R, F>(&self, repeat: Repeat, call: impl Fn(Arc<Node>) -> F) -> Result<R, Error>
    where
        F: Future<Output = Result<R, tonic::Status>>,
    {
        self.core()
            .retrying(repeat, |attempt| {
                let node = self.core().routes().any(attempt).clone();
                (node.clone(), call(node))
            })
            .await
    }
}
