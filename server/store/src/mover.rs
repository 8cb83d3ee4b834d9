//! Carries moves out, on whoever leads the meta group.
//!
//! ```text
//!  look ─▶ ask the shard's leader for the next step ─▶ record it ─▶ … ─▶ record the end
//! ```
//! A step that cannot be undone is recorded before it is taken, so an abort that was accepted is never
//! overtaken. All else is in the groups themselves: whoever leads the meta group next goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use switchboard_api::v1::{self, forwarded_answer::Answer, forwarded_call::Call};
use switchboard_engine::{
    BeginMoves, Command, EndMove, Move, MoveEnd, MoveStep, NodeState, NoteMove, SetPlacement,
    group_of_shard,
};
use switchboard_raft::{Consistency, NodeId};
use tokio::time::Instant;

use crate::{
    limits,
    placement::{layout, planner},
    service::Service,
};

/// What is known of moves beside what is recorded of them.
#[derive(Default)]
pub(crate) struct Mover {
    /// By shard and id. A lock, for operators ask; held to look one up.
    progress: Mutex<BTreeMap<(u32, u64), Progress>>,
    /// Shards whose move is being looked at.
    busy: Mutex<BTreeSet<u32>>,
}

#[derive(Clone)]
struct Progress {
    answer: v1::AdvanceMoveResponse,
    /// When it last differed from the one before.
    at: Instant,
}

/// Moves until the shutdown.
pub(crate) async fn run(service: Arc<Service>) {
    let token = service.shutdown.token();
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(limits::MOVE_LOOK_INTERVAL) => {}
        }
        let meta = service.node.meta();
        if !meta.is_leader() || meta.barrier(Consistency::Lease).await.is_err() {
            service.mover.progress.lock().clear();
            continue;
        }
        // Who makes a cluster, or changes one, does so alone.
        if let Ok(_one_at_a_time) = service.founding.try_lock() {
            service.record_placement().await;
            service.settle_meta().await;
            service.empty_drained().await;
        }
        for moving in chosen(service.possible_moves()) {
            let shard = moving.replica.shard;
            if service.mover.busy.lock().insert(shard) {
                let mover = service.clone();
                service.shutdown.spawn(async move {
                    let stop = mover.shutdown.token();
                    // A step that is cut short is taken again by whoever moves next.
                    let _ = stop.run_until_cancelled(mover.advance(moving)).await;
                    mover.mover.busy.lock().remove(&shard);
                });
            }
        }
    }
}

/// Those that have begun, and as many more as may be under way; one that is stalled takes no place.
fn chosen(moves: Vec<Move>) -> Vec<Move> {
    let (begun, mut waiting): (Vec<_>, Vec<_>) =
        moves.into_iter().partition(|one| one.step > MoveStep::Waiting || one.aborting);
    waiting.sort_by_key(|one| (!one.stalled.is_empty(), one.id, one.replica.shard));
    let under_way = begun.iter().filter(|one| one.stalled.is_empty()).count();
    let free = limits::MOVES_AT_ONCE_MAX.saturating_sub(under_way);
    begun.into_iter().chain(waiting.into_iter().take(free)).collect()
}

impl Service {
    fn moves(&self) -> Vec<Move> {
        self.node.meta().shard().meta(|meta| meta.placement().moves().cloned().collect())
    }

    /// Those that can be carried out: a node that comes back without its disk takes nothing yet.
    fn possible_moves(&self) -> Vec<Move> {
        self.node.meta().shard().meta(|meta| {
            let placement = meta.placement();
            let waits = |one: &&Move| placement.is_returning(one.replica.to) && !one.aborting;
            placement.moves().filter(|one| !waits(one)).cloned().collect()
        })
    }

