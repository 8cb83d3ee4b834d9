//! Applying claims, releases, removals of devices, and sweeps.

use super::Context;
use crate::{
    PRIMARY_DEVICE,
    command::{Claim, Release, Rules, Sweep, Unregister},
    limits::{SWEEP_SESSIONS_MAX, USER_BUCKETS},
    reply::{Claimed, Released, Status, Swept, Unregistered},
    state::{
        State,
        user::{SessionRecord, User},
    },
};

impl State {
    pub(super) fn claim(&self, context: &Context, command: &Claim) -> Claimed {
        let name = &command.device.user;
        self.users.write(name, |user| {
            let number = command.device.device;
            let evicted_device = match make_room(user, number, context.now_ms, &context.rules) {
                Room::There => 0,
                Room::Evicted(device) => device,
                Room::None => return Claimed::refused(Status::Invalid),
            };
            let device = user.ensure(number);
            device.mailbox.drop_expired(context.now_ms);
            let session = SessionRecord {
                gateway_id: command.gateway_id,
                incarnation: command.incarnation,
                connection_id: command.connection_id,
                epoch: context.position.get(),
                connected_at_ms: context.now_ms,
            };
            let replaced = device.session.replace(session).map(|old| old.of(name, number));
            device.last_seen_ms = context.now_ms;
            if !command.push_token.is_empty() {
                device.push_token = Some(command.push_token.as_ref().into());
            }
            Claimed {
                status: Status::Ok,
                epoch: session.epoch,
                connected_at_ms: session.connected_at_ms,
                replaced,
                tail: device.mailbox.tail(),
                backlog: device.mailbox.load().messages,
                evicted_device,
            }
        })
    }

    pub(super) fn release(&self, context: &Context, command: &Release) -> Released {
        let name = &command.device.user;
        let number = command.device.device;
        self.users.write(name, |user| {
            let device = user.device_mut(number);
            let is_meant = |epoch| command.epoch == 0 || command.epoch == epoch;
            let ended = device
                .filter(|d| d.session.is_some_and(|s| is_meant(s.epoch)))
                .and_then(|d| d.end_session(context.now_ms));
            let session = ended.map(|ended| ended.of(name, number));
            let is_fenced = session.is_none() && command.epoch != 0;
            Released { status: if is_fenced { Status::Fenced } else { Status::Ok }, session }
        })
    }

    pub(super) fn unregister(&self, command: &Unregister) -> Unregistered {
        let name = &command.device.user;
        let number = command.device.device;
        self.users.write(name, |user| {
            let removed = user.remove(number);
            let session = removed.as_ref().and_then(|d| d.session);
            Unregistered {
                status: Status::Ok,
                session: session.map(|s| s.of(name, number)),
                messages: removed.map_or(0, |d| d.mailbox.load().messages),
            }
        })
    }

    pub(super) fn sweep(&self, context: &Context, command: &Sweep) -> Swept {
        let wanted = command.sessions_max.clamp(1, SWEEP_SESSIONS_MAX);
        let first = usize::try_from(command.cursor).unwrap_or(usize::MAX);
        let mut sessions = 0_u32;
        for index in first..USER_BUCKETS {
            sessions = sessions.saturating_add(self.sweep_bucket(index, context, command));
            let next = index + 1;
            if sessions >= wanted && next < USER_BUCKETS {
                let next_cursor = u32::try_from(next).ok();
                return Swept { status: Status::Ok, sessions, next_cursor };
            }
        }
        Swept { status: Status::Ok, sessions, next_cursor: None }
    }

    fn sweep_bucket(&self, index: usize, context: &Context, command: &Sweep) -> u32 {
        let is_ended = |session: &SessionRecord| {
            session.gateway_id == command.gateway_id
                && session.incarnation <= command.up_to_incarnation
        };
        let has_any =
            |user: &User| user.devices().iter().any(|d| d.session.as_ref().is_some_and(is_ended));
        let mut sessions = 0;
        self.users.write_bucket(index, has_any, |_, user| {
            for device in user.devices_mut() {
                if device.session.as_ref().is_some_and(is_ended) {
                    device.end_session(context.now_ms);
                    sessions += 1;
                }
            }
        });
        sessions
    }
}

enum Room {
    There,
    Evicted(u16),
    None,
}

/// Sees to it that the user may have this device: a new one needs a place, which an idle one gives up.
fn make_room(user: &mut User, number: u16, now_ms: u64, rules: &Rules) -> Room {
    if number == PRIMARY_DEVICE || user.has_device(number) {
        return Room::There;
    }
    if user.devices_counted() < usize::from(rules.devices_max) {
        return Room::There;
    }
    let idle_since_ms = now_ms.checked_sub(rules.device_idle_ms);
    match idle_since_ms.and_then(|before_ms| user.idle_device(before_ms)) {
        Some(idle) => {
            user.remove(idle);
            Room::Evicted(idle)
        }
        None => Room::None,
    }
}
