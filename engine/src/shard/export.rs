//! A shard as a stream, bodies included, and back: for replicas that the log no longer reaches.
//!
//! ```text
//! sections (see `sections`), magic "SBEXPT01"
//!   kind 1   header, as in a checkpoint                                  once, first
//!   kind 2   users, without places                                       any number, each followed by
//!   kind 5   the records of their messages that have not expired, in
//!            the order of the messages: length u32, record               any number
//!   kind 3   dedup table            kind 4   meta state                  as in a checkpoint
//! ```

use std::{
    collections::{BTreeSet, VecDeque},
    io::{Read, Write},
    sync::Arc,
};

use bytes::{BufMut, Bytes, BytesMut};

use super::{CheckpointError, ExportError, ImportError, Shard};
use crate::{
    CheckpointMeta, DecodeError, LogId,
    checkpoint::{HEADER, LoadError, Loading, USERS, write_dedup, write_header, write_meta},
    codec::Reader,
    limits::{OLD_WRITE_BYTES, USER_BUCKETS, USERS_SECTION_BYTES},
    sections::{Envelope, SectionReader, SectionWriter},
    state::{Expected, Header, Message, Snapshot, State, User, each_user, encode_user},
};

const RECORDS: u8 = 5;
const ENVELOPE: Envelope = Envelope { magic: *b"SBEXPT01", what: "shard export" };

/// What an export says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportHeader {
    /// The last entry in it.
    pub at: Option<LogId>,
    /// The membership as of that entry, and where it stood.
    pub membership: Option<(LogId, Bytes)>,
}

impl Shard {
    /// Writes the state as of the last entry applied, with every body. `apply` goes on meanwhile.
    ///
    /// # Errors
    /// See [`ExportError`]; what was written is not whole then, and no import takes it.
    pub fn export(&self, out: &mut dyn Write) -> Result<(), ExportError> {
        // A checkpoint could take a young body of the snapshot away.
        let _no_checkpoint = self.writing.lock();
        let snapshot = self.snapshot();
        let mut sections = SectionWriter::new(out, ENVELOPE)?;
        write_header(&mut sections, &snapshot.header)?;
        for bucket in 0..USER_BUCKETS {
            for Part { users, waiting } in parts_of(&snapshot, bucket) {
                sections.section(USERS, &users)?;
                self.write_records(&mut sections, &waiting)?;
            }
        }
        write_dedup(&mut sections, &snapshot.dedup)?;
        write_meta(&mut sections, &snapshot.meta)?;
        Ok(sections.finish()?)
    }

    fn write_records(
        &self,
        sections: &mut SectionWriter<'_>,
        messages: &[Message],
    ) -> Result<(), ExportError> {
        let mut records = BytesMut::new();
        for message in messages {
            let pin = self.pin(message)?;
            let record = self.record(message, &pin)?;
            records.put_u32_le(u32::try_from(record.len()).unwrap_or(u32::MAX));
            records.put_slice(&record);
            if records.len() >= OLD_WRITE_BYTES {
                sections.section(RECORDS, &records.split())?;
            }
        }
        if !records.is_empty() {
            sections.section(RECORDS, &records)?;
        }
        Ok(())
    }

    /// Reads how far an export goes, without loading it.
    ///
    /// # Errors
    /// When the bytes do not begin as an export does.
    pub fn read_export_header(input: &mut dyn Read) -> Result<ExportHeader, ImportError> {
        let mut sections = SectionReader::new(input, ENVELOPE)?;
        let at = sections.at();
        let order = LoadError::Order { at, reason: "the header comes first" };
        let Some((HEADER, payload)) = sections.next()? else { return Err(order.into()) };
        let header = Header::decode(&mut Reader::new(payload));
        let header = header.map_err(|source| LoadError::Content { at, source })?;
        Ok(ExportHeader { at: header.applied, membership: header.membership })
    }

    /// Replaces the whole state by an export of the same group, and makes it durable.
    ///
    /// # Errors
    /// See [`ImportError`]; the state is as it was then.
    pub fn import(&self, input: &mut dyn Read) -> Result<(), ImportError> {
        let _one_at_a_time = self.writing.lock();
        let mut sections = SectionReader::new(input, ENVELOPE)?;
        let mut loading = Loading::default();
        let mut mover = self.old.mover();
        let mut placing = Placing::default();
        loop {
            let at = sections.at();
            let Some((kind, payload)) = sections.next()? else { break };
            match kind {
                USERS => {
                    let state = loading.state(at)?;
                    placing.restore(at, state)?;
                    placing = Placing::new(at, &payload, &state.header())?;
                }
                RECORDS => {
                    let mut reader = Reader::new(payload);
                    while reader.left() > 0 {
                        let record = next_record(&mut reader);
                        let record = record.map_err(|source| LoadError::Content { at, source })?;
                        let message = placing.next(at)?;
                        let crc = crc32fast::hash(&record);
                        if crc != message.crc || record.len() != message.record_len() {
                            return Err(ImportError::Record { seq: message.seq });
                        }
                        let place = mover.push(message.expires_at_ms(), &record, crc);
                        message.set_place(place.map_err(CheckpointError::from)?);
                    }
                }
                kind => {
                    loading.take(at, kind, payload)?;
                    self.check_is_ahead(loading.state(at)?.header().applied)?;
                }
            }
        }
        placing.restore(sections.at(), loading.state(sections.at())?)?;
        mover.finish().map_err(CheckpointError::from)?;
        let remembered = loading.take_remembered(sections.at())?;
        let state = loading.finish(self.group, sections.at(), remembered)?;
        self.adopt(state)
    }

