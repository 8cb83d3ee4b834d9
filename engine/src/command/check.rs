//! Which commands can be written down at all, and how long they become.
//!
//! These are the bounds that hold whatever the state is. They are checked before a command enters an
//! entry, because what is in the log must be readable by every replica, for ever.

use bytes::Bytes;

use super::{Command, Enqueue, RegisterGateway, ReplicaMove};
use crate::{
    codec::varint_len,
    device::{DeviceId, is_valid_user},
    limits::{
        ACK_SEQS_MAX, ADDRESS_BYTES_MAX, BODY_BYTES_MAX, MESSAGE_ID_BYTES, NAME_BYTES_MAX,
        NODES_MAX, PUSH_TOKEN_BYTES_MAX, REASON_BYTES_MAX, SHARDS_MAX, STALLED_BYTES_MAX,
        ZONE_BYTES_MAX,
    },
    reply::Status,
};

impl Command {
    /// Whether the command is within the limits that no state can lift; else `Invalid` or `TooLarge`.
    pub fn check(&self) -> Result<(), Status> {
        match self {
            Self::Claim(c) => {
                device(&c.device)?;
                within(&c.push_token, PUSH_TOKEN_BYTES_MAX)
            }
            Self::Release(c) => device(&c.device),
            Self::Unregister(c) => device(&c.device),
            Self::Enqueue(c) => enqueue(c),
            Self::Ack(c) => {
                device(&c.device)?;
                if c.seqs.len() > ACK_SEQS_MAX { Err(Status::Invalid) } else { Ok(()) }
            }
            Self::Purge(c) => {
                device(&c.device)?;
                within(&c.reason, REASON_BYTES_MAX)
            }
            Self::SetNode(c) => text(&c.address, ADDRESS_BYTES_MAX),
            Self::RegisterGateway(RegisterGateway { name, address, .. }) => {
                text(name, NAME_BYTES_MAX)?;
                text(address, ADDRESS_BYTES_MAX)
            }
            Self::SetNodeState(c) => at_most(c.zone.len(), ZONE_BYTES_MAX),
            Self::SetPlacement(c) => at_most(c.replicas.len(), NODES_MAX),
            Self::BeginMoves(c) => at_most(c.moves.len(), SHARDS_MAX as usize),
            Self::NoteMove(c) => at_most(c.stalled.len(), STALLED_BYTES_MAX),
            Self::Init(_)
            | Self::SetRules(_)
            | Self::Sweep(_)
            | Self::Tick
            | Self::InitCluster(_)
            | Self::EndMove(_)
            | Self::ReadmitNode(_)
            | Self::EndIncarnation(_)
            | Self::RaiseFormat(_) => Ok(()),
        }
    }

    /// Bytes that the command takes in an entry.
    pub fn encoded_len(&self) -> usize {
        const TAG: usize = 1;
        const RULES: usize = 4 + 8 + 2 + 8 + 8 + 8 + 4;
        let number_len = |number: u16| varint_len(u64::from(number));
        let device_len = |id: &DeviceId| number_len(id.device) + 1 + id.user.len();
        TAG + match self {
            Self::Init(_) => 1 + 16 + RULES,
            Self::SetRules(_) => RULES,
            Self::Claim(c) => device_len(&c.device) + 4 + 8 + 8 + 2 + c.push_token.len(),
            Self::Release(c) => device_len(&c.device) + 8,
            Self::Unregister(c) => device_len(&c.device),
            Self::Sweep(_) => 4 + 8 + 4 + 4,
            Self::Enqueue(c) => {
                let record = 1 + MESSAGE_ID_BYTES + device_len(&c.from) + c.body.len();
                let lens = varint_len(c.ttl_ms) + varint_len(record as u64);
                number_len(c.to_device) + 1 + c.to_user.len() + lens + record
            }
            Self::Ack(c) => {
                let seqs = c.seqs.iter().map(|seq| varint_len(*seq)).sum::<usize>();
                let floor = varint_len(c.epoch) + varint_len(c.up_to_seq);
                device_len(&c.device) + floor + varint_len(c.seqs.len() as u64) + seqs
            }
            Self::Purge(c) => device_len(&c.device) + 2 + c.reason.len(),
            Self::Tick => 0,
            Self::InitCluster(_) => 16 + 4 + 1,
            Self::SetNode(c) => 8 + 2 + c.address.len() + 16,
            Self::RegisterGateway(c) => 1 + 2 + c.name.len() + 2 + c.address.len(),
            Self::EndIncarnation(_) => 4 + 8,
            Self::RaiseFormat(_) => 4,
            Self::SetNodeState(c) => 8 + 1 + 2 + c.zone.len(),
            Self::SetPlacement(c) => 4 + 4 + 8 * c.replicas.len(),
            Self::BeginMoves(c) => 8 + 4 + ReplicaMove::BYTES * c.moves.len(),
            Self::NoteMove(c) => 4 + 8 + 1 + 2 + c.stalled.len(),
            Self::EndMove(_) => 4 + 8 + 1,
            Self::ReadmitNode(_) => 8 + 16 + 1,
        }
    }
}

fn device(id: &DeviceId) -> Result<(), Status> {
    if id.is_valid() { Ok(()) } else { Err(Status::Invalid) }
}

fn within(bytes: &Bytes, max: usize) -> Result<(), Status> {
    if bytes.len() <= max { Ok(()) } else { Err(Status::Invalid) }
}

fn at_most(count: usize, max: usize) -> Result<(), Status> {
    if count <= max { Ok(()) } else { Err(Status::Invalid) }
}

fn text(text: &str, max: usize) -> Result<(), Status> {
    if !text.is_empty() && text.len() <= max { Ok(()) } else { Err(Status::Invalid) }
}

fn enqueue(c: &Enqueue) -> Result<(), Status> {
    device(&c.from)?;
    if !is_valid_user(&c.to_user) {
        return Err(Status::Invalid);
    }
    if c.body.len() > BODY_BYTES_MAX { Err(Status::TooLarge) } else { Ok(()) }
}
