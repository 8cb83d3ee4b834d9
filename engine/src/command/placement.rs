//! Commands of the meta group that say where replicas are and where they go.
//!
//! A move is data of the replicated state from its beginning to its end, so whoever leads the meta group
//! carries on with it. What a group's voters really are only that group knows; these commands record what
//! they shall be.

use bytes::{BufMut, BytesMut};

use crate::{
    codec::{DecodeError, Reader, put_count, put_medium},
    limits::{NODES_MAX, SHARDS_MAX, STALLED_BYTES_MAX, ZONE_BYTES_MAX},
};

/// What a node is there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// It gets replicas.
    #[default]
    Active,
    /// Its replicas go elsewhere.
    Draining,
    /// It left for good; its id is never used again.
    Removed,
}

/// Changes what a node is there for, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetNodeState {
    /// Which node.
    pub node_id: u64,
    /// From now on.
    pub state: NodeState,
    /// What fails together with it; empty: nothing is known.
    pub zone: String,
}

/// A node whose disk is lost comes back with another one. Until it is forgotten, the node has no part in
/// anything: it was counted on with promises and entries that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadmitNode {
    /// Which node.
    pub node_id: u64,
    /// The disk that it comes back with. The one that is recorded: it did not lose it after all.
    pub disk_id: [u8; 16],
    /// Whether every group has taken it out, and every voter knows that: the disk is recorded.
    pub is_forgotten: bool,
}

/// Records where a shard's replicas are, once: from then on they go by moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetPlacement {
    /// Which shard.
    pub shard: u32,
    /// Nodes with a replica that votes.
    pub replicas: Vec<u64>,
}

/// One replica goes from a node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaMove {
    /// Which shard.
    pub shard: u32,
    /// Which node gives it up; 0: none, the shard gets one more.
    pub from: u64,
    /// Which node gets it; 0: none, the shard has one less.
    pub to: u64,
}

/// Begins moves, all or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginMoves {
    /// The placement version that they were planned for; 0: whatever it is.
    pub placement_version: u64,
    /// At most one a shard.
    pub moves: Vec<ReplicaMove>,
}

/// How far a move is. Each step but the first looks at the group itself, so it may be repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MoveStep {
    /// Others go first.
    #[default]
    Waiting,
    /// The new replica gets what the others have.
    CatchingUp,
    /// The voters change; from here on a move only goes forward.
    Changing,
    /// Another replica takes over leadership from the one that leaves.
    HandingOver,
    /// The old replica leaves.
    Removing,
}

/// Records how far a move is, or why it does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteMove {
    /// The move's shard.
    pub shard: u32,
    /// The move's id.
    pub id: u64,
    /// How far it is.
    pub step: MoveStep,
    /// Why it does not go on; empty: it does.
    pub stalled: String,
}

/// What is to become of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MoveEnd {
    /// It is to be undone, if that is possible still.
    Abort,
    /// It has been undone.
    Aborted,
    /// The replica is where it should be.
    Done,
}

/// Ends a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndMove {
    /// The move's shard.
    pub shard: u32,
    /// The move's id.
    pub id: u64,
    /// How.
    pub end: MoveEnd,
}

macro_rules! tags {
    ($type:ident, $what:literal, $($value:ident = $tag:literal),+) => {
        impl $type {
            pub(crate) fn to_u8(self) -> u8 {
                match self { $(Self::$value => $tag),+ }
            }

            pub(crate) fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
                let at = reader.at();
                match reader.u8()? {
                    $($tag => Ok(Self::$value),)+
                    tag => Err(DecodeError::Tag { what: $what, tag, at }),
                }
            }
        }
    };
}

tags!(NodeState, "state of a node", Active = 0, Draining = 1, Removed = 2);
tags!(
    MoveStep,
    "step of a move",
    Waiting = 0,
    CatchingUp = 1,
    Changing = 2,
    HandingOver = 3,
    Removing = 4
);
tags!(MoveEnd, "end of a move", Abort = 0, Aborted = 1, Done = 2);

impl SetNodeState {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.node_id);
        out.put_u8(self.state.to_u8());
        put_medium(out, self.zone.as_bytes());
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            node_id: reader.u64()?,
            state: NodeState::read(reader)?,
            zone: reader.text("zone", ZONE_BYTES_MAX)?,
        })
    }
}

impl ReadmitNode {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.node_id);
        out.put_slice(&self.disk_id);
        out.put_u8(u8::from(self.is_forgotten));
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            node_id: reader.u64()?,
            disk_id: reader.array()?,
            is_forgotten: reader.bool("whether a node is forgotten")?,
        })
    }
}

impl SetPlacement {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.shard);
        encode_nodes(out, &self.replicas);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { shard: reader.u32()?, replicas: decode_nodes(reader)? })
    }
}

impl ReplicaMove {
    /// Bytes of its form.
    pub(super) const BYTES: usize = 4 + 8 + 8;

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.shard);
        out.put_u64_le(self.from);
        out.put_u64_le(self.to);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { shard: reader.u32()?, from: reader.u64()?, to: reader.u64()? })
    }
}

impl BeginMoves {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.placement_version);
        put_count(out, self.moves.len());
        self.moves.iter().for_each(|one| one.encode(out));
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let placement_version = reader.u64()?;
        let count = reader.count(ReplicaMove::BYTES)?;
        if count > SHARDS_MAX as usize {
            return Err(DecodeError::Range { what: "moves", at: reader.at() });
        }
        let moves = (0..count).map(|_| ReplicaMove::decode(reader)).collect::<Result<_, _>>()?;
        Ok(Self { placement_version, moves })
    }
}

impl NoteMove {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.shard);
        out.put_u64_le(self.id);
        out.put_u8(self.step.to_u8());
        put_medium(out, self.stalled.as_bytes());
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            shard: reader.u32()?,
            id: reader.u64()?,
            step: MoveStep::read(reader)?,
            stalled: reader.text("reason", STALLED_BYTES_MAX)?,
        })
    }
}

impl EndMove {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.shard);
        out.put_u64_le(self.id);
        out.put_u8(self.end.to_u8());
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { shard: reader.u32()?, id: reader.u64()?, end: MoveEnd::read(reader)? })
    }
}

pub(crate) fn encode_nodes(out: &mut BytesMut, nodes: &[u64]) {
    put_count(out, nodes.len());
    nodes.iter().for_each(|node| out.put_u64_le(*node));
}

pub(crate) fn decode_nodes(reader: &mut Reader) -> Result<Vec<u64>, DecodeError> {
    let count = reader.count(8)?;
    if count > NODES_MAX {
        return Err(DecodeError::Range { what: "nodes", at: reader.at() });
    }
    (0..count).map(|_| reader.u64()).collect()
}