    /// A cluster that was made before placement was recorded has every shard on every node.
    async fn record_placement(&self) {
        let unrecorded: Vec<u32> = self.node.meta().shard().meta(|meta| {
            let recorded = |shard: &u32| meta.placement().replicas(*shard).is_some();
            (0..meta.shards()).filter(|shard| !recorded(shard)).collect()
        });
        for shard in unrecorded {
            let group = self.node.group(group_of_shard(shard));
            let replicas = group.map(|group| group.status().voters).unwrap_or_default();
            if !replicas.is_empty() {
                self.note(Command::SetPlacement(SetPlacement { shard, replicas })).await;
            }
        }
    }

    /// Begins moves away from nodes that are drained, as long as they have replicas.
    async fn empty_drained(&self) {
        let planned = |full: &BTreeSet<NodeId>| {
            self.node.meta().shard().meta(|meta| {
                let (nodes, shards) = layout(meta, full);
                let drained = |node| meta.placement().role(node).state == NodeState::Draining;
                let planned = planner::plan(&nodes, &shards).into_iter();
                let moves: Vec<_> = planned.filter(|one| drained(one.from)).collect();
                (meta.placement().version(), moves)
            })
        };
        // Mostly there is nothing to do, and nobody need be asked about its disk.
        if planned(&BTreeSet::new()).1.is_empty() {
            return;
        }
        let (version, moves) = planned(&self.full_nodes().await);
        if !moves.is_empty() {
            self.note(Command::BeginMoves(BeginMoves { placement_version: version, moves })).await;
        }
    }

    /// Proposes what is looked at again soon, whatever comes of it.
    async fn note(&self, command: Command) -> bool {
        match self.propose_meta(command).await {
            Ok(switchboard_engine::Reply::Done(switchboard_engine::Status::Ok)) => true,
            Ok(refused) => {
                tracing::debug!(?refused, "the placement has moved on");
                false
            }
            Err(error) => {
                tracing::debug!(%error, "the placement is not recorded yet");
                false
            }
        }
    }

    /// Takes steps for as long as they are made at once.
    async fn advance(&self, moving: Move) {
        let mut next = Some(moving);
        while let Some(moving) = next {
            let has_stepped = self.take_step(&moving).await;
            let recorded = self
                .node
                .meta()
                .shard()
                .meta(|meta| meta.placement().move_of(moving.replica.shard).cloned());
            next = recorded.filter(|now| has_stepped && now.id == moving.id);
        }
    }

    /// Whether a step was taken that is recorded now.
    async fn take_step(&self, moving: &Move) -> bool {
        let shard = moving.replica.shard;
        let answer = match (self.obstacle(moving).await, self.leader_of(shard)) {
            (Some(obstacle), _) => Err(obstacle),
            (None, None) => Err(format!("no majority of the replicas of shard {shard} answers")),
            (None, Some(leader)) => self.ask_to_advance(leader, moving).await,
        };
        let (answer, stalled) = self.judge(moving, answer);
        if answer.done {
            let end = if moving.aborting { MoveEnd::Aborted } else { MoveEnd::Done };
            if self.note(Command::EndMove(EndMove { shard, id: moving.id, end })).await {
                tracing::info!(shard, ?end, "a move has ended");
                self.mover.progress.lock().remove(&(shard, moving.id));
            }
            return false;
        }
        let step = step_of(answer.step()).max(moving.step);
        if step == moving.step && stalled == moving.stalled {
            return false;
        }
        let note = NoteMove { shard, id: moving.id, step, stalled };
        self.note(Command::NoteMove(note)).await && step != moving.step
    }

    /// What keeps the node that gets the replica from getting it, if it is that node.
    async fn obstacle(&self, moving: &Move) -> Option<String> {
        let to = moving.replica.to;
        if to == 0 || moving.aborting || moving.step > MoveStep::CatchingUp {
            return None;
        }
        match self.status_soon(to).await {
            None => Some(format!("node {to} does not answer")),
            Some(status) if status.disk_almost_full => {
                Some(format!("the disk of node {to} is almost full"))
            }
            Some(_) => None,
        }
    }

