//! How a device is started.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    address::GatewayAddress,
    limits::{BACKOFF_MAX, BACKOFF_MIN, CONNECT_TIMEOUT, EVENTS_MAX, SEEN_MAX},
    trust::Trust,
};

/// Who the device is, where it connects, and how.
///
/// ```
/// use switchboard_device::DeviceOptions;
/// let gateways = vec!["127.0.0.1:7410".parse().unwrap()];
/// let options = DeviceOptions { window: 16, ..DeviceOptions::new("alice", 1, gateways) };
/// assert!(options.start_online);
/// ```
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// Tried in turn, from a random one on; at least one.
    pub gateways: Vec<GatewayAddress>,
    /// 1 to 64 bytes.
    pub user: Bytes,
    /// 1 to 65535.
    pub device: u16,
    /// Who may vouch for gateways over TLS and QUIC; `None`: whom the system trusts.
    pub trust: Option<Trust>,
    /// What the gateway checks; empty where it accepts any.
    pub token: String,
    /// Kept with the device for the push notifier; empty: none.
    pub push_token: String,
    /// Deliveries that wait for an acknowledgement at any time; 0: the gateway's default.
    pub window: u32,
    /// Whether to connect at once.
    pub start_online: bool,
    /// The application acknowledges each message by [`crate::Device::acknowledge`] when it has
    /// stored it. Otherwise a message is acknowledged once its event is in the channel.
    pub manual_ack: bool,
    /// From which address of the machine to connect; `None`: from whichever the system picks.
    pub local_address: Option<IpAddr>,
    /// First and longest pause between attempts to connect.
    pub backoff: (Duration, Duration),
    /// For connecting, and again for the gateway's welcome.
    pub connect_timeout: Duration,
    /// Events on their way to the application; beyond it the socket is not read.
    pub events_max: usize,
    /// Ids remembered to drop repeats.
    pub seen_max: usize,
}

impl DeviceOptions {
    /// With defaults for all the rest.
    pub fn new(user: impl Into<Bytes>, device: u16, gateways: Vec<GatewayAddress>) -> Self {
        Self {
            gateways,
            user: user.into(),
            device,
            trust: None,
            token: String::new(),
            push_token: String::new(),
            window: 0,
            start_online: true,
            manual_ack: false,
            local_address: None,
            backoff: (BACKOFF_MIN, BACKOFF_MAX),
            connect_timeout: CONNECT_TIMEOUT,
            events_max: EVENTS_MAX,
            seen_max: SEEN_MAX,
        }
    }
}

/// A fresh message id: a UUIDv7, so that ids sort by the time they were made.
#[must_use]
pub fn new_message_id() -> [u8; 16] {
    *Uuid::now_v7().as_bytes()
}
