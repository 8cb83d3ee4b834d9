//! What a group knows about itself besides its users.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    GroupId, LogId, Position,
    codec::{DecodeError, Reader, put_count},
    command::Rules,
    limits::GENERATION_MAX,
};

/// The small part of a group's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) group: GroupId,
    /// The last entry applied.
    pub(crate) applied: Option<LogId>,
    /// The last membership applied, and where it stood.
    pub(crate) membership: Option<(LogId, Bytes)>,
    /// The stamp of the last entry; never goes back.
    pub(crate) log_time_ms: u64,
    /// Whether `Init` (`InitCluster` for the meta group) has been applied.
    pub(crate) begun: bool,
    pub(crate) generation: u8,
    pub(crate) dedup_key: [u8; 16],
    pub(crate) rules: Rules,
}

impl Header {
    pub(crate) fn new(group: GroupId) -> Self {
        Self {
            group,
            applied: None,
            membership: None,
            log_time_ms: 0,
            begun: false,
            generation: 0,
            dedup_key: [0; 16],
            rules: Rules::default(),
        }
    }
}

impl Header {
    /// No position in the state is above this one: that of the last command that the last entry can
    /// have had.
    pub(crate) fn last_position(&self) -> u64 {
        let last = |at: LogId| Position::new(self.generation, at.index, u16::MAX);
        self.applied.and_then(last).unwrap_or(Position::NONE).get()
    }

    /// Appends everything but the log ids.
    pub(crate) fn encode_content(&self, out: &mut BytesMut) {
        out.put_u32_le(self.group);
        out.put_u64_le(self.log_time_ms);
        out.put_u8(u8::from(self.begun));
        out.put_u8(self.generation);
        out.put_slice(&self.dedup_key);
        self.rules.encode(out);
        put_count(out, self.membership.as_ref().map_or(0, |(_, bytes)| bytes.len()));
        out.put_slice(self.membership.as_ref().map_or(&[], |(_, bytes)| bytes));
    }

    /// Appends the header with its log ids.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        encode_log_id(out, self.applied);
        encode_log_id(out, self.membership.as_ref().map(|(at, _)| *at));
        self.encode_content(out);
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let applied = decode_log_id(reader)?;
        let membership_at = decode_log_id(reader)?;
        let mut header = Self::new(reader.u32()?);
        header.applied = applied;
        header.log_time_ms = reader.u64()?;
        header.begun = reader.bool("beginning of the group")?;
        header.generation = reader.u8()?;
        header.dedup_key = reader.array()?;
        header.rules = Rules::decode(reader)?;
        let len = reader.count(1)?;
        let membership = Bytes::copy_from_slice(&reader.bytes(len)?);
        header.membership = membership_at.map(|at| (at, membership));
        if header.generation > GENERATION_MAX || !header.rules.is_valid() {
            return Err(DecodeError::Range { what: "header", at: reader.at() });
        }
        Ok(header)
    }
}

fn encode_log_id(out: &mut BytesMut, log_id: Option<LogId>) {
    out.put_u8(u8::from(log_id.is_some()));
    let log_id = log_id.unwrap_or_default();
    out.put_u64_le(log_id.term);
    out.put_u64_le(log_id.index);
}

fn decode_log_id(reader: &mut Reader) -> Result<Option<LogId>, DecodeError> {
    let is_some = reader.bool("presence of a log id")?;
    let log_id = LogId::new(reader.u64()?, reader.u64()?);
    Ok(is_some.then_some(log_id))
}
