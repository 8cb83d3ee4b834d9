//! Commands of the meta group: the cluster, its nodes, and gateway and chat processes.

use bytes::{BufMut, BytesMut};

use crate::{
    codec::{DecodeError, Reader, put_medium},
    limits::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX},
};

/// Begins the meta group's log. Applied again it changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitCluster {
    /// Random, and made outside of the engine.
    pub cluster_id: [u8; 16],
    /// A power of two, fixed for good.
    pub shards: u32,
    /// The generation of the meta group's positions, 0 to 127.
    pub generation: u8,
}

/// Adds a node or changes what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetNode {
    /// Chosen by the operator.
    pub node_id: u64,
    /// Where its gRPC service is reached, host:port.
    pub address: String,
    /// Which disk it runs on; a node that comes back with another one has lost its votes.
    pub disk_id: [u8; 16],
}

/// Which kind of process registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayKind {
    /// Holds connections of devices.
    Gateway,
    /// Routes messages.
    Chat,
}

impl GatewayKind {
    pub(crate) fn to_u8(self) -> u8 {
        match self {
            Self::Gateway => 0,
            Self::Chat => 1,
        }
    }

    pub(crate) fn from_u8(tag: u8, at: usize) -> Result<Self, DecodeError> {
        match tag {
            0 => Ok(Self::Gateway),
            1 => Ok(Self::Chat),
            tag => Err(DecodeError::Tag { what: "process kind", tag, at }),
        }
    }
}

/// A process starts a new incarnation; the one before has ended with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterGateway {
    /// Chosen by the operator; unique per kind; keeps its id.
    pub name: String,
    /// Where the process's own gRPC service is reached, host:port.
    pub address: String,
    /// Gateway or chat.
    pub kind: GatewayKind,
}

/// An incarnation has ended, by its lease or by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndIncarnation {
    /// Which process.
    pub gateway_id: u32,
    /// Which of its lives.
    pub incarnation: u64,
}

/// Raises the format that the cluster is written in. Proposed only when every node can read it, which
/// whoever proposes it has asked them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaiseFormat {
    /// The format from now on. It never goes down.
    pub to: u32,
}

impl InitCluster {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&self.cluster_id);
        out.put_u32_le(self.shards);
        out.put_u8(self.generation);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { cluster_id: reader.array()?, shards: reader.u32()?, generation: reader.u8()? })
    }
}

impl SetNode {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.node_id);
        put_medium(out, self.address.as_bytes());
        out.put_slice(&self.disk_id);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            node_id: reader.u64()?,
            address: reader.text("address", ADDRESS_BYTES_MAX)?,
            disk_id: reader.array()?,
        })
    }
}

impl RegisterGateway {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.kind.to_u8());
        put_medium(out, self.name.as_bytes());
        put_medium(out, self.address.as_bytes());
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let at = reader.at();
        Ok(Self {
            kind: GatewayKind::from_u8(reader.u8()?, at)?,
            name: reader.text("name", NAME_BYTES_MAX)?,
            address: reader.text("address", ADDRESS_BYTES_MAX)?,
        })
    }
}

impl EndIncarnation {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.gateway_id);
        out.put_u64_le(self.incarnation);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { gateway_id: reader.u32()?, incarnation: reader.u64()? })
    }
}

impl RaiseFormat {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.to);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { to: reader.u32()? })
    }
}
