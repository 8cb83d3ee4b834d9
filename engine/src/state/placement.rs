//! Where the shards' replicas are, where they shall be, and what the nodes are there for.
//!
//! ```text
//!  BeginMoves ─▶ Waiting ─▶ CatchingUp ─▶ Changing ─▶ HandingOver ─▶ Removing ─▶ EndMove: Done
//!                   └────────────┴── Abort ─▶ undone ─▶ EndMove: Aborted
//! ```
//! A shard without a record has its replicas where they were when the cluster was made, on every node
//! that it had then; it is recorded before a node is added.
//!
//! Invariants: a shard has at most one move and at least one replica; no node is named twice; a move's
//! target has no replica of the shard, its source has one.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};

use crate::{
    codec::{DecodeError, Reader, put_count, put_medium},
    command::{
        MoveEnd, MoveStep, NodeState, NoteMove, ReplicaMove,
        placement::{decode_nodes, encode_nodes},
    },
    limits::{STALLED_BYTES_MAX, ZONE_BYTES_MAX},
    reply::Status,
};

/// Version of the form that follows the meta state.
const VERSION: u8 = 1;

/// What is known of a node beside its address and disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRole {
    /// What it is there for.
    pub state: NodeState,
    /// What fails together with it; empty: nothing is known.
    pub zone: String,
}

/// A move that has begun and not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The position of the command that began it, and its number among those.
    pub id: u64,
    /// What goes where.
    pub replica: ReplicaMove,
    /// How far it is.
    pub step: MoveStep,
    /// Whether it is to be undone.
    pub aborting: bool,
    /// Log time when it began, Unix milliseconds.
    pub begun_at_ms: u64,
    /// Log time of the last step, Unix milliseconds.
    pub stepped_at_ms: u64,
    /// Why it does not go on; empty: it does.
    pub stalled: String,
}

impl Move {
    fn begun(replica: ReplicaMove, position: u64, now_ms: u64) -> Self {
        Self {
            id: position,
            replica,
            step: MoveStep::Waiting,
            aborting: false,
            begun_at_ms: now_ms,
            stepped_at_ms: now_ms,
            stalled: String::new(),
        }
    }
}

/// Placement of all shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    pub(super) version: u64,
    pub(super) roles: BTreeMap<u64, NodeRole>,
    pub(super) replicas: BTreeMap<u32, Vec<u64>>,
    pub(super) moves: BTreeMap<u32, Move>,
    /// Nodes that lost their disks, with the ones that they come back with.
    pub(super) returning: BTreeMap<u64, [u8; 16]>,
}

impl Placement {
    /// Position of the last command that changed where replicas are or shall be; 0 if none did.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What a node is there for; who is not recorded is active.
    #[must_use]
    pub fn role(&self, node_id: u64) -> NodeRole {
        self.roles.get(&node_id).cloned().unwrap_or_default()
    }

    /// Nodes with a replica that votes, ascending; none if nothing is recorded of the shard.
    #[must_use]
    pub fn replicas(&self, shard: u32) -> Option<&[u64]> {
        self.replicas.get(&shard).map(Vec::as_slice)
    }

    /// The move of a shard, if it has one.
    #[must_use]
    pub fn move_of(&self, shard: u32) -> Option<&Move> {
        self.moves.get(&shard)
    }

    /// All moves, by shard.
    pub fn moves(&self) -> impl Iterator<Item = &Move> {
        self.moves.values()
    }

    /// Nodes that lost their disks and are not forgotten yet, with the disks that they come back with.
    pub fn returning(&self) -> impl Iterator<Item = (u64, [u8; 16])> {
        self.returning.iter().map(|(node, disk)| (*node, *disk))
    }

    /// Whether a node has no part in anything until it is forgotten.
    #[must_use]
    pub fn is_returning(&self, node_id: u64) -> bool {
        self.returning.contains_key(&node_id)
    }

    /// Whether a node has, or is getting, a replica; true also if nothing is recorded of the shard.
    #[must_use]
    pub fn names(&self, shard: u32, node_id: u64) -> bool {
        let has = self.replicas.get(&shard).is_none_or(|nodes| nodes.contains(&node_id));
        has || self.moves.get(&shard).is_some_and(|moving| moving.replica.to == node_id)
    }

