//! One walk over a snapshot that makes a checkpoint of it.
//!
//! ```text
//!   for each bucket:  users ──▶ encoded, the writer kept out of that bucket only
//!                     bodies that are young, or in files worth rewriting ──▶ old files
//!                     their new places ──▶ into the encoded users ──▶ the checkpoint's file
//! ```
//! What is held in memory is one bucket's users, encoded, and 16 bytes for each body that was moved.

use std::collections::{BTreeSet, HashMap};

use bytes::BytesMut;
use foldhash::fast::FixedState;

use super::{CheckpointError, Shard};
use crate::{
    bodies::Mover,
    checkpoint::USERS,
    limits::{USER_BUCKETS, USERS_SECTION_BYTES},
    sections::SectionWriter,
    state::{Live, Message, Place, Snapshot, State, encode_user, put_place},
};

/// Where the bodies of one bucket have gone, ascending by seq.
pub(super) struct Moved {
    bucket: usize,
    places: Box<[MovedBody]>,
}

/// Where the body of one message has gone: a file, and bytes from its start.
#[derive(Clone, Copy)]
struct MovedBody {
    seq: u64,
    file: u32,
    offset: u32,
}

const _: () = assert!(size_of::<MovedBody>() == 16);

impl Moved {
    /// Points the living state there.
    pub(super) fn relocate(&self, state: &State) {
        state.relocate(self.bucket, |message| {
            let found = self.places.binary_search_by_key(&message.seq, |body| body.seq).ok()?;
            let MovedBody { file, offset, .. } = *self.places.get(found)?;
            Some(Place::Old { file, offset })
        });
    }
}

/// What a pass leaves behind when it is through.
pub(super) struct Passed {
    pub(super) live: Live,
    pub(super) moved: Vec<Moved>,
}

/// A message of the bucket that is being worked on.
struct Waiting {
    /// Where its place stands in the encoded users.
    at: usize,
    message: Message,
    /// Its user has further devices, which may have the same message. A seq belongs to one command, so
    /// messages of one seq are copies for the devices of one user.
    is_shared: bool,
}

pub(super) struct Pass<'a> {
    shard: &'a Shard,
    now_ms: u64,
    /// Old files whose bodies move on.
    rewritten: BTreeSet<u32>,
    mover: Mover<'a>,
    live: Live,
    moved: Vec<Moved>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(shard: &'a Shard, snapshot: &Snapshot, rewritten: BTreeSet<u32>) -> Self {
        Self {
            shard,
            now_ms: snapshot.header.log_time_ms,
            rewritten,
            mover: shard.old.mover(),
            live: Live::default(),
            moved: Vec::new(),
        }
    }

    /// Writes all users; their bodies are durable in old files when this returns.
    pub(super) fn run(
        mut self,
        snapshot: &Snapshot,
        sections: &mut SectionWriter<'_>,
    ) -> Result<Passed, CheckpointError> {
        let mut users = BytesMut::new();
        for bucket in 0..USER_BUCKETS {
            let (ends, waiting) = encode_bucket(snapshot, bucket, &mut users);
            self.place_all(bucket, &waiting, &mut users)?;
            let mut from = 0;
            for end in ends {
                sections.section(USERS, &users.split_to(end - from))?;
                from = end;
            }
            if users.len() >= USERS_SECTION_BYTES {
                sections.section(USERS, &users.split())?;
            }
        }
        if !users.is_empty() {
            sections.section(USERS, &users)?;
        }
        self.mover.finish()?;
        Ok(Passed { live: self.live, moved: self.moved })
    }

    fn place_all(
        &mut self,
        bucket: usize,
        waiting: &[Waiting],
        users: &mut BytesMut,
    ) -> Result<(), CheckpointError> {
        let mut shared = HashMap::<u64, Place, FixedState>::default();
        let mut places = Vec::new();
        for Waiting { at, message, is_shared } in waiting {
            let copy = shared.get(&message.seq).copied();
            // A copy that stays may lie elsewhere: an import writes a record for each.
            let place = match copy {
                Some(place) if self.is_moved(message) => place,
                _ => self.place(message)?,
            };
            if copy != Some(place) {
                self.live.count(place, message);
                if *is_shared {
                    shared.insert(message.seq, place);
                }
            }
            if let Place::Old { file, offset } = place
                && place != message.place()
            {
                places.push(MovedBody { seq: message.seq, file, offset });
            }
            put_place(users, *at, place);
        }
        if !places.is_empty() {
            // Any place of a seq will do for all of its copies.
            places.sort_unstable_by_key(|body| body.seq);
            places.dedup_by_key(|body| body.seq);
            self.moved.push(Moved { bucket, places: places.into() });
        }
        Ok(())
    }

    fn is_moved(&self, message: &Message) -> bool {
        match message.place() {
            _ if message.is_expired(self.now_ms) => false,
            Place::Young { .. } => true,
            Place::Old { file, .. } => self.rewritten.contains(&file),
            Place::Gone => false,
        }
    }

    /// Where a message lies from now on; moves its body if it has to.
    fn place(&mut self, message: &Message) -> Result<Place, CheckpointError> {
        if message.is_expired(self.now_ms) {
            return Ok(Place::Gone);
        }
        if !self.is_moved(message) {
            return Ok(message.place());
        }
        let pin = self.shard.pin(message)?;
        let record = self.shard.record(message, &pin)?;
        Ok(self.mover.push(message.expires_at_ms(), &record, message.crc)?)
    }
}

/// Appends the users of a bucket. Returns where sections should end, counted from the first byte in
/// `users`, and the messages whose places have to be put right.
fn encode_bucket(
    snapshot: &Snapshot,
    bucket: usize,
    users: &mut BytesMut,
) -> (Vec<usize>, Vec<Waiting>) {
    let mut ends = Vec::new();
    let mut waiting = Vec::new();
    snapshot.visit(bucket, |name, user| {
        let is_shared = user.devices().len() > 1;
        let mut placed = |message: &Message, at: usize| {
            waiting.push(Waiting { at, message: *message, is_shared });
        };
        encode_user(users, name, user, Some(&mut placed));
        // A section holds whole users, so one that has grown ends before the next of them.
        if users.len() - ends.last().copied().unwrap_or(0) >= USERS_SECTION_BYTES {
            ends.push(users.len());
        }
    });
    (ends, waiting)
}
