//! The limits of the wire contract, each with its unit in its name.
//!
//! Those that an operator may change are the *defaults* here; the rest are fixed. Whoever reads a
//! request enforces them through [`crate::validate`]; nothing on the wire exceeds them.

/// A user id, bytes; at least 1.
pub const USER_BYTES_MAX: usize = 64;
/// A device number; 1 is the primary device, 0 means "all devices" and stands in sends only.
pub const DEVICE_MAX: u32 = 65_535;
/// A message id, bytes, exactly.
pub const MESSAGE_ID_BYTES: usize = 16;
/// The body of a message, bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// The token of a device's push service, bytes.
pub const PUSH_TOKEN_BYTES_MAX: usize = 512;
/// A bearer token in a device's `Hello`, bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// The name of a gateway or chat process, bytes of UTF-8; at least 1.
pub const NAME_BYTES_MAX: usize = 64;
/// An advertised `host:port`, bytes; at least 1.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// The reason an operator gives for a purge, bytes; at least 1.
pub const PURGE_REASON_BYTES_MAX: usize = 256;

/// How long a message waits when the sender does not say, and the most it may ask for, ms.
pub const TTL_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;
/// Messages in one mailbox (default).
pub const MAILBOX_MESSAGES_MAX: u64 = 10_000;
/// Bytes of bodies in one mailbox (default).
pub const MAILBOX_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Receipts have this share of a mailbox's limits more, of their own: one part in …
pub const MAILBOX_RECEIPTS_DIVISOR: u64 = 10;
/// Registered devices of one user, the primary included (default).
pub const DEVICES_PER_USER_MAX: usize = 16;

/// Items in one batch.
pub const ITEMS_PER_BATCH_MAX: usize = 1_024;
/// A request on the gRPC API, encoded, bytes.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a gRPC peer must be ready to decode, bytes: a full page and the envelope around it.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Seqs named one by one in an `Ack` item.
pub const ACK_SEQS_MAX: usize = 1_024;
/// Messages in a page when the caller does not say.
pub const FETCH_MESSAGES_DEFAULT: u32 = 64;
/// Messages in a page.
pub const FETCH_MESSAGES_MAX: u32 = 1_024;
/// Bytes of bodies in a page when the caller does not say.
pub const FETCH_BYTES_DEFAULT: u32 = 1024 * 1024;
/// Bytes of bodies in a page.
pub const FETCH_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// Users in one `Watch`.
pub const WATCH_USERS_MAX: usize = 1_024;
/// Message ids in one `Receipts` of a Route stream.
pub const RECEIPT_IDS_MAX: usize = 1_024;
/// Sends, and receipts, in one `RouteRequest`.
pub const ROUTE_ITEMS_MAX: usize = 1_024;

/// A frame of the device protocol without its length prefix, bytes.
pub const DEVICE_FRAME_BYTES_MAX: usize = 128 * 1024;
/// Message ids in one `Read` of a device.
pub const READ_IDS_MAX: usize = 256;
/// Unacknowledged deliveries on a connection when the device does not say.
pub const WINDOW_DEFAULT: u32 = 64;
/// Unacknowledged deliveries on a connection.
pub const WINDOW_MAX: u32 = 1_024;
/// From accepting a connection to its `Hello`, ms (default).
pub const HELLO_TIMEOUT_MS: u64 = 10_000;
/// Sends a second of one device, sustained (default).
pub const SENDS_PER_SECOND: u32 = 100;
/// Sends of one device at once (default).
pub const SENDS_BURST: u32 = 500;
/// Connections from one address; loopback has no limit (default).
pub const CONNECTIONS_PER_ADDRESS_MAX: u32 = 1_000;

/// The lease of a gateway or chat process, ms (default). It fences itself at two thirds.
pub const LEASE_MS: u64 = 10_000;
/// Below this a lease cannot be renewed in time over a slow network, ms.
pub const LEASE_MS_MIN: u64 = 1_000;
/// How long a message id is remembered, ms of log time (default).
pub const DEDUP_HORIZON_MS: u64 = 10 * 60 * 1000;
/// Message ids remembered a shard (default).
pub const DEDUP_IDS_PER_SHARD_MAX: u64 = 1_000_000;
/// Shards of a cluster (default); a power of two.
pub const SHARDS_DEFAULT: u32 = 16;
/// Shards of a cluster; a power of two.
pub const SHARDS_MAX: u32 = 4_096;

/// What a frame or an item needs beside its body: two references to devices, ids, tags, lengths.
pub const ENVELOPE_BYTES_MAX: usize = 1024;

// The largest body fits into a device frame, a request and a page.
const _: () = assert!(BODY_BYTES_MAX + ENVELOPE_BYTES_MAX <= DEVICE_FRAME_BYTES_MAX);
const _: () = assert!(DEVICE_FRAME_BYTES_MAX <= REQUEST_BYTES_MAX);
const _: () = assert!(BODY_BYTES_MAX <= FETCH_BYTES_DEFAULT as usize);
const _: () = assert!(FETCH_BYTES_DEFAULT <= FETCH_BYTES_MAX);
const _: () = assert!(FETCH_MESSAGES_DEFAULT <= FETCH_MESSAGES_MAX);
// A page with all its envelopes, and a request, can be decoded by the peer.
const _: () = assert!(
    FETCH_BYTES_MAX as usize + BODY_BYTES_MAX + FETCH_MESSAGES_MAX as usize * ENVELOPE_BYTES_MAX
        <= GRPC_MESSAGE_BYTES_MAX
);
const _: () = assert!(REQUEST_BYTES_MAX <= GRPC_MESSAGE_BYTES_MAX);
// The largest `Hello` and the largest `Read` are frames.
const _: () = assert!(
    TOKEN_BYTES_MAX + PUSH_TOKEN_BYTES_MAX + USER_BYTES_MAX + ENVELOPE_BYTES_MAX
        <= DEVICE_FRAME_BYTES_MAX
);
const _: () = assert!(READ_IDS_MAX * (MESSAGE_ID_BYTES + 2) <= DEVICE_FRAME_BYTES_MAX);
// One `Read` of a device is one `Receipts` of a Route stream.
const _: () = assert!(READ_IDS_MAX <= RECEIPT_IDS_MAX);
const _: () = assert!(ROUTE_ITEMS_MAX <= ITEMS_PER_BATCH_MAX);
const _: () = assert!(WINDOW_DEFAULT <= WINDOW_MAX && WINDOW_MAX <= FETCH_MESSAGES_MAX);
const _: () = assert!(SENDS_PER_SECOND <= SENDS_BURST);
// A mailbox holds at least one message of the largest size.
const _: () = assert!(BODY_BYTES_MAX as u64 <= MAILBOX_BYTES_MAX);
const _: () = assert!(MAILBOX_MESSAGES_MAX / MAILBOX_RECEIPTS_DIVISOR > 0);
const _: () = assert!(LEASE_MS_MIN <= LEASE_MS);
const _: () = assert!(SHARDS_DEFAULT.is_power_of_two() && SHARDS_MAX.is_power_of_two());
const _: () = assert!(SHARDS_DEFAULT <= SHARDS_MAX);