    async fn ask_to_advance(
        &self,
        leader: NodeId,
        moving: &Move,
    ) -> Result<v1::AdvanceMoveResponse, String> {
        let request = v1::AdvanceMoveRequest {
            shard: moving.replica.shard,
            from_node_id: moving.replica.from,
            to_node_id: moving.replica.to,
            allowed: wire_step(moving.step).into(),
            abort: moving.aborting,
        };
        let take = |answer| match answer {
            Answer::AdvanceMove(answer) => Some(answer),
            _ => None,
        };
        let answer = if leader == self.node.node_id() {
            self.advance_move_here(request).await
        } else {
            self.hop(leader, Call::AdvanceMove(request), take).await
        };
        answer.map_err(|status| format!("node {leader}, which leads it: {}", status.message()))
    }

    /// Keeps what was answered, and says why the move is stalled, if it is: nothing changed for too long.
    fn judge(
        &self,
        moving: &Move,
        answer: Result<v1::AdvanceMoveResponse, String>,
    ) -> (v1::AdvanceMoveResponse, String) {
        let answer = answer.unwrap_or_else(|blocked| v1::AdvanceMoveResponse {
            step: wire_step(moving.step).into(),
            blocked,
            ..Default::default()
        });
        let since = {
            let mut known = self.mover.progress.lock();
            let now = Instant::now();
            let progress = known
                .entry((moving.replica.shard, moving.id))
                .or_insert_with(|| Progress { answer: answer.clone(), at: now });
            if has_moved(&progress.answer, &answer) {
                progress.at = now;
            }
            progress.answer = answer.clone();
            progress.at
        };
        let stalled = why_stalled(moving, &answer, since.elapsed());
        (answer, stalled)
    }

    /// The moves as this node knows them; how far they are only if it leads the meta group.
    pub(crate) fn moves_here(&self) -> v1::MovesResponse {
        let known = self.mover.progress.lock().clone();
        let info = |moving: Move| {
            let progress = known.get(&(moving.replica.shard, moving.id));
            let answer = progress.map(|progress| progress.answer.clone()).unwrap_or_default();
            v1::MoveInfo {
                id: moving.id,
                replica: Some(v1::ReplicaMove {
                    shard: moving.replica.shard,
                    from_node_id: moving.replica.from,
                    to_node_id: moving.replica.to,
                }),
                step: wire_step(moving.step).into(),
                aborting: moving.aborting,
                begun_at_ms: moving.begun_at_ms,
                stalled: moving.stalled,
                matched_index: answer.matched_index,
                last_index: answer.last_index,
                snapshot_bytes: answer.snapshot_bytes,
            }
        };
        v1::MovesResponse { moves: self.moves().into_iter().map(info).collect() }
    }
}

/// Why a move is said to be stalled when nothing has happened for so long; empty: it is not.
fn why_stalled(moving: &Move, answer: &v1::AdvanceMoveResponse, idle: Duration) -> String {
    let is_blocked = !answer.blocked.is_empty();
    let patience = if is_blocked { limits::MOVE_BLOCKED_AFTER } else { limits::MOVE_STALLED_AFTER };
    if idle < patience {
        // Once said, it holds until something moves.
        let holds = !moving.stalled.is_empty() && idle > limits::MOVE_LOOK_INTERVAL;
        return if holds { moving.stalled.clone() } else { String::new() };
    }
    let mut why = if is_blocked {
        answer.blocked.clone()
    } else {
        let seconds = limits::MOVE_STALLED_AFTER.as_secs();
        format!("node {} has got nothing for {seconds} s", moving.replica.to)
    };
    // It ends at its limit, on a boundary of characters.
    while why.len() > switchboard_engine::limits::STALLED_BYTES_MAX {
        why.pop();
    }
    why
}

