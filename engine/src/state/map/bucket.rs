//! One bucket under its lock: its slots, and everything of its users that has no room in them.
//!
//! ```text
//!   slot   name ≤ 16 bytes, session of the primary device     the usual user
//!     └──▶ outside: mailbox, or long name and mailbox         with messages, or a long name
//!   strays: whole records by name                             several devices, push tokens, and
//!                                                             whoever the table has no room for
//! ```
//! A user is taken out of its slot as a [`User`], looked at or changed, and put back; meanwhile the lock
//! keeps everybody else out. Readers without the lock see the slot as it was, then as it is.

use std::{collections::HashMap, ops::Deref};

use bytes::Bytes;
use foldhash::fast::FixedState;

use super::{
    outside::{Long, Longs, Mailboxes},
    region::Region,
    slot::{self, Key, OUTSIDE_MAX, Slot, TIME_MS_MAX},
    table::{Found, SlotWords, Table},
};
use crate::{
    PRIMARY_DEVICE, SessionRecord,
    state::{
        mailbox::Mailbox,
        user::{Device, Totals, User},
    },
};

/// What a bucket keeps besides its slots.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) slots: usize,
    mailboxes: Mailboxes,
    longs: Longs,
    pub(super) strays: HashMap<Bytes, User, FixedState>,
    pub(super) totals: Totals,
    /// Lower bound of the earliest expiry in the bucket.
    next_expiry_ms: u64,
}

impl Kept {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            slots: 0,
            mailboxes: Mailboxes::default(),
            longs: Longs::default(),
            strays: HashMap::with_hasher(FixedState::with_seed(seed)),
            totals: Totals::default(),
            next_expiry_ms: u64::MAX,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots == 0 && self.strays.is_empty()
    }
}

/// The users whose hashes lie in one range.
#[derive(Debug)]
pub(crate) struct Bucket<'a> {
    pub(super) region: &'a Region,
    pub(super) table: Table<'a>,
    pub(super) kept: &'a mut Kept,
}

/// A name that was taken out of a slot, or of outside.
enum Name {
    Short([u8; 16], usize),
    Long(Box<[u8]>),
}

impl Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(bytes, length) => &bytes[..*length],
            Self::Long(name) => name,
        }
    }
}

