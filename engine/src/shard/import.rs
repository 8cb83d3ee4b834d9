//! Reading an export: to take a shard's state from a replica, to restore it from a backup, or only to
//! see that all of it is sound.

use std::{
    collections::{BTreeSet, VecDeque},
    io::Read,
    sync::Arc,
};

use bytes::Bytes;

use super::{CheckpointError, ImportError, Shard, export};
use crate::{
    BodyError, CheckpointMeta, DecodeError, GroupId, LogId, ShardStats,
    checkpoint::{HEADER, LoadError, Loading, USERS},
    codec::Reader,
    limits::GENERATION_MAX,
    sections::SectionReader,
    state::{Expected, Header, Message, Place, Snapshot, State, User, each_user},
};

/// What an export says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportHeader {
    /// The last entry in it.
    pub at: Option<LogId>,
    /// The membership as of that entry, and where it stood.
    pub membership: Option<(LogId, Bytes)>,
    /// The generation of its positions.
    pub generation: u8,
}

impl ExportHeader {
    fn of(header: &Header) -> Self {
        Self {
            at: header.applied,
            membership: header.membership.clone(),
            generation: header.generation,
        }
    }
}

/// How the state of a backup begins its second life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restoration {
    /// The generation of all positions from now on; above that of the backup, so that none is below one
    /// that was handed out before.
    pub generation: u8,
    /// Who replicates the group from now on, in the form in which membership entries have it.
    pub membership: Bytes,
    /// The cluster that it belongs to from now on.
    pub cluster_id: [u8; 16],
}

impl Shard {
    /// Reads how far an export goes, without loading it.
    ///
    /// # Errors
    /// When the bytes do not begin as an export does.
    pub fn read_export_header(input: &mut dyn Read) -> Result<ExportHeader, ImportError> {
        let mut sections = SectionReader::new(input, export::ENVELOPE)?;
        let at = sections.at();
        let order = LoadError::Order { at, reason: "the header comes first" };
        let Some((HEADER, payload)) = sections.next()? else { return Err(order.into()) };
        let header = Header::decode(&mut Reader::new(payload));
        let header = header.map_err(|source| LoadError::Content { at, source })?;
        Ok(ExportHeader::of(&header))
    }

    /// Reads all of an export of a group and checks it as [`Self::import`] does, keeping no body and
    /// touching no disk.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub fn verify_export(
        group: GroupId,
        input: &mut dyn Read,
    ) -> Result<(ExportHeader, ShardStats), ImportError> {
        let state = read(group, input, |_| Ok(()), |_, _| Ok(Place::Gone))?;
        Ok((ExportHeader::of(&state.header()), state.stats()))
    }

    /// Replaces the whole state by an export of the same group, and makes it durable.
    ///
    /// # Errors
    /// See [`ImportError`]; the state is as it was then.
    pub fn import(&self, input: &mut dyn Read) -> Result<(), ImportError> {
        let _one_at_a_time = self.writing.lock();
        self.check_not_ended()?;
        self.take_in(input, |_| Ok(()))
    }

    /// Takes the state of a backup into a group that has applied nothing, under a new generation and a
    /// new membership, and makes it durable. Gateways and chat processes are known by name still, but
    /// every incarnation has ended; the nodes of the old cluster are forgotten.
    ///
    /// # Errors
    /// See [`ImportError`]; the state is as it was then.
    pub fn restore(
        &self,
        input: &mut dyn Read,
        restoration: &Restoration,
    ) -> Result<(), ImportError> {
        let _one_at_a_time = self.writing.lock();
        if let Some(applied) = self.applied() {
            return Err(ImportError::Behind { at: None, applied });
        }
        let Restoration { generation, membership, cluster_id } = restoration;
        self.take_in(input, |state| {
            let found = state.header().generation;
            if *generation <= found || *generation > GENERATION_MAX {
                return Err(ImportError::Generation { found, asked: *generation });
            }
            state.begin_again(*generation, membership.clone(), *cluster_id);
            Ok(())
        })
    }

    /// Reads an export, prepares its state and adopts it; what a failure leaves on the disk goes.
    fn take_in(
        &self,
        input: &mut dyn Read,
        prepare: impl FnOnce(&State) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let taken = self.read_with_bodies(input).and_then(|state| {
            prepare(&state)?;
            self.adopt(state)
        });
        taken.inspect_err(|_| self.clear_away())
    }

    /// The state of an export, its bodies in old files.
    fn read_with_bodies(&self, input: &mut dyn Read) -> Result<State, ImportError> {
        let mut mover = self.old.mover();
        let is_ahead = |header: &Header| self.check_is_ahead(header.applied);
        let state = read(self.group, input, is_ahead, |message, record| {
            mover.push(message.expires_at_ms(), record, message.crc)
        })?;
        mover.finish().map_err(CheckpointError::from)?;
        Ok(state)
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
        // The next start finds the checkpoint by its name, and must not find a tail that this state has replaced.
        self.log.flush().map_err(CheckpointError::from)?;
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

/// Reads an export whole. `admit` may refuse it by its header; `place` is given each record, checked,
/// and says where its message finds it from now on.
fn read(
    group: GroupId,
    input: &mut dyn Read,
    admit: impl Fn(&Header) -> Result<(), ImportError>,
    mut place: impl FnMut(&Message, &Bytes) -> Result<Place, BodyError>,
) -> Result<State, ImportError> {
    let mut sections = SectionReader::new(input, export::ENVELOPE)?;
    let mut loading = Loading::default();
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
            export::RECORDS => {
                let mut reader = Reader::new(payload);
                while reader.left() > 0 {
                    let record = next_record(&mut reader);
                    let record = record.map_err(|source| LoadError::Content { at, source })?;
                    let message = placing.next(at)?;
                    let is_whole = crc32fast::hash(&record) == message.crc;
                    if !is_whole || record.len() != message.record_len() {
                        return Err(ImportError::Record { seq: message.seq });
                    }
                    let place = place(message, &record).map_err(CheckpointError::from)?;
                    message.set_place(place);
                }
            }
            kind => {
                loading.take(at, kind, payload)?;
                admit(&loading.state(at)?.header())?;
            }
        }
    }
    placing.restore(sections.at(), loading.state(sections.at())?)?;
    let remembered = loading.take_remembered(sections.at())?;
    Ok(loading.finish(group, sections.at(), remembered)?)
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