    /// The shards of which a node has, or is getting, a recorded replica.
    #[must_use]
    pub fn shards_on(&self, node_id: u64) -> Vec<u32> {
        let recorded = self.replicas.keys().copied();
        recorded.filter(|shard| self.names(*shard, node_id)).collect()
    }

    pub(super) fn set_placement(&mut self, shard: u32, replicas: &[u64]) -> Status {
        let mut nodes = replicas.to_vec();
        nodes.sort_unstable();
        nodes.dedup();
        if nodes.is_empty() || nodes.len() != replicas.len() {
            return Status::Invalid;
        }
        // What is recorded changes by moves alone: whoever records it late may know less.
        if *self.replicas.entry(shard).or_insert_with(|| nodes.clone()) == nodes {
            Status::Ok
        } else {
            Status::Fenced
        }
    }

    /// Moves to the node are undone where that is possible: it cannot take anything. Those that give it back
    /// what it had before wait for it: nothing else knows of that any more.
    pub(super) fn begin_return(&mut self, node_id: u64, disk_id: [u8; 16]) {
        self.returning.insert(node_id, disk_id);
        let moves = self.moves.values_mut();
        let undoable = |one: &&mut Move| {
            let ReplicaMove { from, to, .. } = one.replica;
            to == node_id && from != 0 && one.step < MoveStep::Changing
        };
        moves.filter(undoable).for_each(|one| one.aborting = true);
    }

    /// Begins a move to the node for each replica that it had; false, and nothing, while one of those shards
    /// has another move.
    pub(super) fn bring_back(&mut self, node_id: u64, position: u64, now_ms: u64) -> bool {
        let had = |nodes: &[u64]| nodes.contains(&node_id) && nodes.len() > 1;
        let shards: Vec<u32> =
            self.replicas.iter().filter(|(_, nodes)| had(nodes)).map(|(shard, _)| *shard).collect();
        if shards.iter().any(|shard| self.moves.contains_key(shard)) {
            return false;
        }
        for shard in shards {
            self.replicas.entry(shard).or_default().retain(|node| *node != node_id);
            let replica = ReplicaMove { shard, from: 0, to: node_id };
            self.moves.insert(shard, Move::begun(replica, position, now_ms));
        }
        true
    }

    /// `known` says whether a node is a member that may get replicas.
    pub(super) fn begin_moves(
        &mut self,
        planned_for: u64,
        moves: &[ReplicaMove],
        position: u64,
        now_ms: u64,
        known: impl Fn(u64) -> bool,
    ) -> Status {
        if planned_for != 0 && planned_for != self.version {
            return Status::Fenced;
        }
        let mut begun = self.moves.clone();
        for replica in moves {
            let Some(nodes) = self.replicas.get(&replica.shard) else { return Status::Invalid };
            let ReplicaMove { shard, from, to } = *replica;
            let from_is_there = from == 0 || nodes.contains(&from);
            let to_is_new = to == 0 || (known(to) && !nodes.contains(&to));
            let keeps_one = to != 0 || (from != 0 && nodes.len() > 1);
            if !from_is_there || !to_is_new || !keeps_one {
                return Status::Invalid;
            }
            let moving = Move::begun(*replica, position, now_ms);
            if begun.insert(shard, moving).is_some() {
                return Status::Duplicate;
            }
        }
        self.moves = begun;
        Status::Ok
    }

    pub(super) fn note_move(&mut self, note: &NoteMove, now_ms: u64) -> Status {
        let Some(moving) = self.moves.get_mut(&note.shard).filter(|one| one.id == note.id) else {
            return Status::Fenced;
        };
        // An abort that was accepted must not be overtaken by a step that cannot be undone.
        if note.step < moving.step || (moving.aborting && note.step >= MoveStep::Changing) {
            return Status::Fenced;
        }
        if note.step > moving.step {
            moving.stepped_at_ms = now_ms;
        }
        moving.step = note.step;
        moving.stalled.clone_from(&note.stalled);
        Status::Ok
    }