/// Whether anything happened in between. That the leader has got more entries is not the move's doing.
fn has_moved(before: &v1::AdvanceMoveResponse, now: &v1::AdvanceMoveResponse) -> bool {
    (before.step, before.matched_index, before.snapshot_bytes, before.done)
        != (now.step, now.matched_index, now.snapshot_bytes, now.done)
}

fn wire_step(step: MoveStep) -> v1::MoveStep {
    match step {
        MoveStep::Waiting => v1::MoveStep::MoveWaiting,
        MoveStep::CatchingUp => v1::MoveStep::MoveCatchingUp,
        MoveStep::Changing => v1::MoveStep::MoveChanging,
        MoveStep::HandingOver => v1::MoveStep::MoveHandingOver,
        MoveStep::Removing => v1::MoveStep::MoveRemoving,
    }
}

fn step_of(step: v1::MoveStep) -> MoveStep {
    match step {
        v1::MoveStep::MoveWaiting => MoveStep::Waiting,
        v1::MoveStep::MoveCatchingUp => MoveStep::CatchingUp,
        v1::MoveStep::MoveChanging => MoveStep::Changing,
        v1::MoveStep::MoveHandingOver => MoveStep::HandingOver,
        v1::MoveStep::MoveRemoving => MoveStep::Removing,
    }
}

#[cfg(test)]
mod tests {
    use switchboard_engine::ReplicaMove;

    use super::*;

    fn moving(shard: u32, step: MoveStep, stalled: &str) -> Move {
        Move {
            id: 1,
            replica: ReplicaMove { shard, from: 1, to: 2 },
            step,
            aborting: false,
            begun_at_ms: 0,
            stepped_at_ms: 0,
            stalled: stalled.to_owned(),
        }
    }

    #[test]
    fn a_move_is_stalled_when_nothing_has_happened_for_long() {
        let answer = |blocked: &str| v1::AdvanceMoveResponse {
            blocked: blocked.to_owned(),
            ..Default::default()
        };
        let (begun, short) = (moving(0, MoveStep::CatchingUp, ""), Duration::from_millis(250));
        assert_eq!(why_stalled(&begun, &answer("node 2 does not answer"), short), "");
        let blocked = why_stalled(&begun, &answer("x"), limits::MOVE_BLOCKED_AFTER);
        assert_eq!(blocked, "x");
        assert_eq!(why_stalled(&begun, &answer(""), limits::MOVE_BLOCKED_AFTER), "");
        let idle = why_stalled(&begun, &answer(""), limits::MOVE_STALLED_AFTER);
        assert_eq!(idle, "node 2 has got nothing for 10 s");
        // Once said, it holds until something moves.
        let stalled = moving(0, MoveStep::CatchingUp, "x");
        assert_eq!(why_stalled(&stalled, &answer(""), short), "x");
        assert_eq!(why_stalled(&stalled, &answer(""), Duration::ZERO), "");
        let long = why_stalled(&begun, &answer(&"é".repeat(999)), limits::MOVE_STALLED_AFTER);
        assert!(long.len() <= switchboard_engine::limits::STALLED_BYTES_MAX);
    }

    #[test]
    fn a_stalled_move_keeps_nobody_waiting() {
        let waiting = |shard| moving(shard, MoveStep::Waiting, "");
        let mut moves: Vec<Move> = (0..10).map(waiting).collect();
        assert_eq!(chosen(moves.clone()).len(), limits::MOVES_AT_ONCE_MAX);
        moves[0] = moving(0, MoveStep::CatchingUp, "node 2 does not answer");
        moves[1] = moving(1, MoveStep::Changing, "");
        // Nor does one that could not even begin.
        moves[2] = moving(2, MoveStep::Waiting, "node 2 does not answer");
        let chosen: Vec<u32> = chosen(moves).iter().map(|one| one.replica.shard).collect();
        assert_eq!(chosen, [0, 1, 3, 4, 5]);
    }
}
