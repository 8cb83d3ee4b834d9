//! What is kept of one user: its devices, each with a session or not, and a mailbox.
//!
//! The primary device is there for every user without a record; one is kept only while it holds
//! something. Further devices have a record from their first claim until they are removed.

use bytes::Bytes;
use smallvec::SmallVec;

use super::mailbox::{Load, Mailbox};
use crate::{DeviceId, PRIMARY_DEVICE, Session};

/// The live connection of a device, without the device's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRecord {
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

impl SessionRecord {
    /// The same, with whose session it is.
    #[must_use]
    pub fn of(&self, user: &Bytes, device: u16) -> Session {
        Session {
            device: DeviceId { user: user.clone(), device },
            gateway_id: self.gateway_id,
            incarnation: self.incarnation,
            connection_id: self.connection_id,
            epoch: self.epoch,
            connected_at_ms: self.connected_at_ms,
        }
    }
}

/// One device with a record.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) number: u16,
    pub(crate) session: Option<SessionRecord>,
    pub(crate) push_token: Option<Box<[u8]>>,
    /// Log time of the last claim, or of the end of the last session.
    pub(crate) last_seen_ms: u64,
    pub(crate) mailbox: Mailbox,
}

impl Device {
    pub(crate) fn new(number: u16) -> Self {
        Self {
            number,
            session: None,
            push_token: None,
            last_seen_ms: 0,
            mailbox: Mailbox::default(),
        }
    }

    /// Whether a record of this device says nothing that its absence would not.
    fn is_vacant(&self) -> bool {
        self.number == PRIMARY_DEVICE
            && self.session.is_none()
            && self.push_token.is_none()
            && self.mailbox.is_empty()
    }

    pub(crate) fn end_session(&mut self, now_ms: u64) -> Option<SessionRecord> {
        let ended = self.session.take()?;
        self.last_seen_ms = now_ms;
        Some(ended)
    }
}

/// What a user adds to the counts of its bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) users: u64,
    pub(crate) sessions: u64,
    pub(crate) waiting: Load,
}

impl Totals {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            users: self.users + other.users,
            sessions: self.sessions + other.sessions,
            waiting: self.waiting.plus(other.waiting),
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            users: self.users.saturating_sub(other.users),
            sessions: self.sessions.saturating_sub(other.sessions),
            waiting: self.waiting.minus(other.waiting),
        }
    }
}

/// A user's devices with a record, ascending by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct User {
    devices: SmallVec<[Device; 1]>,
}

impl User {
    pub(crate) fn from_devices(devices: SmallVec<[Device; 1]>) -> Option<Self> {
        let ascending = devices.windows(2).all(|pair| match pair {
            [a, b] => a.number < b.number,
            _ => true,
        });
        let named = devices.iter().all(|d| d.number != 0);
        (ascending && named && !devices.is_empty()).then_some(Self { devices })
    }

    /// One whose primary device is connected, and of whom nothing else is known.
    pub(super) fn of_session(session: SessionRecord) -> Self {
        let mut device = Device::new(PRIMARY_DEVICE);
        device.last_seen_ms = session.connected_at_ms;
        device.session = Some(session);
        Self::of_device(device)
    }

    pub(super) fn of_device(device: Device) -> Self {
        Self { devices: SmallVec::from_buf([device]) }
    }

    /// Its only device.
    pub(super) fn into_only(mut self) -> Option<Device> {
        self.devices.pop().filter(|_| self.devices.is_empty())
    }

    pub(crate) fn devices(&self) -> &[Device] {
        &self.devices
    }

    pub(crate) fn devices_mut(&mut self) -> &mut [Device] {
        &mut self.devices
    }

    pub(crate) fn device(&self, number: u16) -> Option<&Device> {
        self.devices.iter().find(|d| d.number == number)
    }

    pub(crate) fn device_mut(&mut self, number: u16) -> Option<&mut Device> {
        self.devices.iter_mut().find(|d| d.number == number)
    }

    /// The record of a device, made if there is none.
    pub(crate) fn ensure(&mut self, number: u16) -> &mut Device {
        let at = self.devices.partition_point(|d| d.number < number);
        if self.devices.get(at).is_none_or(|d| d.number != number) {
            self.devices.insert(at, Device::new(number));
        }
        &mut self.devices[at]
    }

    /// Whether the device takes messages: the primary, and every registered one.
    pub(crate) fn has_device(&self, number: u16) -> bool {
        number == PRIMARY_DEVICE || self.device(number).is_some()
    }

    /// Devices that count against the limit: the primary always does.
    pub(crate) fn devices_counted(&self) -> usize {
        1 + self.devices.iter().filter(|d| d.number != PRIMARY_DEVICE).count()
    }

    /// The registered device that has been without a session for the longest, if since before
    /// `before_ms`; of several the lowest number.
    pub(crate) fn idle_device(&self, before_ms: u64) -> Option<u16> {
        let idle = |d: &&Device| {
            d.number != PRIMARY_DEVICE && d.session.is_none() && d.last_seen_ms <= before_ms
        };
        self.devices.iter().filter(idle).min_by_key(|d| d.last_seen_ms).map(|d| d.number)
    }

    pub(crate) fn remove(&mut self, number: u16) -> Option<Device> {
        let at = self.devices.iter().position(|d| d.number == number)?;
        Some(self.devices.remove(at))
    }

    /// Drops records that say nothing; true when none is left.
    pub(crate) fn prune(&mut self) -> bool {
        self.devices.retain(|d| !d.is_vacant());
        self.devices.is_empty()
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals { users: u64::from(!self.devices.is_empty()), ..Totals::default() };
        for device in &self.devices {
            totals.sessions += u64::from(device.session.is_some());
            totals.waiting = totals.waiting.plus(device.mailbox.load());
        }
        totals
    }

    pub(crate) fn next_expiry_ms(&self) -> u64 {
        self.devices.iter().map(|d| d.mailbox.next_expiry_ms()).min().unwrap_or(u64::MAX)
    }
}
