//! Commands about a shard as a whole: its beginning and its limits.

use bytes::{BufMut, BytesMut};

use crate::{
    codec::{DecodeError, Reader},
    limits,
};

/// The limits of a shard that all its replicas must apply alike. They travel in the log, never in the
/// configuration of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Messages of content a mailbox holds. Receipts have a tenth of it for themselves.
    pub mailbox_messages_max: u32,
    /// Bytes of bodies a mailbox holds. Receipts have a tenth of it for themselves.
    pub mailbox_bytes_max: u64,
    /// Devices of a user, the primary included.
    pub devices_max: u16,
    /// A device without a session for so long gives way to a new one, milliseconds.
    pub device_idle_ms: u64,
    /// The longest time to live, and the default, milliseconds.
    pub ttl_ms_max: u64,
    /// How long a message id is remembered, milliseconds of log time.
    pub dedup_horizon_ms: u64,
    /// How many message ids are remembered.
    pub dedup_ids_max: u32,
    /// Whether a message of content that finds its mailbox full takes the place of the oldest ones there,
    /// instead of being refused. The one case in which messages that were acknowledged as safe are lost
    /// without anybody naming them, so it is off unless an operator switches it on.
    pub drop_oldest: bool,
}

/// In the devices of encoded [`Rules`], which need far fewer bits: whether the oldest are dropped. So rules
/// that do not drop are encoded as they were before there was a choice.
const DROP_OLDEST: u16 = 1 << 15;
const _: () = assert!(limits::DEVICES_MAX < DROP_OLDEST);

impl Default for Rules {
    fn default() -> Self {
        Self {
            mailbox_messages_max: limits::MAILBOX_MESSAGES_MAX,
            mailbox_bytes_max: limits::MAILBOX_BYTES_MAX,
            devices_max: limits::DEVICES_MAX,
            device_idle_ms: limits::DEVICE_IDLE_MS,
            ttl_ms_max: limits::TTL_MS_MAX,
            dedup_horizon_ms: limits::DEDUP_HORIZON_MS,
            dedup_ids_max: limits::DEDUP_IDS_MAX,
            drop_oldest: false,
        }
    }
}

impl Rules {
    /// Whether each limit is one that the engine can keep.
    pub fn is_valid(&self) -> bool {
        self.mailbox_messages_max >= limits::MAILBOX_RECEIPTS_DIVISOR
            && self.mailbox_bytes_max >= u64::from(limits::MAILBOX_RECEIPTS_DIVISOR)
            && (1..=limits::DEVICES_MAX).contains(&self.devices_max)
            && (1..=limits::TTL_MS_MAX).contains(&self.ttl_ms_max)
            && self.device_idle_ms >= self.ttl_ms_max
            && self.dedup_horizon_ms >= 1
            && self.dedup_ids_max >= limits::DEDUP_SLICES
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.mailbox_messages_max);
        out.put_u64_le(self.mailbox_bytes_max);
        let flag = if self.drop_oldest { DROP_OLDEST } else { 0 };
        out.put_u16_le(self.devices_max & !DROP_OLDEST | flag);
        out.put_u64_le(self.device_idle_ms);
        out.put_u64_le(self.ttl_ms_max);
        out.put_u64_le(self.dedup_horizon_ms);
        out.put_u32_le(self.dedup_ids_max);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let (mailbox_messages_max, mailbox_bytes_max) = (reader.u32()?, reader.u64()?);
        let devices = reader.u16()?;
        Ok(Self {
            mailbox_messages_max,
            mailbox_bytes_max,
            devices_max: devices & !DROP_OLDEST,
            drop_oldest: devices & DROP_OLDEST != 0,
            device_idle_ms: reader.u64()?,
            ttl_ms_max: reader.u64()?,
            dedup_horizon_ms: reader.u64()?,
            dedup_ids_max: reader.u32()?,
        })
    }
}

/// Begins a shard's log. Applied again with the same or a lower generation it changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    /// The generation of all positions from here on, 0 to 127.
    pub generation: u8,
    /// Keys the hash of message ids. Random, and made outside of the engine.
    pub dedup_key: [u8; 16],
    /// The limits to start with.
    pub rules: Rules,
}

impl Init {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.generation);
        out.put_slice(&self.dedup_key);
        self.rules.encode(out);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            generation: reader.u8()?,
            dedup_key: reader.array()?,
            rules: Rules::decode(reader)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(rules: &Rules) -> BytesMut {
        let mut out = BytesMut::new();
        rules.encode(&mut out);
        out
    }

    #[test]
    fn whether_the_oldest_are_dropped_is_one_bit_that_is_clear_by_default() {
        let rules = Rules::default();
        let drop = Rules { drop_oldest: true, ..rules };
        let (without, with) = (encoded(&rules), encoded(&drop));
        let differ: Vec<usize> =
            (0..without.len()).filter(|at| without[*at] != with[*at]).collect();
        assert_eq!((differ.as_slice(), without[13] ^ with[13]), ([13].as_slice(), 0x80));
        for rules in [rules, drop] {
            let mut reader = Reader::new(encoded(&rules).freeze());
            assert_eq!(Rules::decode(&mut reader), Ok(rules));
            assert!(rules.is_valid());
        }
    }
}