    pub(super) fn end_move(&mut self, shard: u32, id: u64, end: MoveEnd) -> Status {
        let Some(moving) = self.moves.get_mut(&shard).filter(|one| one.id == id) else {
            return Status::Fenced;
        };
        match end {
            MoveEnd::Abort if moving.step >= MoveStep::Changing => return Status::Invalid,
            MoveEnd::Abort => moving.aborting = true,
            MoveEnd::Aborted if !moving.aborting => return Status::Invalid,
            MoveEnd::Aborted => drop(self.moves.remove(&shard)),
            MoveEnd::Done => {
                let ReplicaMove { from, to, .. } = moving.replica;
                self.moves.remove(&shard);
                let nodes = self.replicas.entry(shard).or_default();
                nodes.retain(|node| *node != from);
                if to != 0 {
                    nodes.push(to);
                }
                nodes.sort_unstable();
            }
        }
        Status::Ok
    }
}

/// Appends the placement; nothing of one that was never touched, so that older states keep their form.
pub(super) fn encode_placement(out: &mut BytesMut, placement: &Placement) {
    if *placement == Placement::default() {
        return;
    }
    out.put_u8(VERSION);
    out.put_u64_le(placement.version);
    put_count(out, placement.roles.len());
    for (node_id, role) in &placement.roles {
        out.put_u64_le(*node_id);
        out.put_u8(role.state.to_u8());
        put_medium(out, role.zone.as_bytes());
    }
    put_count(out, placement.replicas.len());
    for (shard, nodes) in &placement.replicas {
        out.put_u32_le(*shard);
        encode_nodes(out, nodes);
    }
    put_count(out, placement.moves.len());
    for moving in placement.moves.values() {
        out.put_u64_le(moving.id);
        moving.replica.encode(out);
        out.put_u8(moving.step.to_u8());
        out.put_u8(u8::from(moving.aborting));
        out.put_u64_le(moving.begun_at_ms);
        out.put_u64_le(moving.stepped_at_ms);
        put_medium(out, moving.stalled.as_bytes());
    }
    put_count(out, placement.returning.len());
    for (node_id, disk_id) in &placement.returning {
        out.put_u64_le(*node_id);
        out.put_slice(disk_id);
    }
}

