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

/// How long a shutdown waits for what is under way.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(15);
/// How often a gateway's connection is probed, and how long it may take to answer.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);

const _: () = assert!(RECEIPT_MERGE_MS <= RECEIPT_MERGE_MS_MAX);
const _: () = assert!(PAIR_BATCH_ITEMS_MAX <= limits::ITEMS_PER_BATCH_MAX);
const _: () = assert!(RECEIPTS_GATHERED_MAX <= limits::ITEMS_PER_BATCH_MAX);
// A pair's batch, its last item beyond the limit included, and what else is in the call fit.
const _: () = assert!(PAIR_BATCH_BYTES_MAX + limits::BODY_BYTES_MAX <= CALL_BYTES_MAX);
const _: () = assert!(
    CALL_BYTES_MAX + limits::ITEMS_PER_BATCH_MAX * limits::ENVELOPE_BYTES_MAX
        <= limits::REQUEST_BYTES_MAX
);
const _: () = assert!(DELIVER_BYTES_MAX <= GATEWAY_BYTES_MAX);
const _: () = assert!(
    DELIVER_BYTES_MAX + limits::BODY_BYTES_MAX + DELIVER_PUSHES_MAX * limits::ENVELOPE_BYTES_MAX
        <= limits::REQUEST_BYTES_MAX
);
const _: () = assert!(limits::ROUTE_ITEMS_MAX <= STREAM_ITEMS_MAX);
