//! The bounds of a chat process.

use std::time::Duration;

use switchboard_api::limits;

/// Sends and receipts of one Route stream that are not answered. Beyond it the stream is not read,
/// and its gateway waits by HTTP/2 flow control.
pub(crate) const STREAM_ITEMS_MAX: usize = 8_192;
/// The same in bytes of bodies.
pub(crate) const STREAM_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Responses of one Route stream that wait for the transport.
pub(crate) const STREAM_RESPONSES_MAX: usize = 64;
/// Route streams at once; a gateway has a few.
pub(crate) const STREAMS_MAX: usize = 4_096;
/// Sends of one pair that go out together once those before them are resolved.
pub(crate) const PAIR_BATCH_ITEMS_MAX: usize = 256;
/// The same in bytes.
pub(crate) const PAIR_BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Items of several pairs are put into one call up to so many bytes.
pub(crate) const CALL_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Pairs of one stream that failed and of which the gateway does not know it yet.
pub(crate) const MARKS_MAX: usize = 4 * STREAM_ITEMS_MAX;

/// Items at the store at once, at least: a single call passes whatever the limit.
pub(crate) const STORE_ITEMS_MIN: usize = 64;
/// The same at most; the client's own bound lies above.
pub(crate) const STORE_ITEMS_MAX: usize = 16 * 1024;
/// What a process begins with.
pub(crate) const STORE_ITEMS_INITIAL: usize = 1_024;
/// How much time at least lies between two decisions about that limit.
pub(crate) const STORE_WINDOW: Duration = Duration::from_millis(50);
/// How long the store may take for an item before fewer go there at once (default), ms.
pub(crate) const STORE_LATENCY_MS: u64 = 100;

/// How long a receipt waits for another of the same message (default), ms.
pub(crate) const RECEIPT_MERGE_MS: u64 = 5;
/// The longest that may be set, ms.
pub(crate) const RECEIPT_MERGE_MS_MAX: u64 = 20;
/// As soon as so many receipts of a stream wait, they go out.
pub(crate) const RECEIPTS_GATHERED_MAX: usize = 512;

/// Pushes that wait for one gateway. Beyond it they are dropped: the gateway finds the messages by
/// reconciliation.
pub(crate) const GATEWAY_PUSHES_MAX: usize = 16 * 1024;
/// The same in bytes of bodies.
pub(crate) const GATEWAY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Pushes in one `DeliverRequest`.
pub(crate) const DELIVER_PUSHES_MAX: usize = 512;
/// Bytes of bodies in one `DeliverRequest`.
pub(crate) const DELIVER_BYTES_MAX: usize = 1024 * 1024;
/// `DeliverRequest`s to one gateway that are not answered; while there are as many, pushes gather.
pub(crate) const DELIVERS_UNDER_WAY_MAX: usize = 32;
/// Gateway incarnations that pushes are kept for.
pub(crate) const GATEWAYS_MAX: usize = 8_192;
/// How long pushes wait for a gateway that the watch has not shown yet.
pub(crate) const GATEWAY_UNKNOWN_MAX: Duration = Duration::from_secs(5);
/// For opening a connection or stream to a gateway.
pub(crate) const GATEWAY_CONNECT_MAX: Duration = Duration::from_secs(2);
/// How often an idle connection to a gateway is probed, and how long it may take to answer.
pub(crate) const GATEWAY_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The first wait before a failed stream to a gateway is opened again.
pub(crate) const BACKOFF_BASE: Duration = Duration::from_millis(20);
/// The longest.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// What a gateway is told to wait at first before it sends again.
pub(crate) const RETRY_AFTER_BASE: Duration = Duration::from_millis(30);
/// The longest it is told.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);

