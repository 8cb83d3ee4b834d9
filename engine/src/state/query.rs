//! Reads: who is where, and what waits. Any thread, while `apply` goes on.
//!
//! A read sees every command whole or not at all. Expired messages are filtered by the log time that
//! has been applied, so a read and a later `apply` agree on what is there.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    MetaState, State,
    map::Answer,
    message::Message,
    user::{SessionRecord, User},
};
use crate::{DeviceId, PRIMARY_DEVICE, Session, command::Rules};

/// Where a user is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// One per connected device, also those of gateways that have ended: the caller filters.
    pub sessions: SmallVec<[Session; 1]>,
    /// All devices that take messages, ascending; the primary is always among them.
    pub devices: SmallVec<[u16; 4]>,
}

impl Located {
    /// What an answer says that needed no lock; `Ask` says nothing.
    pub(crate) fn of(name: &[u8], answer: Answer) -> Self {
        let mut located =
            Self { sessions: SmallVec::new(), devices: SmallVec::from_slice(&[PRIMARY_DEVICE]) };
        if let Answer::Online(session) = answer {
            located.sessions.push(session.of(&Bytes::copy_from_slice(name), PRIMARY_DEVICE));
        }
        located
    }

    fn of_record(name: &[u8], user: Option<&User>) -> Self {
        let mut located = Self { sessions: SmallVec::new(), devices: SmallVec::new() };
        let devices = user.map_or(&[][..], User::devices);
        if devices.first().is_none_or(|d| d.number != PRIMARY_DEVICE) {
            located.devices.push(PRIMARY_DEVICE);
        }
        located.devices.extend(devices.iter().map(|d| d.number));
        if devices.iter().any(|d| d.session.is_some()) {
            let name = Bytes::copy_from_slice(name);
            let session = |d: &super::user::Device| Some(d.session?.of(&name, d.number));
            located.sessions.extend(devices.iter().filter_map(session));
        }
        located
    }
}

/// Where one of several users is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocatedOne {
    /// There is no device but the primary one; its session if it is connected.
    Primary(Option<SessionRecord>),
    /// There are others.
    Several(Located),
}

/// What waits for a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailboxStat {
    /// How many messages wait.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// When the oldest was enqueued, Unix milliseconds; 0 when the mailbox is empty.
    pub oldest_at_ms: u64,
    /// Nothing at or below this seq waits; 0 when the mailbox is empty.
    pub ack_floor: u64,
    /// The highest seq waiting; 0 when the mailbox is empty.
    pub tail: u64,
}

/// Counts of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Users with a record.
    pub users: u64,
    /// Sessions, those of ended incarnations included until they are swept.
    pub sessions: u64,
    /// Messages in the index, expired ones included until they are dropped.
    pub messages: u64,
    /// Bytes of their bodies.
    pub message_bytes: u64,
    /// Message ids remembered.
    pub dedup_ids: u64,
    /// For how long an id is remembered at present, milliseconds.
    pub dedup_horizon_ms: u64,
    /// Stamp of the last entry applied.
    pub log_time_ms: u64,
}

/// Part of a mailbox's index, and what the reader needs to know around it.
#[derive(Debug)]
pub(crate) struct Slice<P> {
    pub(crate) messages: Vec<(Message, P)>,
    pub(crate) more: bool,
    pub(crate) tail: u64,
}

impl State {
    pub(crate) fn rules(&self) -> Rules {
        self.header.read().rules
    }

    pub(crate) fn meta(&self) -> Arc<MetaState> {
        Arc::clone(&self.meta.read())
    }

    pub(crate) fn locate(&self, name: &[u8]) -> Located {
        self.located(name, self.users.region().look_up(name))
    }

    /// What the answer that needs no lock says, or else the lock.
    fn located(&self, name: &[u8], answer: Answer) -> Located {
        match answer {
            Answer::Ask => self.users.read(name, |user| Located::of_record(name, user)),
            answer => Located::of(name, answer),
        }
    }

    /// Where each of several users is, in their order.
    pub(crate) fn locate_batch(&self, names: &[&[u8]]) -> Vec<Located> {
        let mut all = Vec::with_capacity(names.len());
        let region = self.users.region();
        region.look_up_batch(names, |name, answer| all.push(self.located(name, answer)));
        all
    }

