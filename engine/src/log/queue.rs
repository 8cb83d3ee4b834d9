//! What waits to be written, in the order it was appended.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::error::AppendError;
use super::frame::{FRAME_HEAD_BYTES, frame_bytes};
use super::record::{Change, HEAD_BYTES};
use crate::GroupId;

/// Called once, when the records are durable or can't be any more. On the writer's thread, so it
/// must not block.
pub type Done = Box<dyn FnOnce(Result<(), AppendError>) + Send>;

/// A record ready to be written.
pub(super) struct Queued {
    pub(super) group: GroupId,
    pub(super) life: u32,
    pub(super) change: Change,
    pub(super) head: [u8; HEAD_BYTES],
    pub(super) payload: Bytes,
    /// The number of the entry in the index, else 0.
    pub(super) number: u64,
}

impl Queued {
    pub(super) fn bytes(&self) -> u64 {
        (HEAD_BYTES + self.payload.len()) as u64
    }

    /// Whether both are entries of one group, life and term, the second next to the first and
    /// appended right after it.
    pub(super) fn is_followed_by(&self, next: &Queued) -> bool {
        let (Change::Entry { id, .. }, Change::Entry { id: after, .. }) =
            (&self.change, &next.change)
        else {
            return false;
        };
        (self.group, self.life, id.term) == (next.group, next.life, after.term)
            && id.index.checked_add(1) == Some(after.index)
            && self.number + 1 == next.number
    }
}

/// Records that share a completion and a frame.
pub(super) struct Item {
    pub(super) records: Vec<Queued>,
    pub(super) done: Option<Done>,
    /// Asks for a frame after this that records it as durable.
    pub(super) flush: bool,
}

impl Item {
    pub(super) fn bytes(&self) -> u64 {
        self.records.iter().map(Queued::bytes).sum()
    }
}

#[derive(Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    /// Bytes of records in `items`.
    bytes: u64,
    /// The newest lazy record of each group.
    lazy: BTreeMap<GroupId, Queued>,
    /// Bytes that the active segment still takes.
    pub(super) active_left: u64,
    /// Whether the next segment is ready; without it `active_left` is all there is.
    pub(super) next_ready: bool,
    /// Set when the disk had no space for the next segment: the bytes that were free.
    pub(super) disk_full: Option<u64>,
    /// Why nothing is taken any more.
    pub(super) closed: Option<AppendError>,
    /// The last handle is gone: the writer ends when all is written.
    pub(super) stopping: bool,
    /// No frame says yet that the last one is durable.
    pub(super) is_unrecorded: bool,
    /// Frames that hold records, so far: tells a silence.
    pub(super) commits: u64,
    /// The writer's thread sleeps until it is woken.
    pub(super) is_resting: bool,
}

/// What the writer finds.
pub(super) enum Taken {
    Nothing,
    /// The first item does not fit into the active segment.
    NoRoom,
    Batch(Vec<Item>),
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn items(&self) -> usize {
        self.items.len()
    }

    pub(super) fn push(&mut self, item: Item) {
        self.bytes += item.bytes();
        self.items.push_back(item);
    }

    pub(super) fn push_lazy(&mut self, record: Queued) {
        self.lazy.insert(record.group, record);
    }

    /// A dropped group's lazy record belongs to a life that is over.
    pub(super) fn forget_lazy(&mut self, group: GroupId) {
        self.lazy.remove(&group);
    }

    /// Takes the items that fit into one frame of at most `bytes_max`, and the lazy records if that
    /// is all that waits: they may speak of entries that are in the queue.
    pub(super) fn take(&mut self, bytes_max: u64) -> Taken {
        if self.items.is_empty() {
            return Taken::Nothing;
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(item) = self.items.front() {
            let with_it = bytes + item.bytes();
            // What has no records needs no frame, so it never waits for room.
            if with_it > 0 && frame_bytes(with_it) > bytes_max {
                break;
            }
            bytes = with_it;
            batch.extend(self.items.pop_front());
        }
        if batch.is_empty() {
            return Taken::NoRoom;
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        let left = bytes_max.saturating_sub(FRAME_HEAD_BYTES as u64 + bytes);
        if let Some(item) = self.take_lazy(left) {
            batch.push(item);
        }
        Taken::Batch(batch)
    }

    /// Takes the lazy records if nothing else waits and they fit into `bytes_max`.
    pub(super) fn take_lazy(&mut self, bytes_max: u64) -> Option<Item> {
        let bytes: u64 = self.lazy.values().map(Queued::bytes).sum();
        if !self.items.is_empty() || self.lazy.is_empty() || bytes > bytes_max {
            return None;
        }
        let records = std::mem::take(&mut self.lazy).into_values().collect();
        Some(Item { records, done: None, flush: false })
    }

    /// Empties the queue for good.
    pub(super) fn close(&mut self, why: AppendError) -> VecDeque<Item> {
        self.closed.get_or_insert(why);
        self.lazy.clear();
        self.bytes = 0;
        std::mem::take(&mut self.items)
    }
}