/// Devices that are looked up at once before they are woken up.
pub(crate) const LOOK_UP_DEVICES_MAX: usize = 256;
/// Wake-ups of a kind that wait for a request; more are dropped.
pub(crate) const WAKE_UPS_QUEUED_MAX: usize = 4_096;
/// Requests to the webhook under way, those that wait for another attempt included.
pub(crate) const REQUESTS_UNDER_WAY_MAX: usize = 16;
/// The same to push services.
pub(crate) const KNOCKS_UNDER_WAY_MAX: usize = 1_024;
/// Of these so many are attempted at once …
pub(crate) const KNOCKS_ATTEMPTED_MAX: usize = 16;
/// … and so many of one origin.
pub(crate) const KNOCKS_ATTEMPTED_OF_ORIGIN_MAX: usize = 4;
/// Wake-ups in one request to the webhook.
pub(crate) const WEBHOOK_WAKE_UPS_MAX: usize = 100;
/// Bytes of an answer that are read before its connection is given up.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Connections to a host that are kept for the next request.
pub(crate) const IDLE_REQUEST_CONNECTIONS_MAX: usize = 16;
/// The longest wait that a server's `Retry-After` gets.
pub(crate) const RETRY_AFTER_HEEDED_MAX: Duration = Duration::from_secs(60);
/// How long a push service keeps a wake-up for a browser that is off, seconds.
pub(crate) const WEB_PUSH_TTL_S: u32 = 24 * 3600;
/// For the wake-ups that wait at a shutdown.
pub(crate) const FINISH_MAX: Duration = Duration::from_secs(2);
/// Push services that a subscription may name (default): Google, Mozilla, Apple, Microsoft.
pub(crate) const WEB_PUSH_HOSTS: [&str; 4] =
    ["fcm.googleapis.com", "push.services.mozilla.com", "web.push.apple.com", "notify.windows.com"];
/// A device is woken up at most once in so long (default), ms.
pub(crate) const PUSH_INTERVAL_MS: u64 = 30_000;
/// Devices known to the notifier (default): some 100 bytes each.
pub(crate) const PUSH_DEVICES: usize = 100_000;
/// The most that may be set.
pub(crate) const PUSH_DEVICES_MAX: usize = 10_000_000;
/// Attempts of a request (default).
pub(crate) const PUSH_ATTEMPTS: u32 = 6;
/// For one attempt (default), ms.
pub(crate) const PUSH_TIMEOUT_MS: u64 = 10_000;
/// The first wait before another attempt (default), ms.
pub(crate) const PUSH_BACKOFF_MS: u64 = 500;
/// The longest (default), ms.
pub(crate) const PUSH_BACKOFF_MAX_MS: u64 = 30_000;

/// How long a shutdown waits for what is under way.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(15);
/// How often a gateway's connection is probed, and how long it may take to answer.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);

const _: () = assert!(STORE_ITEMS_MIN <= STORE_ITEMS_INITIAL);
const _: () = assert!(STORE_ITEMS_INITIAL <= STORE_ITEMS_MAX);
const _: () = assert!(RECEIPT_MERGE_MS <= RECEIPT_MERGE_MS_MAX);
const _: () = assert!(PAIR_BATCH_ITEMS_MAX <= limits::ITEMS_PER_BATCH_MAX);
const _: () = assert!(RECEIPTS_GATHERED_MAX <= limits::ITEMS_PER_BATCH_MAX);
// A pair's batch, its last item beyond the limit included, and what else is in the call fit.
const _: () = assert!(PAIR_BATCH_BYTES_MAX + limits::BODY_BYTES_MAX <= CALL_BYTES_MAX);
const _: () = assert!(
    CALL_BYTES_MAX + limits::ITEMS_PER_BATCH_MAX * limits::ENVELOPE_BYTES_MAX
        <= limits::REQUEST_BYTES_MAX
);
const _: () = assert!(LOOK_UP_DEVICES_MAX <= limits::ITEMS_PER_BATCH_MAX);
const _: () = assert!(LOOK_UP_DEVICES_MAX <= WAKE_UPS_QUEUED_MAX);
const _: () = assert!(KNOCKS_ATTEMPTED_OF_ORIGIN_MAX < KNOCKS_ATTEMPTED_MAX);
const _: () = assert!(KNOCKS_ATTEMPTED_MAX <= KNOCKS_UNDER_WAY_MAX);
const _: () = assert!(PUSH_DEVICES <= PUSH_DEVICES_MAX);
const _: () = assert!(PUSH_BACKOFF_MS <= PUSH_BACKOFF_MAX_MS);
const _: () = assert!(DELIVER_BYTES_MAX <= GATEWAY_BYTES_MAX);
const _: () = assert!(
    DELIVER_BYTES_MAX + limits::BODY_BYTES_MAX + DELIVER_PUSHES_MAX * limits::ENVELOPE_BYTES_MAX
        <= limits::REQUEST_BYTES_MAX
);
const _: () = assert!(limits::ROUTE_ITEMS_MAX <= STREAM_ITEMS_MAX);