impl Bucket<'_> {
    #[cfg(test)]
    pub(crate) fn totals(&self) -> Totals {
        self.kept.totals
    }

    pub(crate) fn next_expiry_ms(&self) -> u64 {
        self.kept.next_expiry_ms
    }

    /// Calls `look` with one user, or with `None` when there is no record.
    pub(super) fn read<R>(&mut self, name: &[u8], look: impl FnOnce(Option<&User>) -> R) -> R {
        let Some(words) = self.slot_of(&self.region.key(name)).map(|(_, words)| words) else {
            return look(self.kept.strays.get(name));
        };
        let slot = Slot::unpack(slot::load(words));
        let user = self.take_user(&slot);
        let result = look(Some(&user));
        self.put_mailbox(&slot, user);
        result
    }

    /// Calls `look` with every user, in no order.
    pub(crate) fn each(&mut self, mut look: impl FnMut(&[u8], &User)) {
        for (_, words) in self.table.used() {
            let slot = Slot::unpack(slot::load(words));
            let (name, user) = (self.take_name(&slot), self.take_user(&slot));
            look(&name, &user);
            self.put_name(&slot, name);
            self.put_mailbox(&slot, user);
        }
        self.kept.strays.iter().for_each(|(name, user)| look(name, user));
    }

    /// Calls `change` on one user, who is made if there is none and dropped if nothing is left, and
    /// keeps counts and records right. `before` is shown the record first, if there is one.
    pub(super) fn change<R>(
        &mut self,
        name: &[u8],
        before: impl FnOnce(Option<&User>),
        change: impl FnOnce(&mut User) -> R,
    ) -> R {
        let key = self.region.key(name);
        let found = self.slot_of(&key);
        let found = found.map(|(at, words)| (at, Slot::unpack(slot::load(words))));
        let mut user = match &found {
            Some((_, slot)) => Some(self.take_user(slot)),
            None => self.kept.strays.remove(name),
        };
        before(user.as_ref());
        let is_stray = user.is_some() && found.is_none();
        let totals = user.as_ref().map_or_else(Totals::default, User::totals);
        let mut user = user.take().unwrap_or_default();
        let result = change(&mut user);
        let is_empty = user.prune();
        self.account(totals, &user);
        match found {
            Some((at, slot)) if is_empty => self.remove(at, &slot),
            Some((at, slot)) => self.put_back(at, &slot, name, &key, user),
            None if is_empty => {}
            // A record that has become what it was before stays where it was: who has strayed once
            // often does again.
            None if is_stray && !is_plain(&user) => self.stray(name, user),
            None => self.add(name, &key, user),
        }
        self.table.set_strays(!self.kept.strays.is_empty());
        result
    }

    /// Counts what changed in one user.
    fn account(&mut self, before: Totals, user: &User) {
        self.kept.totals = self.kept.totals.minus(before).plus(user.totals());
        self.kept.next_expiry_ms = self.kept.next_expiry_ms.min(user.next_expiry_ms());
    }

    /// Calls `change` on those users that are `concerned`; `before` is shown each of them first.
    pub(super) fn change_some(
        &mut self,
        concerned: impl Fn(&User) -> bool,
        mut before: impl FnMut(&[u8], &User),
        mut change: impl FnMut(&[u8], &mut User),
    ) {
        let mut names = Vec::new();
        self.each(|name, user| {
            if concerned(user) {
                names.push(Bytes::copy_from_slice(name));
            }
        });
        for name in names {
            let before = |user: Option<&User>| user.into_iter().for_each(|u| before(&name, u));
            self.change(&name, before, |user| change(&name, user));
        }
        let mut next_expiry_ms = u64::MAX;
        self.each(|_, user| next_expiry_ms = next_expiry_ms.min(user.next_expiry_ms()));
        self.kept.next_expiry_ms = next_expiry_ms;
    }

    fn slot_of(&self, key: &Key) -> Option<(usize, &SlotWords)> {
        let Found::At(at) = self.table.find(key) else { return None };
        Some((at, self.table.slot(at)?))
    }

    /// The user in a slot, with its mailbox, whose place stays reserved.
    pub(super) fn take_user(&mut self, slot: &Slot) -> User {
        let session = slot.session.and_then(|(number, epoch, connection_id)| {
            let (gateway_id, incarnation) = self.region.gateways.life(number)?;
            let connected_at_ms = slot.time_ms;
            Some(SessionRecord { gateway_id, incarnation, connection_id, epoch, connected_at_ms })
        });
        let mailbox = slot.outside.map(|at| self.take_mailbox(slot, at));
        let mut device = Device::new(PRIMARY_DEVICE);
        device.session = session;
        device.last_seen_ms = slot.time_ms;
        device.mailbox = mailbox.unwrap_or_default();
        User::of_device(device)
    }

    fn take_mailbox(&mut self, slot: &Slot, at: usize) -> Mailbox {
        if slot.is_long() {
            std::mem::take(&mut self.kept.longs.at(at).mailbox)
        } else {
            self.kept.mailboxes.take(at)
        }
    }

    /// Undoes [`take_user`](Self::take_user) when nothing has changed.
    fn put_mailbox(&mut self, slot: &Slot, user: User) {
        let (Some(at), Some(device)) = (slot.outside, user.into_only()) else { return };
        if slot.is_long() {
            self.kept.longs.at(at).mailbox = device.mailbox;
        } else {
            let put = self.kept.mailboxes.put_back(at, device.mailbox);
            debug_assert!(put.is_ok_and(|put| put == Some(at)), "it has changed");
        }
    }

    fn take_name(&mut self, slot: &Slot) -> Name {
        match (slot.short_name(), slot.outside) {
            (Some((bytes, length)), _) => Name::Short(bytes, length),
            (None, at) => {
                Name::Long(at.map_or_else(Box::default, |at| {
                    std::mem::take(&mut self.kept.longs.at(at).name)
                }))
            }
        }
    }

    fn put_name(&mut self, slot: &Slot, name: Name) {
        if let (Name::Long(name), Some(at)) = (name, slot.outside) {
            self.kept.longs.at(at).name = name;
        }
    }

    /// Frees what a slot refers to.
    pub(super) fn release(&mut self, slot: &Slot) {
        if let Some((number, ..)) = slot.session {
            self.region.gateways.give(number);
        }
        match slot.outside {
            Some(at) if slot.is_long() => drop(self.kept.longs.remove(at)),
            Some(at) => self.kept.mailboxes.remove(at),
            None => {}
        }
    }

    fn remove(&mut self, at: usize, slot: &Slot) {
        self.kept.slots -= 1;
        self.table.remove(at, self.kept.slots);
        self.release(slot);
    }

    /// A user that was in a slot, in the same slot, or among the strays if it no longer fits.
    fn put_back(&mut self, at: usize, old: &Slot, name: &[u8], key: &Key, user: User) {
        match self.pack(Some(old), name, key, user) {
            Ok(slot) => self.table.replace(at, slot.pack()),
            Err(user) => {
                // Whoever no longer finds the slot must know that it has to ask.
                self.stray(name, user);
                self.remove(at, old);
            }
        }
    }

    /// A user that was in no slot.
    fn add(&mut self, name: &[u8], key: &Key, user: User) {
        let slot = match self.pack(None, name, key, user) {
            Ok(slot) => slot,
            Err(user) => return self.stray(name, user),
        };
        if self.table.insert(key, slot.pack(), self.kept.slots).is_ok() {
            self.kept.slots += 1;
            return;
        }
        let user = self.take_user(&slot);
        self.release(&slot);
        self.stray(name, user);
    }

    fn stray(&mut self, name: &[u8], user: User) {
        self.kept.strays.insert(Bytes::copy_from_slice(name), user);
        self.table.set_strays(true);
    }

    /// Puts what has no room in a slot outside; the user comes back if it fits no slot. What `old`
    /// referred to is used again or freed, but only if the user fits.
    #[allow(clippy::result_large_err)] // It comes back where it was, on the stack.
    fn pack(
        &mut self,
        old: Option<&Slot>,
        name: &[u8],
        key: &Key,
        user: User,
    ) -> Result<Slot, User> {
        if !is_plain(&user) {
            return Err(user);
        }
        let Some(device) = user.devices().first() else { return Err(user) };
        let (record, time_ms) = (device.session, device.last_seen_ms);
        let number = match record {
            Some(record) => match self.number_of(old, &record) {
                Some(number) => Some(number),
                None => return Err(user),
            },
            None => None,
        };
        let had_place = old.and_then(|slot| slot.outside);
        let outside = match self.put_outside(had_place, name, key, user) {
            Ok(outside) => outside,
            Err(user) => {
                self.give_new(old, number);
                return Err(user);
            }
        };
        let old_number = old.and_then(|slot| slot.session).map(|(number, ..)| number);
        if old_number != number {
            old_number.into_iter().for_each(|number| self.region.gateways.give(number));
        }
        let session = record.zip(number).map(|(r, number)| (number, r.epoch, r.connection_id));
        Ok(Slot { identity: key.identity, name: key.name, session, time_ms, outside })
    }

    /// The number for a session's gateway: the one that the slot has, if it is the same.
    fn number_of(&self, old: Option<&Slot>, record: &SessionRecord) -> Option<u32> {
        let life = (record.gateway_id, record.incarnation);
        let had = old.and_then(|slot| slot.session).map(|(number, ..)| number);
        match had.filter(|number| self.region.gateways.life(*number) == Some(life)) {
            Some(number) => Some(number),
            None => self.region.gateways.take(life),
        }
    }

    fn give_new(&self, old: Option<&Slot>, number: Option<u32>) {
        let had = old.and_then(|slot| slot.session).map(|(number, ..)| number);
        if let Some(number) = number.filter(|number| had != Some(*number)) {
            self.region.gateways.give(number);
        }
    }

    /// Keeps a mailbox, and a name that is long, in the place that was had or in a new one.
    #[allow(clippy::result_large_err)] // As above.
    fn put_outside(
        &mut self,
        had: Option<usize>,
        name: &[u8],
        key: &Key,
        user: User,
    ) -> Result<Option<usize>, User> {
        let Some(device) = user.into_only() else { return Ok(None) };
        let again = |device: Device, mailbox| User::of_device(Device { mailbox, ..device });
        let mailbox = device.mailbox;
        let device = Device { mailbox: Mailbox::default(), ..device };
        if key.is_long() {
            if let Some(at) = had {
                self.kept.longs.at(at).mailbox = mailbox;
                return Ok(had);
            }
            let put = self.kept.longs.put(Long { name: name.into(), mailbox }, OUTSIDE_MAX);
            return put.map(Some).map_err(|long| again(device, long.mailbox));
        }
        let put = match had {
            Some(at) => self.kept.mailboxes.put_back(at, mailbox),
            None if mailbox.is_empty() => Ok(None),
            None => self.kept.mailboxes.put(mailbox).map(Some),
        };
        put.map_err(|mailbox| again(device, mailbox))
    }
}

/// Whether a slot says everything about a user, but for mailbox and name.
fn is_plain(user: &User) -> bool {
    let [device] = user.devices() else { return false };
    let since_claim = device.session.is_none_or(|s| s.connected_at_ms == device.last_seen_ms);
    device.number == PRIMARY_DEVICE
        && device.push_token.is_none()
        && since_claim
        && device.last_seen_ms <= TIME_MS_MAX
}
