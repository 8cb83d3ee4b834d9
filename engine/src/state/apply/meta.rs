//! Applying the commands of the meta group.

use super::{Context, refusal};
use crate::{
    command::Command,
    reply::{Reply, Status},
    state::{MetaState, State},
};

/// Changes `meta`, and the header when the cluster begins.
pub(super) fn apply(
    state: &State,
    meta: &mut MetaState,
    context: &Context,
    command: &Command,
) -> Reply {
    let begun = meta.cluster.is_some();
    match command {
        Command::Tick => Reply::Done(Status::Ok),
        Command::InitCluster(c) => {
            let status = meta.init_cluster(c);
            let mut header = state.header.write();
            if status == Status::Ok && (!header.begun || c.generation > header.generation) {
                header.begun = true;
                header.generation = c.generation;
            }
            Reply::Done(status)
        }
        command if !begun => refusal(command, Status::Unavailable),
        Command::SetNode(c) => Reply::Done(meta.set_node(c)),
        Command::RegisterGateway(c) => {
            Reply::Registered(meta.register(c, context.position.get(), context.now_ms))
        }
        Command::RaiseFormat(c) => Reply::Done(meta.raise_format(c)),
        Command::EndIncarnation(c) => Reply::Ended(meta.end_incarnation(c)),
        Command::SetNodeState(c) => Reply::Done(meta.set_node_state(c)),
        Command::SetPlacement(c) => Reply::Done(meta.set_placement(c)),
        Command::BeginMoves(c) => {
            Reply::Done(meta.begin_moves(c, context.position.get(), context.now_ms))
        }
        Command::NoteMove(c) => Reply::Done(meta.placement.note_move(c, context.now_ms)),
        Command::ReadmitNode(c) => {
            Reply::Done(meta.readmit_node(c, context.position.get(), context.now_ms))
        }
        Command::EndMove(c) => Reply::Done(meta.placement.end_move(c.shard, c.id, c.end)),
        other => refusal(other, Status::Invalid),
    }
}
