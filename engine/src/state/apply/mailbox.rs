//! Applying enqueues, acks and purges.

use smallvec::SmallVec;

use super::Context;
use crate::{
    ALL_DEVICES, MessageKind, PRIMARY_DEVICE,
    command::{Ack, Enqueue, Purge, RecordRef},
    limits::EXPIRY_MS_MAX,
    reply::{Acked, Enqueued, Purged, Status, Stored},
    state::{
        State,
        dedup::IdHash,
        message::Message,
        user::{Device, User},
    },
};

impl State {
    pub(super) fn enqueue(
        &self,
        context: &Context,
        command: &Enqueue,
        record: RecordRef,
    ) -> Enqueued {
        let id = context.id.unwrap_or_else(|| {
            let key = self.header.read().dedup_key;
            IdHash::new(&key, &command.from, &command.message_id)
        });
        let original = self.dedup.lock().seq_of(&id);
        if let Some(seq) = original {
            return self.duplicate(context, command, seq);
        }
        let enqueued =
            self.users.write(&command.to_user, |user| store(user, context, command, record));
        // What was refused everywhere may be sent again.
        if enqueued.status == Status::Ok {
            let seq = context.position.get();
            self.dedup.lock().record(id, seq, context.now_ms, &context.rules);
        }
        enqueued
    }

    /// Says where the original still waits, and who is connected, so that a retry still pushes.
    fn duplicate(&self, context: &Context, command: &Enqueue, seq: u64) -> Enqueued {
        self.users.read(&command.to_user, |user| {
            let mut reply = Enqueued::refused(Status::Duplicate);
            for device in user.into_iter().flat_map(User::devices) {
                if command.to_device != ALL_DEVICES && command.to_device != device.number {
                    continue;
                }
                reply
                    .sessions
                    .extend(device.session.map(|s| s.of(&command.to_user, device.number)));
                let waits = device.mailbox.get(seq).filter(|m| !m.is_expired(context.now_ms));
                if let Some(message) = waits {
                    reply.enqueued_at_ms = message.enqueued_at_ms();
                    reply.expires_at_ms = message.expires_at_ms();
                    let status = Status::Duplicate;
                    reply.stored.push(Stored { device: device.number, seq, prev_seq: 0, status });
                }
            }
            reply
        })
    }

    pub(super) fn ack(&self, context: &Context, command: &Ack) -> Acked {
        self.users.write(&command.device.user, |user| {
            let Some(device) = user.device_mut(command.device.device) else {
                // Nothing waits; only a session could have had the epoch.
                let status = if command.epoch == 0 { Status::Ok } else { Status::Fenced };
                return Acked::refused(status);
            };
            if command.epoch != 0 && device.session.is_none_or(|s| s.epoch != command.epoch) {
                return Acked::refused(Status::Fenced);
            }
            let mailbox = &mut device.mailbox;
            mailbox.drop_expired(context.now_ms);
            let tail = mailbox.tail();
            let removed = mailbox.ack(command.up_to_seq.min(tail), &command.seqs);
            // Once all is gone, everything up to the old tail is.
            let ack_floor = if mailbox.is_empty() { tail } else { mailbox.ack_floor() };
            Acked { status: Status::Ok, ack_floor, removed }
        })
    }

    pub(super) fn purge(&self, context: &Context, command: &Purge) -> Purged {
        self.users.write(&command.device.user, |user| {
            let Some(device) = user.device_mut(command.device.device) else {
                return Purged { status: Status::Ok, messages: 0, bytes: 0 };
            };
            device.mailbox.drop_expired(context.now_ms);
            let gone = device.mailbox.clear();
            Purged { status: Status::Ok, messages: gone.messages, bytes: gone.bytes }
        })
    }
}

/// Appends a message to the mailboxes that it is for.
fn store(user: &mut User, context: &Context, command: &Enqueue, record: RecordRef) -> Enqueued {
    let numbers: SmallVec<[u16; 16]> = if command.to_device == ALL_DEVICES {
        // The primary is there for every user; a record of it vanishes again if nothing is stored.
        user.ensure(PRIMARY_DEVICE);
        user.devices().iter().map(|d| d.number).collect()
    } else if user.has_device(command.to_device) {
        SmallVec::from_slice(&[command.to_device])
    } else {
        return Enqueued::refused(Status::Invalid);
    };
    let ttl_ms = match command.ttl_ms {
        0 => context.rules.ttl_ms_max,
        ttl_ms => ttl_ms.min(context.rules.ttl_ms_max),
    };
    let expires_at_ms = context.now_ms.saturating_add(ttl_ms).min(EXPIRY_MS_MAX);
    let message = |prev_seq| {
        let ttl_ms = u32::try_from(ttl_ms).unwrap_or(u32::MAX);
        let (kind, len) = (command.kind, command.body.len());
        Message::young(context.position, prev_seq, expires_at_ms, ttl_ms, kind, record, len)
    };
    let mut reply = Enqueued::refused(Status::MailboxFull);
    for number in numbers {
        let device = user.ensure(number);
        let (stored, dropped) = store_one(device, context, command, message);
        reply.dropped = reply.dropped.saturating_add(dropped);
        if stored.status == Status::Ok {
            reply.status = Status::Ok;
            reply.enqueued_at_ms = context.now_ms;
            reply.expires_at_ms = expires_at_ms;
        }
        reply.sessions.extend(device.session.map(|s| s.of(&command.to_user, number)));
        reply.stored.push(stored);
    }
    reply
}

/// The answer, and how many messages gave their place.
fn store_one(
    device: &mut Device,
    context: &Context,
    command: &Enqueue,
    message: impl Fn(u64) -> Message,
) -> (Stored, u32) {
    let number = device.number;
    device.mailbox.drop_expired(context.now_ms);
    // Before anything is dropped: the tail was there when this message came, whatever became of it.
    let prev_seq = device.mailbox.tail();
    let dropped = if context.rules.drop_oldest && command.kind == MessageKind::Content {
        device.mailbox.drop_oldest(command.body.len(), &context.rules)
    } else {
        0
    };
    if !device.mailbox.has_room(command.kind, command.body.len(), &context.rules) {
        let full = Stored { device: number, seq: 0, prev_seq: 0, status: Status::MailboxFull };
        return (full, dropped);
    }
    device.mailbox.push(message(prev_seq));
    let seq = context.position.get();
    (Stored { device: number, seq, prev_seq, status: Status::Ok }, dropped)
}
