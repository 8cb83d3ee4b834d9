//! Figures about a log, for metrics and for whoever decides about checkpoints and admission.

use std::sync::atomic::Ordering;

use super::shared::Shared;
use crate::GroupId;

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpaceLevel {
    /// Enough.
    Ample,
    /// Less than the reserve is free: new messages and sessions should be refused now, so that
    /// acks, votes and a checkpoint still find room.
    Reserve,
    /// Not even another segment can be made: entries are refused once the last one is almost full.
    Full,
}

/// Free space on the disk of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes free on the disk.
    pub free_bytes: u64,
    /// Bytes of them that are for what frees space.
    pub reserve_bytes: u64,
    /// What that means.
    pub level: SpaceLevel,
}

impl Space {
    /// Whether so many bytes can be written and the reserve is left.
    #[must_use]
    pub fn has_room_for(&self, bytes: u64) -> bool {
        self.level == SpaceLevel::Ample
            && self.free_bytes >= self.reserve_bytes.saturating_add(bytes)
    }
}

/// The oldest segment that is needed, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldestSegment {
    /// Its sequence.
    pub segment: u64,
    /// The groups that have entries in it; a checkpoint and a purge of each would free it.
    pub groups: Vec<GroupId>,
}

/// Figures about a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStats {
    /// Segments with a header, the active one included.
    pub segments: usize,
    /// Bytes of their files.
    pub bytes_total: u64,
    /// Segments that nobody needs, or that somebody still reads.
    pub retired: usize,
    /// The oldest segment in which an entry stands.
    pub oldest: Option<OldestSegment>,
    /// Sequence of the newest segment.
    pub newest: u64,
    /// Records (by the append) that wait to be written.
    pub queued_appends: usize,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Bytes of payloads in memory.
    pub recent_bytes: usize,
    /// Frames written since the log was opened; each is one write and one sync.
    pub frames: u64,
    /// Bytes of them.
    pub frame_bytes: u64,
    /// Records in them.
    pub records: u64,
    /// Frames are written past the page cache.
    pub writes_direct: bool,
    /// Segments begun since the log was opened.
    pub segments_opened: u64,
    /// Free space.
    pub space: Space,
    /// The log is closed, for good until it is opened again.
    pub closed: bool,
    /// The newest segment's file had been cut to this size, by no crash, when the log was opened:
    /// what stood behind is gone, be it durable or not.
    pub cut_at_open: Option<u64>,
}

pub(super) fn space(shared: &Shared) -> Space {
    let free_bytes = shared.files.space_free(&shared.dir).unwrap_or(0);
    let reserve_bytes = shared.options.reserve_bytes;
    let queue = shared.queue.lock();
    let level = if queue.disk_full.is_some() && !queue.next_ready {
        SpaceLevel::Full
    } else if free_bytes < reserve_bytes {
        SpaceLevel::Reserve
    } else {
        SpaceLevel::Ample
    };
    Space { free_bytes, reserve_bytes, level }
}

pub(super) fn stats(shared: &Shared) -> LogStats {
    let space = space(shared);
    let counters = &shared.counters;
    let index = shared.index.read();
    let queue = shared.queue.lock();
    LogStats {
        segments: index.segments.len(),
        bytes_total: index.segments.values().map(|segment| segment.file.bytes).sum(),
        retired: shared.keeper.retired_len(),
        oldest: index.oldest_pins().map(|(segment, groups)| OldestSegment { segment, groups }),
        newest: index.segments.keys().next_back().copied().unwrap_or(0),
        queued_appends: queue.items(),
        queued_bytes: queue.bytes(),
        recent_bytes: index.recent_bytes(),
        frames: counters.frames.load(Ordering::Relaxed),
        frame_bytes: counters.frame_bytes.load(Ordering::Relaxed),
        records: counters.records.load(Ordering::Relaxed),
        writes_direct: shared.writes_direct,
        segments_opened: counters.segments_opened.load(Ordering::Relaxed),
        space,
        closed: queue.closed.is_some(),
        cut_at_open: shared.cut_at_open,
    }
}
