//! Every bound of the log, and the relations between them.

use crate::limits::ENTRY_BYTES_MAX;

/// Frames begin and end on this boundary, so that a synced block is never written again.
pub const BLOCK_BYTES: u64 = 4096;
/// Bytes of a segment by default.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// The smallest segment that options may ask for (tests do).
pub const SEGMENT_BYTES_MIN: u64 = 32 * 1024;
/// The largest: offsets within a segment take 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes of one frame, so of one write and sync, at most. A frame takes half a segment at most.
pub const FRAME_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of one record's payload at most. An entry takes a quarter of a segment at most.
pub const PAYLOAD_BYTES_MAX: usize = ENTRY_BYTES_MAX;
/// Bytes of a vote.
pub const VOTE_BYTES_MAX: usize = 256;
/// Groups that one log can hold; fewer if segments are small, see `groups_max`.
pub const GROUPS_MAX: usize = 8_192;
/// Bytes of one group in a segment header at most.
pub const GROUP_STATE_BYTES_MAX: usize =
    super::record::HEAD_BYTES + 1 + 2 + VOTE_BYTES_MAX + 4 * 16 + 8;
/// Silence after which a frame records what is durable, in milliseconds.
pub const SILENCE_MS: u64 = 10;
/// Bytes of payloads that are kept in memory after they were written, by default.
pub const RECENT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Entries that are kept in memory after they were written.
pub const RECENT_ENTRIES_MAX: usize = 64 * 1024;
/// Bytes that may wait to be written, by default. Beyond it the log refuses; callers bound what
/// they have under way far below it.
pub const QUEUE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Free bytes on the disk below which the log asks its callers to hold back, by default: half of it
/// is for segments of acks, votes and headers, the other half for one checkpoint.
pub const RESERVE_BYTES: u64 = 256 * 1024 * 1024;
/// Segments that nobody needs any more and that wait to be used again; more are removed.
pub const SPARES_MAX: usize = 2;
/// Zeros written between two syncs while a segment is prepared, so that the log's own syncs don't
/// wait behind a whole segment.
pub const FILL_BYTES: usize = 4 * 1024 * 1024;
/// Bytes read at once while the log is recovered.
pub const SCAN_BYTES: usize = 1024 * 1024;
/// Threads that check segments while a log is recovered.
pub const RECOVERY_THREADS_MAX: usize = 8;
/// Segments, beside one a thread, that may be checked and not yet applied while a log is recovered:
/// bounds the memory that takes, about a thirtieth of a segment of small entries each.
pub const RECOVERY_AHEAD_MAX: usize = 2;
/// Pause between two attempts to find space for a segment on a full disk, in milliseconds.
pub const FULL_RETRY_MS: u64 = 200;
/// Bytes of each write by which a log that is opened compares the ways to write.
pub const METHOD_TRIAL_BYTES: usize = 16 * 1024;
/// Such writes by each method, after one that doesn't count.
pub const METHOD_TRIALS: usize = 7;
/// The comparison ends early after so many milliseconds.
pub const METHOD_TRIAL_MS: u64 = 50;

const _: () = {
    assert!((METHOD_TRIAL_BYTES as u64).is_multiple_of(BLOCK_BYTES));
    assert!(BLOCK_BYTES == crate::fs::DIRECT_ALIGN_BYTES as u64);
    assert!(SEGMENT_BYTES.is_multiple_of(BLOCK_BYTES));
    assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES && SEGMENT_BYTES <= SEGMENT_BYTES_MAX);
    assert!(SEGMENT_BYTES_MAX <= u32::MAX as u64);
    assert!(FRAME_BYTES_MAX <= SEGMENT_BYTES / 2);
    // With default segments a full entry fits a frame, with room for its heads.
    assert!(PAYLOAD_BYTES_MAX as u64 + BLOCK_BYTES <= FRAME_BYTES_MAX);
    // The length of a payload shares 32 bits with its kind in the index.
    assert!(PAYLOAD_BYTES_MAX < 1 << 24);
    assert!(VOTE_BYTES_MAX <= u16::MAX as usize);
    // A header full of groups takes a quarter of a default segment at most.
    assert!((GROUPS_MAX * GROUP_STATE_BYTES_MAX) as u64 + BLOCK_BYTES <= SEGMENT_BYTES / 4);
    assert!(FILL_BYTES as u64 <= SEGMENT_BYTES);
};

/// Bytes of a frame at most in segments of `segment_bytes`.
pub(super) const fn frame_bytes_max(segment_bytes: u64) -> u64 {
    let half = segment_bytes / 2 / BLOCK_BYTES * BLOCK_BYTES;
    if half < FRAME_BYTES_MAX { half } else { FRAME_BYTES_MAX }
}

/// Bytes of an entry's payload at most in segments of `segment_bytes`.
pub(super) fn payload_bytes_max(segment_bytes: u64) -> usize {
    PAYLOAD_BYTES_MAX.min(usize::try_from(segment_bytes / 4).unwrap_or(usize::MAX))
}

/// Groups at most in segments of `segment_bytes`: their states take a quarter of it.
pub(super) fn groups_max(segment_bytes: u64) -> usize {
    let room = usize::try_from(segment_bytes / 4 - BLOCK_BYTES).unwrap_or(usize::MAX);
    GROUPS_MAX.min(room / GROUP_STATE_BYTES_MAX)
}