    /// Refuses what would take back entries that have been applied.
    fn check_is_ahead(&self, at: Option<LogId>) -> Result<(), ImportError> {
        match self.applied() {
            Some(applied) if at < Some(applied) => Err(ImportError::Behind { at, applied }),
            _ => Ok(()),
        }
    }

    /// Makes an imported state durable, then swaps it in. Nothing is applied meanwhile: it would be
    /// applied to a state that goes.
    fn adopt(&self, state: State) -> Result<(), ImportError> {
        let state = Arc::new(state);
        let snapshot = Snapshot::of(&state);
        let at = snapshot.header.applied.ok_or(CheckpointError::Empty)?;
        let _no_writer = self.applying.lock();
        self.check_is_ahead(Some(at))?;
        let written = self.write_checkpoint(&snapshot, at, BTreeSet::new(), true)?;
        let membership = snapshot.header.membership.clone();
        drop(snapshot);
        let old = {
            let mut current = self.state.write();
            self.regions.follow(Arc::clone(state.region()));
            std::mem::replace(&mut *current, state)
        };
        drop(old);
        *self.checkpoint.write() = Some(CheckpointMeta { at, membership });
        Ok(self.adopt_files(at.index, written)?)
    }
}

/// Users of one section, and their messages whose records follow.
#[derive(Default)]
struct Part {
    users: BytesMut,
    waiting: Vec<Message>,
}

fn parts_of(snapshot: &Snapshot, bucket: usize) -> Vec<Part> {
    let now_ms = snapshot.header.log_time_ms;
    let mut parts = Vec::new();
    let mut part = Part::default();
    snapshot.visit(bucket, |name, user| {
        encode_user(&mut part.users, name, user, None);
        let messages = user.devices().iter().flat_map(|device| device.mailbox.iter());
        part.waiting.extend(messages.filter(|m| !m.is_expired(now_ms)).copied());
        if part.users.len() >= USERS_SECTION_BYTES {
            parts.push(std::mem::take(&mut part));
        }
    });
    if !part.users.is_empty() {
        parts.push(part);
    }
    parts
}

fn next_record(reader: &mut Reader) -> Result<Bytes, DecodeError> {
    let len = reader.count(1)?;
    reader.bytes(len)
}

/// The users of one section, whose messages wait for their records, in order.
#[derive(Default)]
struct Placing {
    users: Vec<(Bytes, User)>,
    /// User, device and place in its mailbox of every message that has a record.
    waiting: VecDeque<(usize, usize, usize)>,
}

impl Placing {
    fn new(at: u64, payload: &Bytes, header: &Header) -> Result<Self, LoadError> {
        let expected = Expected { with_places: false, last_position: header.last_position() };
        let mut users = Vec::new();
        let read = each_user(payload, expected, |name, user| {
            users.push((Bytes::copy_from_slice(name), user.into_user()));
        });
        read.map_err(|source| LoadError::Content { at, source })?;
        let now_ms = header.log_time_ms;
        let mut waiting = VecDeque::new();
        for (u, (_, user)) in users.iter().enumerate() {
            for (d, device) in user.devices().iter().enumerate() {
                let live = device.mailbox.iter().enumerate().filter(|(_, m)| !m.is_expired(now_ms));
                waiting.extend(live.map(|(m, _)| (u, d, m)));
            }
        }
        Ok(Self { users, waiting })
    }

    fn next(&mut self, at: u64) -> Result<&mut Message, LoadError> {
        let order = LoadError::Order { at, reason: "a record that belongs to no message" };
        let Some((u, d, m)) = self.waiting.pop_front() else { return Err(order) };
        let user = self.users.get_mut(u);
        let device = user.and_then(|(_, user)| user.devices_mut().get_mut(d));
        device.and_then(|device| device.mailbox.iter_mut().nth(m)).ok_or(order)
    }

    /// Adds the users to a state, once all their messages have a place.
    fn restore(&mut self, at: u64, state: &State) -> Result<(), LoadError> {
        if !self.waiting.is_empty() {
            return Err(LoadError::Order { at, reason: "a message has no record" });
        }
        for (name, user) in std::mem::take(&mut self.users) {
            if !state.restore_user(&name, user) {
                return Err(LoadError::Order { at, reason: "a user stands in it twice" });
            }
        }
        Ok(())
    }
}
