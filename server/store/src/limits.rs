//! Bounds of the store's service, apart from those of the contract (`switchboard_api::limits`).

use std::time::Duration;

use switchboard_api::limits;

/// Requests of one stream that are under way at a time; reading stops beyond.
pub const STREAM_REQUESTS_MAX: usize = 256;
/// Answers that wait for a slow reader of a stream before its requests stop being read.
pub const STREAM_ANSWERS_MAX: usize = 64;
/// Session events kept for watchers that fall behind or resume.
pub const SESSION_EVENTS_MAX: usize = 64 * 1024;
/// Events sent to a watcher before others get a turn.
pub const WATCH_BATCH_MAX: usize = 256;
/// Items of one enqueue stream that are under way at a time; reading stops beyond, so that a stream
/// is slowed down rather than refused.
pub const STREAM_ITEMS_MAX: usize = 4 * limits::ITEMS_PER_BATCH_MAX;
/// Watches of sessions and lists that are open at a time.
pub const WATCHES_MAX: usize = 4_096;
/// Sessions that one sweep command removes: it is applied between other commands.
pub const SWEEP_SESSIONS_MAX: u32 = 500;
/// Pause between two sweep commands: sweeping only frees memory, and must not be felt.
pub const SWEEP_PAUSE: Duration = Duration::from_millis(20);
/// How often the leases are looked at.
pub const LEASE_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often a watched shard map is compared with the last one sent.
pub const SHARD_MAP_LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How often it is looked whether the log has failed.
pub const LOG_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often gauges are brought up to date.
pub const GAUGE_INTERVAL: Duration = Duration::from_secs(5);
/// What a retryable refusal suggests.
pub const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long calls may finish after a shutdown was asked for.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Logins a second that a node takes over all gateways, until it measures better.
pub const RECONNECT_BUDGET_PER_S: u32 = 12_000;
/// Streams of one HTTP/2 connection.
pub const HTTP2_STREAMS_MAX: u32 = 4_096;
/// How often a silent connection is asked whether its peer is still there.
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);
/// Flow-control window of a stream and of a connection, in bytes.
pub const HTTP2_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

const _: () = assert!(limits::REQUEST_BYTES_MAX < limits::GRPC_MESSAGE_BYTES_MAX);
const _: () = assert!(HTTP2_WINDOW_BYTES as usize >= limits::REQUEST_BYTES_MAX);
const _: () = assert!(LEASE_LOOK_INTERVAL.as_millis() * 4 <= limits::LEASE_MS_MIN as u128);
