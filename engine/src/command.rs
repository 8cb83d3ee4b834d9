//! Commands: everything that can change a shard or the meta group, and how they are written down.
//!
//! A command is data. Whether it is allowed is decided when it is applied, from the state and the
//! command alone; what was malformed on the wire must be refused before it becomes a command. Each
//! family has a file with its types, its binary form and its tests; an [entry](EntryBuilder) holds many
//! commands and one stamp.

mod check;
mod entry;
pub mod mailbox;
pub mod meta;
pub mod placement;
pub mod session;
pub mod shard;

pub use entry::{DecodedCommand, ENTRY_HEAD_BYTES, EntryBuilder, EntryReader, PushError};
pub use mailbox::{Ack, Enqueue, MessageKind, Purge, RecordHead, RecordRef};
pub use meta::{EndIncarnation, GatewayKind, InitCluster, RaiseFormat, RegisterGateway, SetNode};
pub use placement::{
    BeginMoves, EndMove, MoveEnd, MoveStep, NodeState, NoteMove, ReadmitNode, ReplicaMove,
    SetNodeState, SetPlacement,
};
pub use session::{Claim, Release, Sweep, Unregister};
pub use shard::{Init, Rules};

use bytes::{BufMut, BytesMut};

use crate::codec::{DecodeError, Reader};

/// One change of the state of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begins a shard's log, or a new generation of it.
    Init(Init),
    /// Changes the replicated limits of a shard.
    SetRules(Rules),
    /// The device is now connected here.
    Claim(Claim),
    /// That connection has ended.
    Release(Release),
    /// The device is gone for good.
    Unregister(Unregister),
    /// Removes sessions of ended incarnations, a bounded number at a time.
    Sweep(Sweep),
    /// Stores a message for one device or all devices of a user.
    Enqueue(Enqueue),
    /// Removes messages that a device has.
    Ack(Ack),
    /// Empties a mailbox, by an operator.
    Purge(Purge),
    /// Nothing but the stamp of its entry: log time moves on.
    Tick,
    /// Begins the meta group's log.
    InitCluster(InitCluster),
    /// Adds or changes a node.
    SetNode(SetNode),
    /// A gateway or chat process starts a new incarnation.
    RegisterGateway(RegisterGateway),
    /// An incarnation has ended, and with it all its sessions.
    EndIncarnation(EndIncarnation),
    /// From now on the cluster may be written in a newer format.
    RaiseFormat(RaiseFormat),
    /// Changes what a node is there for.
    SetNodeState(SetNodeState),
    /// Records where a shard's replicas are.
    SetPlacement(SetPlacement),
    /// Replicas begin to move.
    BeginMoves(BeginMoves),
    /// How far a move is.
    NoteMove(NoteMove),
    /// A move ends, or is to.
    EndMove(EndMove),
    /// A node comes back without its disk.
    ReadmitNode(ReadmitNode),
}

/// The first byte of an encoded command. Values are never used again for something else.
mod tag {
    pub(super) const INIT: u8 = 1;
    pub(super) const SET_RULES: u8 = 2;
    pub(super) const TICK: u8 = 3;
    pub(super) const CLAIM: u8 = 16;
    pub(super) const RELEASE: u8 = 17;
    pub(super) const UNREGISTER: u8 = 18;
    pub(super) const SWEEP: u8 = 19;
    pub(super) const ENQUEUE: u8 = 32;
    pub(super) const ACK: u8 = 33;
    pub(super) const PURGE: u8 = 34;
    pub(super) const INIT_CLUSTER: u8 = 48;
    pub(super) const SET_NODE: u8 = 49;
    pub(super) const REGISTER_GATEWAY: u8 = 50;
    pub(super) const END_INCARNATION: u8 = 51;
    pub(super) const RAISE_FORMAT: u8 = 63;
    pub(super) const SET_NODE_STATE: u8 = 52;
    pub(super) const SET_PLACEMENT: u8 = 53;
    pub(super) const BEGIN_MOVES: u8 = 54;
    pub(super) const NOTE_MOVE: u8 = 55;
    pub(super) const END_MOVE: u8 = 56;
    pub(super) const READMIT_NODE: u8 = 57;
}