    /// The same one by one: most users have one device, of which there is nothing to copy.
    pub(crate) fn locate_each(&self, names: &[&[u8]], mut found: impl FnMut(LocatedOne)) {
        self.users.region().look_up_batch(names, |name, answer| {
            found(match answer {
                Answer::Offline => LocatedOne::Primary(None),
                Answer::Online(session) => LocatedOne::Primary(Some(session)),
                Answer::Ask => LocatedOne::Several(self.located(name, answer)),
            });
        });
    }

    pub(crate) fn session(&self, name: &[u8], device: u16) -> Option<SessionRecord> {
        self.session_of(name, device, self.users.region().look_up(name))
    }

    /// What the answer that needs no lock says, or else the lock.
    #[inline]
    pub(crate) fn session_of(
        &self,
        name: &[u8],
        device: u16,
        answer: Answer,
    ) -> Option<SessionRecord> {
        match answer {
            Answer::Offline => None,
            Answer::Online(session) => (device == PRIMARY_DEVICE).then_some(session),
            Answer::Ask => self.users.read(name, |user| user?.device(device)?.session),
        }
    }

    /// Appends the session of each user's primary device.
    pub(crate) fn sessions_batch(&self, names: &[&[u8]], out: &mut Vec<Option<SessionRecord>>) {
        self.users.region().look_up_batch(names, |name, answer| {
            out.push(self.session_of(name, PRIMARY_DEVICE, answer));
        });
    }

    pub(crate) fn push_token(&self, device: &DeviceId) -> Option<Bytes> {
        self.users.read(&device.user, |user| {
            let token = user?.device(device.device)?.push_token.as_ref()?;
            Some(Bytes::copy_from_slice(token))
        })
    }

    pub(crate) fn stat(&self, device: &DeviceId) -> MailboxStat {
        let now_ms = self.log_time_ms();
        self.users.read(&device.user, |user| {
            let mut stat = MailboxStat::default();
            let Some(device) = user.and_then(|u| u.device(device.device)) else { return stat };
            let mailbox = &device.mailbox;
            if mailbox.next_expiry_ms() > now_ms {
                let load = mailbox.load();
                (stat.messages, stat.bytes) = (load.messages, load.bytes);
                stat.tail = mailbox.tail();
                stat.ack_floor = mailbox.ack_floor();
                stat.oldest_at_ms = mailbox.iter().next().map_or(0, Message::enqueued_at_ms);
                return stat;
            }
            for message in mailbox.iter().filter(|m| !m.is_expired(now_ms)) {
                if stat.messages == 0 {
                    stat.oldest_at_ms = message.enqueued_at_ms();
                    stat.ack_floor = message.seq.saturating_sub(1);
                }
                stat.messages += 1;
                stat.bytes += message.body_len() as u64;
                stat.tail = message.seq;
            }
            stat
        })
    }

    /// The index of messages after `after_seq`, up to the limits but at least one; `pin` is called
    /// for each while the mailbox cannot change, so that what it holds on to is still there.
    pub(crate) fn slice<P, E>(
        &self,
        device: &DeviceId,
        after_seq: u64,
        messages_max: usize,
        bytes_max: usize,
        mut pin: impl FnMut(&Message) -> Result<P, E>,
    ) -> Result<Slice<P>, E> {
        let now_ms = self.log_time_ms();
        self.users.read(&device.user, |user| {
            let mut slice = Slice { messages: Vec::new(), more: false, tail: 0 };
            let Some(device) = user.and_then(|u| u.device(device.device)) else {
                return Ok(slice);
            };
            let mut bytes = 0_usize;
            let waiting = device.mailbox.after(after_seq).filter(|m| !m.is_expired(now_ms));
            for message in waiting {
                bytes = bytes.saturating_add(message.body_len());
                let is_full = slice.messages.len() >= messages_max.max(1) || bytes > bytes_max;
                if is_full && !slice.messages.is_empty() {
                    slice.more = true;
                    break;
                }
                slice.messages.push((*message, pin(message)?));
            }
            slice.tail = device.mailbox.live_tail(now_ms);
            Ok(slice)
        })
    }

    pub(crate) fn stats(&self) -> ShardStats {
        let sum = self.users.totals();
        let header = self.header();
        let dedup = self.dedup.lock();
        ShardStats {
            users: sum.users,
            sessions: sum.sessions,
            messages: sum.waiting.messages,
            message_bytes: sum.waiting.bytes,
            dedup_ids: dedup.len(),
            dedup_horizon_ms: dedup.horizon_ms(header.log_time_ms, &header.rules),
            log_time_ms: header.log_time_ms,
        }
    }
}
