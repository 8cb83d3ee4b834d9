//! `apply`: entries in, replies out.
//!
//! One function per command, each in the file of its family. Nothing here fails because of what a
//! command asks for: that is a status in the reply. What fails is an entry that cannot be read or comes
//! out of order, and then nothing has changed.

mod mailbox;
mod meta;
mod session;

use std::sync::Arc;

use smallvec::SmallVec;
use thiserror::Error;

use super::{State, dedup::IdHash};
use crate::{
    DecodeError, EntryPayload, LogId, META_GROUP, Position,
    command::{Command, DecodedCommand, EntryReader, Init, Rules},
    limits::GENERATION_MAX,
    reply::{Reply, Status},
};

/// Why an entry was not applied. The state is as it was.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// An entry that is not after the last one applied.
    #[error("entry {at} is not after {applied}, which has been applied")]
    OutOfOrder {
        /// The entry.
        at: LogId,
        /// The last one applied.
        applied: LogId,
    },
    /// The log index is beyond what a position holds.
    #[error("log index {index} is beyond the last that a position can name")]
    IndexTooHigh {
        /// The index.
        index: u64,
    },
    /// The entry cannot be read.
    #[error("entry {at} cannot be read: {source}")]
    Malformed {
        /// The entry.
        at: LogId,
        /// Where and how.
        source: DecodeError,
    },
}

/// What every command of an entry needs to know.
#[derive(Clone, Copy, Debug)]
struct Context {
    now_ms: u64,
    position: Position,
    rules: Rules,
    /// The hash of the command's message id, if it was made ahead.
    id: Option<IdHash>,
}

/// Commands whose memory is asked for before the first of them is applied, so that it is waited for
/// together. What a command finds elsewhere decides what it needs next, so this covers the first
/// step only: the user's slot, and where the message id would stand.
const AHEAD: usize = 16;

impl State {
    /// Applies one entry; a reply for each of its commands, in order. By one thread at a time.
    pub(crate) fn apply(
        &self,
        at: LogId,
        payload: &EntryPayload,
    ) -> Result<Vec<Reply>, ApplyError> {
        if let Some(applied) = self.header.read().applied.filter(|applied| at <= *applied) {
            return Err(ApplyError::OutOfOrder { at, applied });
        }
        let mut replies = Vec::new();
        match payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(bytes) => {
                self.header.write().membership = Some((at, bytes.clone()));
            }
            EntryPayload::Commands(bytes) => {
                let malformed = |source| ApplyError::Malformed { at, source };
                let reader = EntryReader::new(bytes.clone()).map_err(malformed)?;
                let stamp_ms = reader.stamp_ms();
                // Read whole before anything changes, so that a bad entry changes nothing.
                let mut commands = Vec::with_capacity(reader.len());
                for decoded in reader {
                    commands.push(decoded.map_err(malformed)?);
                }
                if Position::new(0, at.index, 0).is_none() {
                    return Err(ApplyError::IndexTooHigh { index: at.index });
                }
                replies = self.apply_commands(at, stamp_ms, commands);
            }
        }
        self.header.write().applied = Some(at);
        Ok(replies)
    }

    fn apply_commands(
        &self,
        at: LogId,
        stamp_ms: u64,
        commands: Vec<DecodedCommand>,
    ) -> Vec<Reply> {
        let (before_ms, now_ms, rules) = {
            let mut header = self.header.write();
            let before_ms = header.log_time_ms;
            // A fresh leader may stamp below an entry that it has not applied yet.
            header.log_time_ms = before_ms.max(stamp_ms);
            (before_ms, header.log_time_ms, header.rules)
        };
        self.dedup.lock().advance(now_ms, &rules);
        self.drop_expired(before_ms, now_ms);
        let mut replies = Vec::with_capacity(commands.len());
        let mut commands = commands.into_iter();
        while commands.len() > 0 {
            let ids = self.ask_ahead(commands.as_slice());
            // Ids first: at their end nothing is taken from the commands.
            for (id, decoded) in ids.into_iter().zip(commands.by_ref()) {
                let place = u16::try_from(replies.len()).unwrap_or(u16::MAX);
                replies.push(self.apply_command(at, place, now_ms, decoded, id));
            }
        }
        replies
    }

    /// Asks for the memory of the next commands, at most [`AHEAD`], and hashes their message ids.
    /// Changes nothing, and nothing depends on it.
    fn ask_ahead(&self, commands: &[DecodedCommand]) -> SmallVec<[Option<IdHash>; AHEAD]> {
        let commands = &commands[..commands.len().min(AHEAD)];
        let (begun, key) = {
            let header = self.header.read();
            (header.begun, header.dedup_key)
        };
        if !begun {
            // Without users and with a key that is still to come.
            return SmallVec::from_elem(None, commands.len());
        }
        let dedup = self.dedup.lock();
        let mut touched = 0;
        let ids = commands.iter().map(|decoded| {
            touched ^= user_of(&decoded.command).map_or(0, |user| self.users.touch(user));
            let Command::Enqueue(enqueue) = &decoded.command else { return None };
            let id = IdHash::new(&key, &enqueue.from, &enqueue.message_id);
            touched ^= dedup.touch(&id);
            Some(id)
        });
        let ids = ids.collect();
        // The values mean nothing: they are there so that the memory is really asked for.
        std::hint::black_box(touched);
        ids
    }

    fn apply_command(
        &self,
        at: LogId,
        place: u16,
        now_ms: u64,
        decoded: DecodedCommand,
        id: Option<IdHash>,
    ) -> Reply {
        let (group, begun, generation, rules) = {
            let header = self.header.read();
            (header.group, header.begun, header.generation, header.rules)
        };
        let position = Position::new(generation, at.index, place).unwrap_or(Position::NONE);
        let context = Context { now_ms, position, rules, id };
        let DecodedCommand { command, record } = decoded;
        // What no state can allow is refused here too, for logs written by others.
        if let Err(status) = command.check() {
            return refusal(&command, status);
        }
        if group == META_GROUP {
            return self.apply_meta(&context, &command);
        }
        match command {
            Command::Init(c) => Reply::Done(self.init(&c)),
            Command::Tick => Reply::Done(Status::Ok),
            command if !begun => refusal(&command, Status::Unavailable),
            Command::SetRules(c) => Reply::Done(self.set_rules(&c)),
            Command::Claim(c) => Reply::Claimed(self.claim(&context, &c)),
            Command::Release(c) => Reply::Released(self.release(&context, &c)),
            Command::Unregister(c) => Reply::Unregistered(self.unregister(&c)),
            Command::Sweep(c) => Reply::Swept(self.sweep(&context, &c)),
            Command::Enqueue(c) => match record {
                Some(record) => Reply::Enqueued(self.enqueue(&context, &c, record)),
                None => refusal(&Command::Enqueue(c), Status::Invalid),
            },
            Command::Ack(c) => Reply::Acked(self.ack(&context, &c)),
            Command::Purge(c) => Reply::Purged(self.purge(&context, &c)),
            other => refusal(&other, Status::Invalid),
        }
    }

    fn init(&self, command: &Init) -> Status {
        if command.generation > GENERATION_MAX || !command.rules.is_valid() {
            return Status::Invalid;
        }
        let mut header = self.header.write();
        if header.begun && command.generation <= header.generation {
            return Status::Ok;
        }
        header.generation = command.generation;
        if !header.begun {
            // A later generation keeps the key: the ids that are remembered are hashed with it.
            header.dedup_key = command.dedup_key;
            self.users.set_key(&command.dedup_key);
            header.rules = command.rules;
            header.begun = true;
        }
        Status::Ok
    }

    fn set_rules(&self, rules: &Rules) -> Status {
        if !rules.is_valid() {
            return Status::Invalid;
        }
        self.header.write().rules = *rules;
        Status::Ok
    }

    fn apply_meta(&self, context: &Context, command: &Command) -> Reply {
        let mut meta = self.meta.write();
        let mut next = Arc::unwrap_or_clone(Arc::clone(&meta));
        let reply = meta::apply(self, &mut next, context, command);
        if next != **meta {
            next.version = context.position.get();
            if next.has_moved_on_from(&meta) {
                next.placement.version = next.version;
            }
            *meta = Arc::new(next);
        }
        reply
    }
}

