//! What operators ask of placement on any node: changes go to the leader of the meta group, progress comes
//! from there.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::join_all;
use switchboard_api::v1::{
    self, change_placement_request::Change, forwarded_answer::Answer, forwarded_call::Call,
};
use switchboard_raft::NodeId;
use tokio::sync::mpsc;
use tonic::Status;

use super::{layout, planner};
use crate::{errors, limits, service::Service};

impl Service {
    /// Passes a change on to the leader of the meta group; the placement version after it.
    pub(crate) async fn change_placement(self: &Arc<Self>, change: Change) -> Result<u64, Status> {
        let request = v1::ChangePlacementRequest { change: Some(change) };
        let take = |answer| match answer {
            Answer::ChangePlacement(answer) => Some(answer),
            _ => None,
        };
        let answer = match self.elsewhere(self.node.meta()) {
            None => self.change_placement_here(request).await,
            Some(leader) => self.hop(leader, Call::ChangePlacement(request), take).await,
        };
        answer.map(|answer| answer.placement_version)
    }

    /// The moves that would balance the cluster, with every change taken in that was answered before. A plan for
    /// a placement of before would be refused at best, and at worst there would be nothing in it to refuse.
    pub(crate) async fn plan_rebalance(&self) -> Result<v1::PlanRebalanceResponse, Status> {
        self.catch_up(self.node.meta()).await?;
        let full = self.full_nodes().await;
        Ok(self.node.meta().shard().meta(|meta| {
            let (nodes, shards) = layout(meta, &full);
            let wire = |one: switchboard_engine::ReplicaMove| v1::ReplicaMove {
                shard: one.shard,
                from_node_id: one.from,
                to_node_id: one.to,
            };
            let moves = planner::plan(&nodes, &shards).into_iter().map(wire).collect();
            v1::PlanRebalanceResponse { placement_version: meta.placement().version(), moves }
        }))
    }

    /// The nodes that can take nothing: their disks are almost full, or they do not answer.
    pub(crate) async fn full_nodes(&self) -> BTreeSet<NodeId> {
        let members = self.node.members().into_iter();
        let asked = members.map(|member| async move {
            let status = self.status_soon(member.node_id).await;
            status.is_none_or(|status| status.disk_almost_full).then_some(member.node_id)
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// The moves as who carries them out knows them.
    pub(crate) async fn list_moves(&self) -> Result<Vec<v1::MoveInfo>, Status> {
        let take = |answer| match answer {
            Answer::Moves(answer) => Some(answer.moves),
            _ => None,
        };
        match self.elsewhere(self.node.meta()) {
            None => Ok(self.moves_here().moves),
            Some(leader) => self.hop(leader, Call::Moves(v1::MovesRequest {}), take).await,
        }
    }

    /// Begins moves.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        request: v1::ApplyPlanRequest,
    ) -> Result<BTreeSet<u32>, Status> {
        let shards = request.moves.iter().map(|one| one.shard).collect();
        self.change_placement(Change::BeginMoves(request)).await?;
        Ok(shards)
    }

    /// Tells of the moves of these shards until all have ended, or the reader has gone.
    pub(crate) async fn serve_progress(
        self: Arc<Self>,
        shards: BTreeSet<u32>,
        progress: mpsc::Sender<Result<v1::MoveProgress, Status>>,
    ) {
        let token = self.shutdown.token();
        let total = u32::try_from(shards.len()).unwrap_or(u32::MAX);
        loop {
            // A meta group without a leader has none for a moment: the moves go on.
            if let Ok(moves) = self.list_moves().await {
                let of_these = |one: &v1::MoveInfo| {
                    one.replica.as_ref().is_some_and(|one| shards.contains(&one.shard))
                };
                let moves: Vec<_> = moves.into_iter().filter(of_these).collect();
                let left = u32::try_from(moves.len()).unwrap_or(u32::MAX);
                let message = v1::MoveProgress {
                    moves,
                    moves_total: total,
                    moves_ended: total.saturating_sub(left),
                };
                if progress.send(Ok(message)).await.is_err() || left == 0 {
                    return;
                }
            }
            tokio::select! {
                () = token.cancelled() => {
                    // The reader may be gone already.
                    let _ = progress.send(Err(errors::stopping())).await;
                    return;
                }
                () = progress.closed() => return,
                () = tokio::time::sleep(limits::MOVE_LOOK_INTERVAL) => {}
            }
        }
    }
}
