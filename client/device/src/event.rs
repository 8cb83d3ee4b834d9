//! What a device tells its application.

use bytes::Bytes;
use switchboard_api::device::v1::{error::Code, receipt};

/// The message is *sent*: durable on a quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// When it was stored, Unix milliseconds.
    pub at_ms: u64,
    /// An earlier copy had been stored already.
    pub duplicate: bool,
}

/// A message for this device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// With the sender, what names the message.
    pub message_id: [u8; 16],
    /// Who sent it.
    pub from_user: Bytes,
    /// From which device.
    pub from_device: u16,
    /// Its place in this device's mailbox; what [`crate::Device::acknowledge`] takes.
    pub seq: u64,
    /// Unix milliseconds.
    pub enqueued_at_ms: u64,
    /// Unix milliseconds.
    pub expires_at_ms: u64,
    /// Opaque to the servers.
    pub body: Bytes,
}

/// What happened, in the order in which it did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A gateway has taken this device in.
    Online {
        /// The fencing token of the claim, higher with each.
        epoch: u64,
        /// Messages that waited.
        backlog: u64,
        /// The gateway's clock, Unix milliseconds.
        server_time_ms: u64,
    },
    /// The connection is gone, or none could be made.
    Offline {
        /// For people to read.
        reason: String,
        /// What the gateway said, if it did.
        code: Option<Code>,
        /// The device connected elsewhere: no reconnect until asked for.
        replaced: bool,
        /// Trying again cannot help: no reconnect until asked for.
        fatal: bool,
    },
    /// The message is *sent*. Also what the future of its send answers.
    Accepted {
        /// Which.
        message_id: [u8; 16],
        /// Unix milliseconds.
        at_ms: u64,
        /// An earlier copy had been stored already.
        duplicate: bool,
    },
    /// The message was refused for good and has left the outbox.
    Refused {
        /// Which.
        message_id: [u8; 16],
        /// Why.
        code: Code,
        /// For people to read.
        message: String,
    },
    /// A message, each at most once.
    Message(Incoming),
    /// A message of this device was delivered or read.
    Receipt {
        /// Which.
        message_id: [u8; 16],
        /// How far it came; the highest counts.
        state: receipt::State,
        /// By whom.
        by_user: Bytes,
        /// By which device.
        by_device: u16,
        /// When, Unix milliseconds.
        at_ms: u64,
    },
    /// Read receipts are durable.
    ReadAccepted {
        /// For which messages.
        ids: Vec<[u8; 16]>,
    },
    /// All that waited when the device connected has come.
    Drained,
}

/// Counts since the device was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceStats {
    /// How often a gateway took this device in.
    pub connects: u64,
    /// `Deliver` frames dropped because their message had been seen.
    pub repeats_dropped: u64,
    /// `Receipt` frames dropped for the same reason.
    pub receipt_repeats: u64,
    /// `Accepted` frames with `duplicate`.
    pub duplicates_answered: u64,
    /// Sends written more than once.
    pub resends: u64,
    /// Messages not yet accepted.
    pub outbox: usize,
    /// Read receipts not yet accepted.
    pub reads_pending: usize,
}