impl Command {
    /// Appends tag and fields.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Init(c) => put(out, tag::INIT, |out| c.encode(out)),
            Self::SetRules(c) => put(out, tag::SET_RULES, |out| c.encode(out)),
            Self::Claim(c) => put(out, tag::CLAIM, |out| c.encode(out)),
            Self::Release(c) => put(out, tag::RELEASE, |out| c.encode(out)),
            Self::Unregister(c) => put(out, tag::UNREGISTER, |out| c.encode(out)),
            Self::Sweep(c) => put(out, tag::SWEEP, |out| c.encode(out)),
            Self::Enqueue(c) => put(out, tag::ENQUEUE, |out| c.encode(out)),
            Self::Ack(c) => put(out, tag::ACK, |out| c.encode(out)),
            Self::Purge(c) => put(out, tag::PURGE, |out| c.encode(out)),
            Self::Tick => out.put_u8(tag::TICK),
            Self::InitCluster(c) => put(out, tag::INIT_CLUSTER, |out| c.encode(out)),
            Self::SetNode(c) => put(out, tag::SET_NODE, |out| c.encode(out)),
            Self::RegisterGateway(c) => put(out, tag::REGISTER_GATEWAY, |out| c.encode(out)),
            Self::EndIncarnation(c) => put(out, tag::END_INCARNATION, |out| c.encode(out)),
            Self::RaiseFormat(c) => put(out, tag::RAISE_FORMAT, |out| c.encode(out)),
            Self::SetNodeState(c) => put(out, tag::SET_NODE_STATE, |out| c.encode(out)),
            Self::SetPlacement(c) => put(out, tag::SET_PLACEMENT, |out| c.encode(out)),
            Self::BeginMoves(c) => put(out, tag::BEGIN_MOVES, |out| c.encode(out)),
            Self::NoteMove(c) => put(out, tag::NOTE_MOVE, |out| c.encode(out)),
            Self::EndMove(c) => put(out, tag::END_MOVE, |out| c.encode(out)),
            Self::ReadmitNode(c) => put(out, tag::READMIT_NODE, |out| c.encode(out)),
        }
    }

    /// Reads one command; says also where its message record lies, if it has one.
    fn decode(reader: &mut Reader) -> Result<DecodedCommand, DecodeError> {
        let at = reader.at();
        let mut record = None;
        let command = match reader.u8()? {
            tag::INIT => Self::Init(Init::decode(reader)?),
            tag::SET_RULES => Self::SetRules(Rules::decode(reader)?),
            tag::CLAIM => Self::Claim(Claim::decode(reader)?),
            tag::RELEASE => Self::Release(Release::decode(reader)?),
            tag::UNREGISTER => Self::Unregister(Unregister::decode(reader)?),
            tag::SWEEP => Self::Sweep(Sweep::decode(reader)?),
            tag::ENQUEUE => {
                let (command, found) = Enqueue::decode(reader)?;
                record = Some(found);
                Self::Enqueue(command)
            }
            tag::ACK => Self::Ack(Ack::decode(reader)?),
            tag::PURGE => Self::Purge(Purge::decode(reader)?),
            tag::TICK => Self::Tick,
            tag::INIT_CLUSTER => Self::InitCluster(InitCluster::decode(reader)?),
            tag::SET_NODE => Self::SetNode(SetNode::decode(reader)?),
            tag::REGISTER_GATEWAY => Self::RegisterGateway(RegisterGateway::decode(reader)?),
            tag::END_INCARNATION => Self::EndIncarnation(EndIncarnation::decode(reader)?),
            tag::RAISE_FORMAT => Self::RaiseFormat(RaiseFormat::decode(reader)?),
            tag::SET_NODE_STATE => Self::SetNodeState(SetNodeState::decode(reader)?),
            tag::SET_PLACEMENT => Self::SetPlacement(SetPlacement::decode(reader)?),
            tag::BEGIN_MOVES => Self::BeginMoves(BeginMoves::decode(reader)?),
            tag::NOTE_MOVE => Self::NoteMove(NoteMove::decode(reader)?),
            tag::END_MOVE => Self::EndMove(EndMove::decode(reader)?),
            tag::READMIT_NODE => Self::ReadmitNode(ReadmitNode::decode(reader)?),
            tag => return Err(DecodeError::Tag { what: "command", tag, at }),
        };
        Ok(DecodedCommand { command, record })
    }
}

fn put(out: &mut BytesMut, tag: u8, fields: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    fields(out);
}
