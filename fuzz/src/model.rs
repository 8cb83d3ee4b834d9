//! What a shard should answer, by ordinary maps and with nothing kept for speed.

use std::collections::BTreeMap;

use bytes::Bytes;
use switchboard_engine::{DeviceId, Enqueue, MessageKind, PRIMARY_DEVICE, Rules, Status, Stored};

/// A message that waits, with all that a fetch says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) seq: u64,
    pub(crate) prev_seq: u64,
    pub(crate) message_id: [u8; 16],
    pub(crate) body: Bytes,
    pub(crate) is_receipt: bool,
    pub(crate) enqueued_at_ms: u64,
    pub(crate) expires_at_ms: u64,
}

/// The session of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connected {
    pub(crate) epoch: u64,
    pub(crate) connection_id: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Device {
    pub(crate) session: Option<Connected>,
    pub(crate) last_seen_ms: u64,
    pub(crate) mailbox: Vec<Waiting>,
}

impl Device {
    pub(crate) fn tail(&self) -> u64 {
        self.mailbox.last().map_or(0, |waiting| waiting.seq)
    }

    fn has_room(&self, command: &Enqueue, rules: &Rules) -> bool {
        let is_receipt = command.kind == MessageKind::Receipt;
        let alike = self.mailbox.iter().filter(|waiting| waiting.is_receipt == is_receipt);
        let bytes: u64 = alike.clone().map(|waiting| waiting.body.len() as u64).sum();
        let share = if is_receipt { 10 } else { 1 };
        (alike.count() as u64) < u64::from(rules.mailbox_messages_max / share)
            && bytes + command.body.len() as u64 <= rules.mailbox_bytes_max / u64::from(share)
    }

    /// Drops the oldest messages of content until this one fits, if it can.
    fn make_room(&mut self, command: &Enqueue, rules: &Rules) {
        let fits = command.body.len() as u64 <= rules.mailbox_bytes_max;
        while rules.drop_oldest && command.kind == MessageKind::Content && fits {
            let oldest = self.mailbox.iter().position(|waiting| !waiting.is_receipt);
            match oldest.filter(|_| !self.has_room(command, rules)) {
                Some(oldest) => drop(self.mailbox.remove(oldest)),
                None => return,
            }
        }
    }

    fn end(&mut self, now_ms: u64) -> Option<Connected> {
        let ended = self.session.take()?;
        self.last_seen_ms = now_ms;
        Some(ended)
    }
}

/// What an enqueue should be answered.
#[derive(Debug)]
pub(crate) enum Expected {
    New(Status, Vec<Stored>),
    Duplicate(Vec<Stored>),
}

/// A shard.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) rules: Rules,
    pub(crate) generation: u8,
    pub(crate) now_ms: u64,
    /// Registered devices; the primary is here once it was touched, and exists without.
    devices: BTreeMap<DeviceId, Device>,
    /// Message ids: seq, and when it was stored.
    ids: BTreeMap<[u8; 16], (u64, u64)>,
}

impl Model {
    pub(crate) fn new(rules: Rules, now_ms: u64) -> Self {
        Self { rules, generation: 0, now_ms, devices: BTreeMap::new(), ids: BTreeMap::new() }
    }

    /// Log time passes, and takes what has expired.
    pub(crate) fn at(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        for device in self.devices.values_mut() {
            device.mailbox.retain(|waiting| waiting.expires_at_ms > now_ms);
        }
    }

