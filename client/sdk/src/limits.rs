//! The bounds of the SDK. Callers that exceed one are told; nothing waits without a bound.

use std::time::Duration;

use switchboard_api::limits;

/// Items handed to one lane (one kind of stream to one node) that are not answered yet. Beyond it
/// items are answered OVERLOADED at once.
pub(crate) const LANE_ITEMS_MAX: usize = 32 * 1024;
/// The same in bytes.
pub(crate) const LANE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Stream messages of one lane that are not answered yet. While there are as many, callers' items
/// gather and go out together.
pub(crate) const MESSAGES_UNDER_WAY_MAX: usize = 64;
/// Items of several callers are put into one stream message up to so many bytes. The items of one
/// call are never torn apart.
pub(crate) const COALESCED_BYTES_MAX: usize = 1024 * 1024;
/// What an item is counted as beside its variable parts, bytes.
pub(crate) const ITEM_OVERHEAD_BYTES: usize = 96;

/// Store addresses to start from.
pub(crate) const SEEDS_MAX: usize = 64;
/// The share of a call's deadline after which a node that has not answered is given up.
pub(crate) const ATTEMPTS_PER_DEADLINE: u32 = 5;
/// However short the deadline is: a node that takes less is not taken for silent.
pub(crate) const ATTEMPT_MIN: Duration = Duration::from_secs(1);
/// Retries in a row that the budget pays for when it is full.
pub(crate) const RETRY_TOKENS_MAX: u32 = 100;
/// Successful calls that earn one retry.
pub(crate) const RETRY_SUCCESSES_PER_TOKEN: u32 = 10;

/// The longest pause before unanswered items of an enqueue are sent again: a shard has a new leader
/// after some hundreds of milliseconds.
pub(crate) const RESEND_PAUSE_MAX: Duration = Duration::from_millis(200);

/// How often a lane looks for answers that are overdue.
pub(crate) const STALL_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a node that could not be reached is avoided while there are others.
pub(crate) const NODE_AVOIDED_FOR: Duration = Duration::from_millis(1000);
/// Events of a session watch that wait for the caller; the stream's flow control does the rest.
pub(crate) const WATCH_EVENTS_MAX: usize = 64;
/// How long a process that ends tries to tell the store. Its lease runs out by itself, and whoever
/// stops the process waits for it.
pub(crate) const DEREGISTER_MAX: Duration = Duration::from_secs(3);
/// KeepAlive requests sent and not answered yet.
pub(crate) const KEEP_ALIVES_UNDER_WAY_MAX: usize = 32;

// A single call fits into a lane, and so do many.
const _: () = assert!(LANE_ITEMS_MAX >= 4 * limits::ITEMS_PER_BATCH_MAX);
const _: () = assert!(LANE_BYTES_MAX >= 4 * limits::REQUEST_BYTES_MAX);
const _: () = assert!(COALESCED_BYTES_MAX <= limits::REQUEST_BYTES_MAX);
