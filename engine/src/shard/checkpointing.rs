//! Taking a checkpoint: bodies that still wait, then the state, then the mark in the log.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
};

use foldhash::fast::FixedState;

use super::{CheckpointError, Shard};
use crate::{
    CheckpointMeta, LogId,
    bodies::stored_bytes,
    limits::{OLD_FILE_SMALL_BYTES, OLD_FILES_SMALL_MAX},
    log::Record,
    state::{Image, Message, Place},
};

/// Where records have gone, by seq. The messages of a send to several devices have one seq, one record
/// and one new place.
type Moved = HashMap<u64, Place, FixedState>;

impl Shard {
    /// Makes the state as of the last entry applied durable outside the log; returns where it stands.
    /// Blocks; `apply` and reads go on.
    ///
    /// # Errors
    /// See [`CheckpointError`]. The checkpoint before stays in force, and what was written is removed
    /// by a later one.
    pub fn checkpoint(&self) -> Result<LogId, CheckpointError> {
        let _one_at_a_time = self.writing.lock();
        let image = self.image();
        let at = image.header.applied.ok_or(CheckpointError::Empty)?;
        if let Some(done) = self.checkpoint_meta().filter(|done| done.at >= at) {
            return Ok(done.at);
        }
        let moved = self.move_bodies(&image)?;
        let now_ms = image.header.log_time_ms;
        let place_of = |message: &Message| match moved.get(&message.seq) {
            Some(place) => *place,
            None if message.is_expired(now_ms) => Place::Gone,
            None => message.place(),
        };
        let written = self.checkpoints.write(&image, at.index, &place_of);
        written.map_err(CheckpointError::Write)?;
        self.log.append_wait(vec![Record::Checkpoint { group: self.group, at }])?;
        let live = files_of(&image, &place_of);
        let membership = image.header.membership.clone();
        // From here on a change to a bucket copies nothing.
        drop(image);
        self.state().relocate(|message| moved.get(&message.seq).copied());
        *self.checkpoint.write() = Some(CheckpointMeta { at, membership });
        self.checkpoints.remove_below(at.index).map_err(CheckpointError::Write)?;
        self.old.retain(&live)?;
        if self.options.purge_after_checkpoint {
            self.log.append_wait(vec![Record::Purge { group: self.group, upto: at }])?;
        }
        Ok(at)
    }

    /// Copies what is young, or lies in a file worth rewriting, to new old files.
    fn move_bodies(&self, image: &Image) -> Result<Moved, CheckpointError> {
        let now_ms = image.header.log_time_ms;
        let rewritten = self.files_to_rewrite(image)?;
        let mut mover = self.old.mover();
        let mut moved = Moved::default();
        for message in messages(image).filter(|m| !m.is_expired(now_ms)) {
            let stays = match message.place() {
                Place::Young { .. } => false,
                Place::Old { file, .. } => !rewritten.contains(&file),
                Place::Gone => true,
            };
            if stays || moved.contains_key(&message.seq) {
                continue;
            }
            let pin = self.pin(message)?;
            let record = self.record(message, &pin)?;
            moved.insert(message.seq, mover.push(message.expires_at_ms, &record, message.crc)?);
        }
        mover.finish()?;
        Ok(moved)
    }

    /// Old files of which less than half is live, and small ones once there are many.
    fn files_to_rewrite(&self, image: &Image) -> Result<BTreeSet<u32>, CheckpointError> {
        let now_ms = image.header.log_time_ms;
        let mut live = BTreeMap::<u32, u64>::new();
        let mut counted = BTreeSet::new();
        for message in messages(image).filter(|m| !m.is_expired(now_ms)) {
            if let Place::Old { file, offset } = message.place()
                && counted.insert((file, offset))
            {
                *live.entry(file).or_default() += stored_bytes(message.record_len());
            }
        }
        let sizes = self.old.sizes()?;
        let small = sizes.values().filter(|size| **size < OLD_FILE_SMALL_BYTES).count();
        let is_worth_it = |(file, live): (&u32, &u64)| {
            let size = sizes.get(file).copied().unwrap_or(0);
            let gathers = small > OLD_FILES_SMALL_MAX && size < OLD_FILE_SMALL_BYTES;
            (gathers || live.saturating_mul(2) < size).then_some(*file)
        };
        Ok(live.iter().filter_map(is_worth_it).collect())
    }

    /// Removes files that the newest checkpoint does not name.
    pub(super) fn remove_unused(&self, newest: Option<u64>) -> io::Result<()> {
        self.checkpoints.remove_below(newest.unwrap_or(0))?;
        let live = files_of(&self.image(), &Message::place);
        self.old.retain(&live).map_err(io::Error::other)
    }
}

/// Every message of every device.
fn messages(image: &Image) -> impl Iterator<Item = &Message> {
    let users = image.buckets.iter().flat_map(|bucket| bucket.iter());
    let devices = users.flat_map(|(_, user)| user.devices());
    devices.flat_map(|device| device.mailbox.iter())
}

/// The old files in which messages lie.
fn files_of(image: &Image, place_of: &dyn Fn(&Message) -> Place) -> BTreeSet<u32> {
    let file = |message: &Message| match place_of(message) {
        Place::Old { file, .. } => Some(file),
        Place::Young { .. } | Place::Gone => None,
    };
    messages(image).filter_map(file).collect()
}