/// Reads what [`encode_placement`] wrote, up to the end of the bytes.
pub(super) fn decode_placement(reader: &mut Reader) -> Result<Placement, DecodeError> {
    let mut placement = Placement::default();
    if reader.left() == 0 {
        return Ok(placement);
    }
    let found = reader.u8()?;
    if found != VERSION {
        return Err(DecodeError::Version { what: "placement", found, known: VERSION });
    }
    placement.version = reader.u64()?;
    for _ in 0..reader.count(8 + 1 + 2)? {
        let node_id = reader.u64()?;
        let state = NodeState::read(reader)?;
        let zone = reader.text("zone", ZONE_BYTES_MAX)?;
        placement.roles.insert(node_id, NodeRole { state, zone });
    }
    for _ in 0..reader.count(4 + 4)? {
        placement.replicas.insert(reader.u32()?, decode_nodes(reader)?);
    }
    for _ in 0..reader.count(8 + 20 + 1 + 1 + 8 + 8 + 2)? {
        let moving = Move {
            id: reader.u64()?,
            replica: ReplicaMove::decode(reader)?,
            step: MoveStep::read(reader)?,
            aborting: reader.bool("whether a move is undone")?,
            begun_at_ms: reader.u64()?,
            stepped_at_ms: reader.u64()?,
            stalled: reader.text("reason", STALLED_BYTES_MAX)?,
        };
        placement.moves.insert(moving.replica.shard, moving);
    }
    for _ in 0..reader.count(8 + 16)? {
        placement.returning.insert(reader.u64()?, reader.array()?);
    }
    Ok(placement)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed() -> Placement {
        let mut placement = Placement::default();
        for shard in 0..4 {
            assert_eq!(placement.set_placement(shard, &[1, 2, 3]), Status::Ok);
        }
        placement.roles.insert(4, NodeRole { state: NodeState::Draining, zone: "b".into() });
        placement.returning.insert(3, [3; 16]);
        placement.version = 7;
        placement
    }

    fn begin(placement: &mut Placement, version: u64, from: u64, to: u64) -> Status {
        let moves = [ReplicaMove { shard: 1, from, to }];
        placement.begin_moves(version, &moves, 9, 100, |node| node <= 4)
    }

    fn note(placement: &mut Placement, step: MoveStep) -> Status {
        let note = NoteMove { shard: 1, id: 9, step, stalled: "because".into() };
        placement.note_move(&note, 200)
    }

    #[test]
    fn a_move_that_is_done_changes_the_replicas() {
        let mut placement = placed();
        assert_eq!(begin(&mut placement, 6, 1, 4), Status::Fenced);
        for (from, to) in [(4, 1), (1, 2), (1, 5), (0, 0)] {
            assert_eq!(begin(&mut placement, 7, from, to), Status::Invalid, "{from} {to}");
        }
        assert_eq!(begin(&mut placement, 7, 1, 4), Status::Ok);
        assert_eq!(begin(&mut placement, 7, 2, 4), Status::Duplicate);
        assert!(placement.names(1, 4) && placement.names(1, 1) && !placement.names(0, 4));
        assert_eq!(note(&mut placement, MoveStep::Changing), Status::Ok);
        assert_eq!(note(&mut placement, MoveStep::CatchingUp), Status::Fenced);
        assert_eq!(placement.end_move(1, 9, MoveEnd::Abort), Status::Invalid);
        assert_eq!(placement.end_move(1, 8, MoveEnd::Done), Status::Fenced);
        assert_eq!(placement.end_move(1, 9, MoveEnd::Done), Status::Ok);
        assert_eq!(placement.replicas(1), Some(&[2, 3, 4][..]));
        assert!(!placement.names(1, 1));
        assert_eq!(placement.shards_on(4), [1]);
    }

    #[test]
    fn a_move_that_is_undone_changes_nothing() {
        let mut placement = placed();
        let before = placement.clone();
        assert_eq!(begin(&mut placement, 0, 1, 4), Status::Ok);
        assert_eq!(placement.end_move(1, 9, MoveEnd::Aborted), Status::Invalid);
        assert_eq!(placement.end_move(1, 9, MoveEnd::Abort), Status::Ok);
        assert_eq!(note(&mut placement, MoveStep::CatchingUp), Status::Ok);
        assert_eq!(note(&mut placement, MoveStep::Changing), Status::Fenced);
        assert_eq!(placement.end_move(1, 9, MoveEnd::Aborted), Status::Ok);
        assert_eq!(placement, before);
    }

    #[test]
    fn a_node_that_was_forgotten_gets_its_replicas_by_moves() {
        let mut placement = placed();
        placement.set_placement(4, &[1]);
        assert_eq!(begin(&mut placement, 7, 2, 4), Status::Ok);
        let before = placement.clone();
        assert!(!placement.bring_back(1, 20, 300), "shard 1 has another move");
        assert_eq!(placement, before);
        assert_eq!(placement.end_move(1, 9, MoveEnd::Done), Status::Ok);
        assert!(placement.bring_back(1, 20, 300));
        assert_eq!(placement.replicas(0), Some(&[2, 3][..]));
        assert_eq!(placement.replicas(4), Some(&[1][..]), "nobody else has it");
        let moves: Vec<_> = placement.moves().map(|one| (one.id, one.replica)).collect();
        let to_it = |shard| (20, ReplicaMove { shard, from: 0, to: 1 });
        assert_eq!(moves, (0..4).map(to_it).collect::<Vec<_>>());
        assert!(placement.names(0, 1));
    }

    #[test]
    fn it_reads_back_as_it_was_written_and_no_cut_is_taken() {
        let mut placement = placed();
        assert_eq!(begin(&mut placement, 7, 1, 4), Status::Ok);
        assert_eq!(note(&mut placement, MoveStep::CatchingUp), Status::Ok);
        let mut out = BytesMut::new();
        encode_placement(&mut out, &placement);
        let bytes = out.freeze();
        let mut reader = Reader::new(bytes.clone());
        assert_eq!(decode_placement(&mut reader), Ok(placement));
        assert_eq!(reader.left(), 0);
        for len in 1..bytes.len() {
            assert!(decode_placement(&mut Reader::new(bytes.slice(..len))).is_err(), "{len}");
        }
        let mut nothing = BytesMut::new();
        encode_placement(&mut nothing, &Placement::default());
        assert!(nothing.is_empty());
    }
}
