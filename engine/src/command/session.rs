//! Commands about sessions and the devices that have them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    codec::{DecodeError, Reader, put_medium, put_short, put_varint},
    device::DeviceId,
    limits::{PUSH_TOKEN_BYTES_MAX, USER_BYTES_MAX},
};

/// The device is now connected to this gateway. The newest claim wins; its position is the epoch.
/// The first claim of a further device registers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who is here.
    pub device: DeviceId,
    /// The gateway that holds the connection.
    pub gateway_id: u32,
    /// Which life of that gateway.
    pub incarnation: u64,
    /// Which of its connections.
    pub connection_id: u64,
    /// Kept with the device; empty: leave it as it is.
    pub push_token: Bytes,
}

/// Ends the session with this epoch; another one stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Whose session.
    pub device: DeviceId,
    /// The epoch of the claim; 0: whatever session there is.
    pub epoch: u64,
}

/// Removes a device with its session and its mailbox; the primary device is emptied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unregister {
    /// The device to remove.
    pub device: DeviceId,
}

/// Removes sessions of ended incarnations of one gateway, bucket by bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Whose sessions.
    pub gateway_id: u32,
    /// Sessions of this and of older incarnations go.
    pub up_to_incarnation: u64,
    /// Where to start: 0, then what the last answer named.
    pub cursor: u32,
    /// Stop after the bucket in which so many are reached.
    pub sessions_max: u32,
}

pub(super) fn put_device(out: &mut BytesMut, device: &DeviceId) {
    put_varint(out, u64::from(device.device));
    put_short(out, &device.user);
}

pub(super) fn get_user(reader: &mut Reader) -> Result<Bytes, DecodeError> {
    let user = reader.short()?;
    if user.len() > USER_BYTES_MAX {
        return Err(DecodeError::Range { what: "user", at: reader.at() });
    }
    Ok(user)
}

pub(super) fn get_device(reader: &mut Reader) -> Result<DeviceId, DecodeError> {
    let device = reader.varint16("device")?;
    Ok(DeviceId { user: get_user(reader)?, device })
}

impl Claim {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_device(out, &self.device);
        out.put_u32_le(self.gateway_id);
        out.put_u64_le(self.incarnation);
        out.put_u64_le(self.connection_id);
        put_medium(out, &self.push_token);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            device: get_device(reader)?,
            gateway_id: reader.u32()?,
            incarnation: reader.u64()?,
            connection_id: reader.u64()?,
            push_token: reader.medium("push token", PUSH_TOKEN_BYTES_MAX)?,
        })
    }
}

impl Release {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_device(out, &self.device);
        out.put_u64_le(self.epoch);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { device: get_device(reader)?, epoch: reader.u64()? })
    }
}

impl Unregister {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_device(out, &self.device);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { device: get_device(reader)? })
    }
}

impl Sweep {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.gateway_id);
        out.put_u64_le(self.up_to_incarnation);
        out.put_u32_le(self.cursor);
        out.put_u32_le(self.sessions_max);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            gateway_id: reader.u32()?,
            up_to_incarnation: reader.u64()?,
            cursor: reader.u32()?,
            sessions_max: reader.u32()?,
        })
    }
}
