//! Putting a state together from sections: of a checkpoint, by several threads, or of an export.

use std::thread;

use bytes::{Bytes, BytesMut};

use super::{COUNTS, DEDUP, DEDUP_INDEX, HEADER, LoadError, META, USERS};
use crate::{
    GroupId,
    codec::Reader,
    id_files::IdFiles,
    limits::LOAD_THREADS_MAX,
    sections::{Found, SectionIndex},
    state::{
        Dedup, Described, Expected, Filling, Header, Live, MetaState, Remembered, State,
        decode_counts, decode_dedup, decode_index, decode_meta, each_user,
    },
};

/// What has been read of a state. The header comes first, and users go into the state at once.
#[derive(Default)]
pub(crate) struct Loading {
    state: Option<State>,
    dedup: BytesMut,
    meta: Option<MetaState>,
}

impl Loading {
    /// Takes a section of a kind that checkpoints and exports share.
    pub(crate) fn take(&mut self, at: u64, kind: u8, payload: Bytes) -> Result<(), LoadError> {
        let content = |source| LoadError::Content { at, source };
        match kind {
            HEADER if self.state.is_none() => {
                let mut reader = Reader::new(payload);
                let header = Header::decode(&mut reader).map_err(content)?;
                reader.finish().map_err(content)?;
                self.state = Some(State::new(header));
            }
            DEDUP => self.dedup.extend_from_slice(&payload),
            META if self.meta.is_none() => {
                self.meta = Some(decode_meta(payload).map_err(content)?);
            }
            _ => return Err(LoadError::Order { at, reason: "a kind that may not come here" }),
        }
        Ok(())
    }

    /// The state as far as it has been read; what stands at `at` needs its header.
    pub(crate) fn state(&self, at: u64) -> Result<&State, LoadError> {
        let reason = "something else comes before the header";
        self.state.as_ref().ok_or(LoadError::Order { at, reason })
    }

    /// The dedup table as an export has it.
    pub(crate) fn take_remembered(&mut self, at: u64) -> Result<Remembered, LoadError> {
        let decoded = decode_dedup(self.dedup.split().freeze());
        decoded.map_err(|source| LoadError::Content { at, source })
    }

    /// Puts the state together.
    pub(crate) fn finish(
        self,
        group: GroupId,
        at: u64,
        remembered: Remembered,
    ) -> Result<State, LoadError> {
        let missing = LoadError::Order { at, reason: "no header came before the end" };
        let mut state = self.state.ok_or(missing)?;
        let header = state.header();
        if header.group != group {
            return Err(LoadError::Order { at, reason: "it is of another group" });
        }
        if remembered.ids.last_seq() > header.last_position() {
            return Err(LoadError::Order { at, reason: "an id from after the last entry" });
        }
        state.complete(Dedup::new(remembered), self.meta.unwrap_or_default());
        Ok(state)
    }
}

/// Loads a checkpoint: users by several threads, while this one does the rest.
pub(super) fn load(
    index: &SectionIndex,
    group: GroupId,
    id_files: &IdFiles,
) -> Result<(State, Live), LoadError> {
    let mut loading = Loading::default();
    let (users, rest): (Vec<Found>, Vec<Found>) =
        index.found.iter().partition(|section| section.kind == USERS);
    let mut rest = rest.iter();
    if let Some(first) = rest.next() {
        loading.take(first.at as u64, first.kind, index.payload(first)?)?;
    }
    let end = index.found.last().map_or(0, |last| last.at as u64);
    let state = loading.state(end)?;
    let (mut counted, mut remembered, mut others) = (None, None, Vec::new());
    for section in rest {
        let (at, payload) = (section.at as u64, index.payload(section)?);
        let content = |source| LoadError::Content { at, source };
        match section.kind {
            COUNTS if counted.is_none() => counted = Some(decode_counts(payload).map_err(content)?),
            DEDUP_INDEX if remembered.is_none() => {
                remembered = Some(decode_index(payload).map_err(content)?);
            }
            DEDUP => return Err(LoadError::Order { at, reason: "a kind of exports" }),
            kind => others.push((at, kind, payload)),
        }
    }
    let missing = |reason| LoadError::Order { at: end, reason };
    let remembered = remembered.ok_or(missing("no dedup index came before the end"))?;
    let counted = counted.ok_or(missing("no counts came before the end"))?;
    let (live, remembered) = thread::scope(|scope| {
        let ids = scope.spawn(|| id_files.load(remembered));
        let live = load_users(index, &users, state);
        // A panic of a thread goes on in this one.
        (live, ids.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let (live, remembered) = (live?, remembered?);
    if state.stats().users != counted {
        return Err(missing("it has another number of users than it says"));
    }
    for (at, kind, payload) in others {
        loading.take(at, kind, payload)?;
    }
    Ok((loading.finish(group, end, remembered)?, live))
}

fn load_users(index: &SectionIndex, users: &[Found], state: &State) -> Result<Live, LoadError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(LOAD_THREADS_MAX).min(users.len()).max(1);
    // Each takes neighbours, so that two seldom meet in one bucket.
    let shares = users.chunks(users.len().div_ceil(threads).max(1));
    thread::scope(|scope| {
        let load = |share: &[Found]| -> Result<Live, LoadError> {
            let (mut live, mut filling) = (Live::default(), state.fill());
            for section in share {
                load_section(index, section, state, &mut filling, &mut live)?;
            }
            let at = share.last().map_or(0, |last| last.at as u64);
            let order = LoadError::Order { at, reason: "a user stands in it twice" };
            if filling.finish() { Ok(live) } else { Err(order) }
        };
        let mut working = Vec::new();
        let mut shares = shares;
        let own = shares.next().unwrap_or(&[]);
        for share in shares {
            working.push(scope.spawn(move || load(share)));
        }
        let mut live = load(own)?;
        for thread in working {
            let other = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            live.add(&other);
        }
        Ok(live)
    })
}

fn load_section(
    index: &SectionIndex,
    section: &Found,
    state: &State,
    filling: &mut Filling<'_>,
    live: &mut Live,
) -> Result<(), LoadError> {
    let at = section.at as u64;
    let expected = Expected { with_places: true, last_position: state.header().last_position() };
    let decoded = each_user(&index.payload(section)?, expected, |name, user| match user {
        Described::Online(session) => filling.session(name, session),
        Described::Other(user) => {
            live.count_user(&user);
            filling.user(name, user);
        }
    });
    decoded.map_err(|source| LoadError::Content { at, source })
}
