//! Every bound of this crate in one place, with the relations between them asserted.
//!
//! Units come last in each name. Bounds that an operator may change have their default here and
//! their field in [`crate::NodeOptions`].

use std::time::Duration;

pub use switchboard_engine::limits::{ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, SHARDS_MAX};

/// Commands that wait for a shard's proposer (configurable). Beyond it a caller is told to wait.
pub const WAITING_ITEMS_MAX: usize = 8_192;
/// Bytes of the commands that wait for a shard's proposer (configurable).
pub const WAITING_BYTES_MAX: usize = 32 << 20;
/// What a command is counted with beside its user and body: the queue's own memory for it.
pub const COMMAND_OVERHEAD_BYTES: usize = 64;

/// The shortest and the longest time that an overloaded caller is told to wait.
pub const OVERLOADED_RETRY_MIN: Duration = Duration::from_millis(5);
/// See [`OVERLOADED_RETRY_MIN`].
pub const OVERLOADED_RETRY_MAX: Duration = Duration::from_millis(1_000);

/// How long a proposal that a fresh leader refuses (its lease is not confirmed yet) is tried again
/// inside, before the caller learns of it. A leader without a quorum for this long is none.
pub const LEASE_WAIT_MAX: Duration = Duration::from_secs(2);
/// Pause between two tries of such a proposal: a heartbeat's answer takes about as long.
pub const LEASE_RETRY_PAUSE: Duration = Duration::from_millis(2);

/// How long an entry may wait for its commit before its callers are told that its outcome is unknown: the quorum
/// has gone, or its disks stand still. Less than callers wait for an answer.
pub const COMMIT_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often, from then on until the entry has an end, those who came after it are refused.
pub const STANDSTILL_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of entries in one append message to a follower.
pub const APPEND_BYTES_MAX: usize = 2 << 20;
/// Bytes of entries that are read from the log at once to be applied.
pub const APPLY_READ_BYTES_MAX: usize = 4 << 20;
/// Entries in one append message; the byte bound is reached first but for tiny entries.
pub const APPEND_ENTRIES_MAX: u64 = 1_024;
/// Append messages to one follower that are under way at once, for each group.
pub const APPENDS_IN_FLIGHT_MAX: usize = 4;
/// How long news of a commit may wait for an append with entries that it can travel with.
pub const COMMIT_NEWS_WAIT: Duration = Duration::from_millis(2);

/// Applied entries that a watcher may fall behind before it is told that it lagged.
pub const APPLIED_EVENTS_MAX: usize = 1_024;

/// Bytes of log that a group keeps before it is checkpointed (configurable).
pub const CHECKPOINT_BYTES: u64 = 64 << 20;
/// Bytes of log on the whole node, beyond which the group that pins the oldest segment is
/// checkpointed even if it wrote little itself (configurable).
pub const LOG_BYTES_MAX: u64 = 1 << 30;
/// How often the checkpointer looks at the sizes.
pub const CHECKPOINT_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long openraft may take to note a checkpoint before it is told again at the next one.
pub const CHECKPOINT_NOTE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Bytes of a log segment at least: an entry takes a quarter of one at most.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 20;
/// How often the free space of the disk is looked at. The log's reserve must last between two
/// looks at the fastest disk.
pub const DISK_LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How often it is looked whether a group has stopped by an error.
pub const FAILURE_LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How often a leader looks whether something is due, which is also the shortest time between two
/// ticks that it proposes for one group.
pub const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// How far log time may run ahead of the monotonic time passed since the last stamp.
pub const CLOCK_JUMP_MAX_MS: u64 = 500;
/// By what part of the time that passed a clock that is right may be ahead of it: one in so many. Oscillators are
/// off by up to 1 in 10,000, and NTP makes a clock run faster by 1 in 2,000 at most.
pub const CLOCK_DRIFT_MAX_PART: u64 = 1_000;
/// For how long stamps must keep to the pace of monotonic time before that says that they are of now.
pub const PACE_HEARD_MIN_MS: u64 = 10 * CLOCK_JUMP_MAX_MS;

/// How often a node asks the others for their clocks.
pub const CLOCK_EXCHANGE_INTERVAL: Duration = Duration::from_secs(1);
/// The same while fewer than a majority of the clocks are known, or the node has no peers yet.
pub const CLOCK_EXCHANGE_RETRY: Duration = Duration::from_millis(100);
/// How long it waits for an answer. Half of it is how wrong a reading can be.
pub const CLOCK_ANSWER_WAIT_MAX: Duration = Duration::from_millis(400);
/// A reading older than this says nothing any more: clocks are set while nobody looks.
pub const CLOCK_READING_AGE_MAX: Duration = Duration::from_secs(10);

/// How long a starting or initializing node waits for its own one-voter groups to elect it.
pub const SOLE_LEADER_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long the making of a cluster waits for its members to answer and to catch up.
pub const FOUND_WAIT_MAX: Duration = Duration::from_secs(60);
/// Pause before a change of members is tried again that another one is in the way of.
pub const CHANGE_RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How long a hand-over of leadership may take before it counts as refused.
pub const TRANSFER_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether a hand-over is through.
pub const TRANSFER_LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How long a change of members may wait for the majority that confirms it.
pub const MEMBERSHIP_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a leader waits for the word of a replica that it may vote.
pub const IS_NEW_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a node waits for the word that its replica may be forgotten.
pub const MAY_FORGET_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether a replica that the placement does not name can be dropped.
pub const PLACEMENT_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often a leader looks whether a member of its group has lost its disk.
pub const READMIT_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often a node looks whether it leads what another should.
pub const BALANCE_INTERVAL: Duration = Duration::from_secs(5);
/// How many entries a replica may lack to be handed leadership: what is under way. Its group takes nothing until
/// it has them, and under load as many as 64 were half a second.
pub const BALANCE_ENTRIES_BEHIND_MAX: u64 = 4;

/// Bytes of a snapshot file that are handed to the file system at once.
pub const SNAPSHOT_BUFFER_BYTES: usize = 256 << 10;

const _: () = assert!(APPEND_BYTES_MAX >= ENTRY_BYTES_MAX, "one entry fits one message");
const _: () = assert!(APPLY_READ_BYTES_MAX >= ENTRY_BYTES_MAX, "one entry fits one read");
const _: () = assert!(WAITING_BYTES_MAX >= ENTRY_BYTES_MAX, "a full entry can be gathered");
const _: () = assert!(LOG_BYTES_MAX >= CHECKPOINT_BYTES, "one group fits the node's log");
const _: () = assert!(CLOCK_ANSWER_WAIT_MAX.as_millis() as u64 / 2 < CLOCK_JUMP_MAX_MS);
const _: () = assert!(CLOCK_READING_AGE_MAX.as_millis() > 4 * CLOCK_EXCHANGE_INTERVAL.as_millis());
const _: () = assert!(SEGMENT_BYTES_MIN as usize >= 4 * ENTRY_BYTES_MAX);