/// The user that a frequent command is about.
fn user_of(command: &Command) -> Option<&[u8]> {
    match command {
        Command::Claim(c) => Some(&c.device.user),
        Command::Release(c) => Some(&c.device.user),
        Command::Enqueue(c) => Some(&c.to_user),
        Command::Ack(c) => Some(&c.device.user),
        _ => None,
    }
}

/// The reply that fits a command which was not carried out.
fn refusal(command: &Command, status: Status) -> Reply {
    use crate::reply::{
        Acked, Claimed, Enqueued, Purged, Registered, Released, Swept, Unregistered,
    };
    match command {
        Command::Claim(_) => Reply::Claimed(Claimed::refused(status)),
        Command::Release(_) => Reply::Released(Released { status, session: None }),
        Command::Unregister(_) => {
            Reply::Unregistered(Unregistered { status, session: None, messages: 0 })
        }
        Command::Sweep(_) => Reply::Swept(Swept { status, sessions: 0, next_cursor: None }),
        Command::Enqueue(_) => Reply::Enqueued(Enqueued::refused(status)),
        Command::Ack(_) => Reply::Acked(Acked::refused(status)),
        Command::Purge(_) => Reply::Purged(Purged { status, messages: 0, bytes: 0 }),
        Command::RegisterGateway(_) => {
            Reply::Registered(Registered { status, gateway_id: 0, incarnation: 0 })
        }
        Command::EndIncarnation(_) => Reply::Ended(status),
        Command::Init(_)
        | Command::SetRules(_)
        | Command::Tick
        | Command::InitCluster(_)
        | Command::SetNode(_)
        | Command::RaiseFormat(_)
        | Command::SetNodeState(_)
        | Command::SetPlacement(_)
        | Command::BeginMoves(_)
        | Command::NoteMove(_)
        | Command::EndMove(_)
        | Command::ReadmitNode(_) => Reply::Done(status),
    }
}