    /// The numbers of a user's devices, ascending.
    pub(crate) fn numbers(&self, user: &Bytes) -> Vec<u16> {
        let registered = self.devices.keys().filter(|id| id.user == *user).map(|id| id.device);
        let mut numbers: Vec<u16> = registered.chain([PRIMARY_DEVICE]).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    pub(crate) fn device(&self, id: &DeviceId) -> Device {
        self.devices.get(id).cloned().unwrap_or_default()
    }

    pub(crate) fn sessions(&self) -> usize {
        self.devices.values().filter(|device| device.session.is_some()).count()
    }

    pub(crate) fn messages(&self) -> usize {
        self.devices.values().map(|device| device.mailbox.len()).sum()
    }

    /// An id is remembered for the horizon, and forgotten an eighth of it later; in between it may be
    /// either, and then what the shard has answered (`was_duplicate`) holds.
    pub(crate) fn enqueue(&mut self, c: &Enqueue, seq: u64, was_duplicate: bool) -> Expected {
        if let Some((original, at_ms)) = self.ids.get(&c.message_id).copied() {
            let (age_ms, horizon_ms) = (self.now_ms - at_ms, self.rules.dedup_horizon_ms);
            let is_open = age_ms >= horizon_ms && age_ms < horizon_ms + horizon_ms / 8 + 1;
            if age_ms < horizon_ms || (is_open && was_duplicate) {
                return Expected::Duplicate(self.still_waiting(c, original));
            }
        }
        let numbers = match c.to_device {
            0 => self.numbers(&c.to_user),
            number if self.numbers(&c.to_user).contains(&number) => vec![number],
            _ => return Expected::New(Status::Invalid, Vec::new()),
        };
        let stored: Vec<Stored> = numbers.iter().map(|n| self.store(c, *n, seq)).collect();
        if stored.iter().all(|stored| stored.status == Status::MailboxFull) {
            return Expected::New(Status::MailboxFull, stored);
        }
        self.ids.insert(c.message_id, (seq, self.now_ms));
        Expected::New(Status::Ok, stored)
    }

    fn still_waiting(&self, c: &Enqueue, seq: u64) -> Vec<Stored> {
        let numbers = self.numbers(&c.to_user);
        let asked = numbers.iter().filter(|n| c.to_device == 0 || c.to_device == **n);
        let waits = |number: &&u16| {
            let id = DeviceId { user: c.to_user.clone(), device: **number };
            self.device(&id).mailbox.iter().any(|waiting| waiting.seq == seq)
        };
        let status = Status::Duplicate;
        asked.filter(waits).map(|n| Stored { device: *n, seq, prev_seq: 0, status }).collect()
    }

    fn store(&mut self, c: &Enqueue, number: u16, seq: u64) -> Stored {
        let id = DeviceId { user: c.to_user.clone(), device: number };
        let ttl_ms = if c.ttl_ms == 0 { u64::MAX } else { c.ttl_ms }.min(self.rules.ttl_ms_max);
        let (rules, now_ms) = (self.rules, self.now_ms);
        let device = self.devices.entry(id).or_default();
        let prev_seq = device.tail();
        device.make_room(c, &rules);
        if !device.has_room(c, &rules) {
            return Stored { device: number, seq: 0, prev_seq: 0, status: Status::MailboxFull };
        }
        device.mailbox.push(Waiting {
            seq,
            prev_seq,
            message_id: c.message_id,
            body: c.body.clone(),
            is_receipt: c.kind == MessageKind::Receipt,
            enqueued_at_ms: now_ms,
            expires_at_ms: now_ms + ttl_ms,
        });
        Stored { device: number, seq, prev_seq, status: Status::Ok }
    }

    /// The session that ended, and the device that gave way; `None`: there is no place.
    pub(crate) fn claim(
        &mut self,
        id: &DeviceId,
        epoch: u64,
        connection_id: u64,
    ) -> Option<(Option<Connected>, u16)> {
        let numbers = self.numbers(&id.user);
        let mut evicted = 0;
        if !numbers.contains(&id.device) && numbers.len() >= usize::from(self.rules.devices_max) {
            evicted = self.idle(&id.user)?;
            self.devices.remove(&DeviceId { user: id.user.clone(), device: evicted });
        }
        let device = self.devices.entry(id.clone()).or_default();
        device.last_seen_ms = self.now_ms;
        Some((device.session.replace(Connected { epoch, connection_id }), evicted))
    }

    fn idle(&self, user: &Bytes) -> Option<u16> {
        let before_ms = self.now_ms.checked_sub(self.rules.device_idle_ms)?;
        let is_idle = |(id, device): &(&DeviceId, &Device)| {
            id.user == *user
                && id.device != PRIMARY_DEVICE
                && device.session.is_none()
                && device.last_seen_ms <= before_ms
        };
        let idle = self.devices.iter().filter(is_idle);
        idle.min_by_key(|(id, device)| (device.last_seen_ms, id.device)).map(|(id, _)| id.device)
    }

    pub(crate) fn release(&mut self, id: &DeviceId, epoch: u64) -> Option<Connected> {
        let device = self.devices.get_mut(id)?;
        device.session.filter(|session| epoch == 0 || session.epoch == epoch)?;
        device.end(self.now_ms)
    }

    /// The session and the number of messages that went.
    pub(crate) fn unregister(&mut self, id: &DeviceId) -> (Option<Connected>, usize) {
        let removed = self.devices.remove(id).unwrap_or_default();
        (removed.session, removed.mailbox.len())
    }

    /// What was removed, and the floor; `None`: fenced.
    pub(crate) fn ack(
        &mut self,
        id: &DeviceId,
        epoch: u64,
        up_to_seq: u64,
        seqs: &[u64],
    ) -> Option<(usize, u64)> {
        let session = self.device(id).session;
        if epoch != 0 && session.is_none_or(|session| session.epoch != epoch) {
            return None;
        }
        let Some(device) = self.devices.get_mut(id) else { return Some((0, 0)) };
        let (before, tail) = (device.mailbox.len(), device.tail());
        device.mailbox.retain(|w| w.seq > up_to_seq && !seqs.contains(&w.seq));
        let floor = device.mailbox.first().map_or(tail, |first| first.seq - 1);
        Some((before - device.mailbox.len(), floor))
    }

    /// What was removed: messages, and bytes of bodies.
    pub(crate) fn purge(&mut self, id: &DeviceId) -> (u64, u64) {
        let Some(device) = self.devices.get_mut(id) else { return (0, 0) };
        let gone = std::mem::take(&mut device.mailbox);
        (gone.len() as u64, gone.iter().map(|waiting| waiting.body.len() as u64).sum())
    }

    /// Ends the sessions of connections up to this number; how many.
    pub(crate) fn sweep(&mut self, up_to: u64) -> u32 {
        let now_ms = self.now_ms;
        let is_ended = |device: &&mut Device| {
            device.session.is_some_and(|session| session.connection_id <= up_to)
        };
        let ended = self.devices.values_mut().filter(is_ended).map(|device| device.end(now_ms));
        u32::try_from(ended.count()).expect("few devices")
    }
}
