//! What a waiting command is counted with against the bound on waiting bytes.
//!
//! An estimate of the memory it holds, not its encoded length: the bound protects the process.

use switchboard_engine::Command;

use crate::limits::COMMAND_OVERHEAD_BYTES;

/// Bytes that `command` holds on to while it waits.
pub(crate) fn command_bytes(command: &Command) -> usize {
    let variable = match command {
        Command::Claim(claim) => claim.device.user.len() + claim.push_token.len(),
        Command::Release(release) => release.device.user.len(),
        Command::Unregister(unregister) => unregister.device.user.len(),
        Command::Enqueue(enqueue) => {
            enqueue.to_user.len() + enqueue.from.user.len() + enqueue.body.len()
        }
        Command::Ack(ack) => ack.device.user.len() + 8 * ack.seqs.len(),
        Command::Purge(purge) => purge.device.user.len() + purge.reason.len(),
        Command::SetNode(node) => node.address.len(),
        Command::RegisterGateway(gateway) => gateway.name.len() + gateway.address.len(),
        Command::SetNodeState(node) => node.zone.len(),
        Command::SetPlacement(placement) => 8 * placement.replicas.len(),
        Command::BeginMoves(begin) => size_of_val(&begin.moves[..]),
        Command::NoteMove(note) => note.stalled.len(),
        Command::Init(_)
        | Command::SetRules(_)
        | Command::Sweep(_)
        | Command::Tick
        | Command::InitCluster(_)
        | Command::RaiseFormat(_)
        | Command::EndMove(_)
        | Command::ReadmitNode(_)
        | Command::EndIncarnation(_) => 0,
    };
    COMMAND_OVERHEAD_BYTES + variable
}
