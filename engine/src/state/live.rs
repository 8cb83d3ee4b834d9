//! How much of each old file still waits.

use std::collections::{BTreeMap, HashSet};

use foldhash::fast::FixedState;

use super::{Message, Place, User};
use crate::bodies::stored_bytes;

/// Bytes in which something waits, by number of the file. A file without any is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live {
    bytes: BTreeMap<u32, u64>,
}

impl Live {
    /// Counts a message's record where it lies.
    pub(crate) fn count(&mut self, place: Place, message: &Message) {
        if let Place::Old { file, .. } = place {
            *self.bytes.entry(file).or_default() += stored_bytes(message.record_len());
        }
    }

    /// Counts the records of all that waits for a user, each once: copies of a message for several of its
    /// devices may share one.
    pub(crate) fn count_user(&mut self, user: &User) {
        let mut seen = HashSet::<Place, FixedState>::default();
        let is_shared = user.devices().len() > 1;
        for message in user.devices().iter().flat_map(|device| device.mailbox.iter()) {
            if !is_shared || seen.insert(message.place()) {
                self.count(message.place(), message);
            }
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (file, bytes) in &other.bytes {
            *self.bytes.entry(*file).or_default() += bytes;
        }
    }

    pub(crate) fn has(&self, file: u32) -> bool {
        self.bytes.contains_key(&file)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u64)> {
        self.bytes.iter().map(|(file, bytes)| (*file, *bytes))
    }
}
