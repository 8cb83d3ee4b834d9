//! Names of devices, and the sessions that they have.

use std::fmt;

use bytes::Bytes;

use crate::limits::USER_BYTES_MAX;

/// The device that every user has without ever registering it.
pub const PRIMARY_DEVICE: u16 = 1;

/// In an enqueue only: all devices of the user.
pub const ALL_DEVICES: u16 = 0;

/// Names one device of one user.
///
/// ```
/// use switchboard_engine::DeviceId;
/// let device = DeviceId::new("alice", 1);
/// assert!(device.is_valid());
/// assert!(!DeviceId::new("", 1).is_valid());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    /// Opaque; 1 to 64 bytes.
    pub user: Bytes,
    /// 1 to 65,535; 1 is the primary device.
    pub device: u16,
}

impl DeviceId {
    /// Names device number `device` of `user`.
    pub fn new(user: impl Into<Bytes>, device: u16) -> Self {
        Self { user: user.into(), device }
    }

    /// Whether user and device number are within their limits.
    pub fn is_valid(&self) -> bool {
        is_valid_user(&self.user) && self.device != ALL_DEVICES
    }
}

/// Whether `user` has 1 to 64 bytes.
pub fn is_valid_user(user: &[u8]) -> bool {
    !user.is_empty() && user.len() <= USER_BYTES_MAX
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.user.escape_ascii(), self.device)
    }
}

/// A live connection of a device, as the session directory records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose connection it is.
    pub device: DeviceId,
    /// The gateway that holds it.
    pub gateway_id: u32,
    /// Which life of that gateway.
    pub incarnation: u64,
    /// Chosen by the gateway; unique within one incarnation.
    pub connection_id: u64,
    /// The fencing token: the position of the claim.
    pub epoch: u64,
    /// Log time of the claim, Unix milliseconds.
    pub connected_at_ms: u64,
}
