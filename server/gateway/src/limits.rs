//! Every bound of this crate in one place. Those of the contract are in `switchboard_api::limits`.

use std::time::Duration;

use switchboard_api::limits as wire;

/// Bytes queued for a device beyond which nothing is fetched, pushed or read for it.
pub(crate) const WRITE_QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Bytes asked of a socket in one read.
pub(crate) const READ_CHUNK_BYTES: usize = 16 * 1024;
/// Frames taken from a device before what they cause is done.
pub(crate) const FRAMES_A_TURN_MAX: usize = 64;
/// Events that wait for a connection's task, pushes only; a push beyond it is fetched later.
pub(crate) const PUSHES_WAITING_MAX: usize = 128;

/// Messages of a page; the window narrows it further.
pub(crate) const PAGE_MESSAGES_MAX: usize = 256;
/// Bytes of a page.
pub(crate) const PAGE_BYTES_MAX: usize = 256 * 1024;
/// Seqs that a device acknowledged before they were delivered on this connection.
pub(crate) const AHEAD_SEQS_MAX: usize = wire::ACK_SEQS_MAX;
/// Acknowledged by the device and not yet removed at the store, a connection. Nothing is delivered
/// beyond it.
pub(crate) const SETTLING_MAX: usize = 2_048;
/// The first and longest pause before an unacknowledged message is sent again.
pub(crate) const RESEND_MIN: Duration = Duration::from_secs(10);
/// See [`RESEND_MIN`].
pub(crate) const RESEND_MAX: Duration = Duration::from_secs(300);
/// The first and longest pause before a request to the store or a chat is repeated.
pub(crate) const RETRY_MIN: Duration = Duration::from_millis(20);
/// See [`RETRY_MIN`].
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(1);

/// Sends of a connection that are not answered yet, and their bytes.
pub(crate) const SENDS_PENDING_MAX: usize = 512;
/// The same while chats have no room for any.
pub(crate) const SENDS_PENDING_OVERLOADED: usize = 16;
/// See [`SENDS_PENDING_MAX`].
pub(crate) const SEND_BYTES_PENDING_MAX: usize = 2 * 1024 * 1024;
/// How long sends are tried before the device is told to try again itself.
pub(crate) const SEND_TRIED_MAX: Duration = Duration::from_secs(10);
/// What the device is told to wait then, at least.
pub(crate) const SEND_RETRY_AFTER: Duration = Duration::from_secs(1);
/// The longest it is told, once chats have had no room for as long.
pub(crate) const SEND_RETRY_AFTER_MAX: Duration = Duration::from_secs(6);
/// What it is told to wait with a send that must follow one which it may repeat now.
pub(crate) const SEND_FOLLOWS_AFTER: Duration = Duration::from_millis(200);
/// How long after its time a refused send is waited for before the connection is ended.
pub(crate) const REFUSED_GRACE: Duration = Duration::from_secs(30);
/// Recipients a send to whom was refused and is waited for, a connection.
pub(crate) const GATES_MAX: usize = 1_024;
/// Sends of a connection that are remembered as durable for the sake of repeats under way.
pub(crate) const DURABLE_KNOWN_MAX: usize = SENDS_PENDING_MAX;
/// Read receipts of a connection under way, in batches.
pub(crate) const READS_PENDING_MAX: usize = 64;

/// Claims, releases and acks are gathered over all connections until there are this many …
pub(crate) const BATCH_ITEMS_MAX: usize = 512;
/// … or this much time has passed.
pub(crate) const BATCH_WAIT: Duration = Duration::from_millis(2);
/// Items that wait to be gathered.
pub(crate) const BATCH_QUEUE_MAX: usize = 16_384;
/// Batches of a kind under way.
pub(crate) const BATCHES_UNDER_WAY_MAX: usize = 16;
/// How often sessions are released that the store cannot take, and the pause in between.
pub(crate) const RELEASE_ATTEMPTS_MAX: u32 = 4;
/// See [`RELEASE_ATTEMPTS_MAX`].
pub(crate) const RELEASE_PAUSE: Duration = Duration::from_millis(500);
/// Fetches under way over all connections.
pub(crate) const FETCHES_UNDER_WAY_MAX: usize = 256;

/// Batches of sends and of receipts that wait for a Route stream.
pub(crate) const ROUTE_QUEUE_MAX: usize = 16_384;
/// Items of one Route request.
pub(crate) const ROUTE_ITEMS_MAX: usize = 512;
/// Bytes of bodies in one Route request of several batches.
pub(crate) const ROUTE_BYTES_MAX: usize = 1024 * 1024;
/// Route requests handed to the transport and not yet sent.
pub(crate) const ROUTE_REQUESTS_MAX: usize = 8;
/// A Route stream that owes an answer for so long is given up.
pub(crate) const ROUTE_STALL_MAX: Duration = Duration::from_secs(15);
/// For making a connection to a chat or a gateway.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a silent process that called is probed, and how long it may take to answer.
pub(crate) const CALLER_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long a process that was called may be silent before it is probed.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long it may take to answer that: meanwhile sends wait that another chat could take.
pub(crate) const PROBE_WAIT_MAX: Duration = Duration::from_secs(2);

/// Notices to other gateways that wait to be sent; more are dropped, since fencing needs none.
pub(crate) const NOTICES_WAITING_MAX: usize = 8_192;
/// Notices in one request.
pub(crate) const NOTICES_BATCH_MAX: usize = 1_024;
/// For one request with notices.
pub(crate) const NOTICE_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers that wait to be sent on one Deliver stream.
pub(crate) const DELIVER_ANSWERS_MAX: usize = 16;

/// After a chat's stream broke, mailboxes are compared this soon and once more this much later.
pub(crate) const RECONCILE_SOON: Duration = Duration::from_millis(100);
/// See [`RECONCILE_SOON`].
pub(crate) const RECONCILE_AGAIN: Duration = Duration::from_secs(1);

/// How long a connection whose session was found replaced waits to be told by whom; its device is to come again if
/// nobody says so.
pub(crate) const FENCED_WAIT: Duration = Duration::from_secs(1);
/// A connection that says nothing for this many keepalives, in tenths, is closed.
pub(crate) const SILENCE_IN_TENTHS_OF_KEEPALIVE: u32 = 25;
/// A device that has taken fewer bytes than these by the end of `write_stall_ms`, while more wait
/// for it, is cut.
pub(crate) const TAKEN_BYTES_MIN: u32 = 4 * 1024;
/// How long a closing connection may take to write its last frames.
pub(crate) const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// How long a closed connection may take to have its acknowledgements applied.
pub(crate) const SETTLE_MAX: Duration = Duration::from_secs(2);
/// Bytes read and thrown away from a device that is being closed, so that its last frames arrive.
pub(crate) const FAREWELL_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of data in one TLS record; the standard allows no more.
pub(crate) const TLS_RECORD_BYTES: usize = 16 * 1024;
/// Bytes that a device may have on the way to us by QUIC and we have not read.
pub(crate) const QUIC_RECEIVE_WINDOW: u32 = 256 * 1024;
/// Bytes that QUIC holds for a device until it has them, besides [`WRITE_QUEUE_BYTES_MAX`].
pub(crate) const QUIC_SEND_WINDOW: u64 = 128 * 1024;
/// A QUIC connection on which nothing at all is heard for so long is gone. A device that says
/// nothing of its own ends sooner, by its keepalive; this is for what is left then.
pub(crate) const QUIC_IDLE_MAX: Duration = Duration::from_secs(120);
/// Logins taken at once above the budget: so much time's worth of it.
pub(crate) const ADMISSION_BURST: Duration = Duration::from_millis(250);
/// The longest that a device beyond the budget is told to wait.
pub(crate) const ADMISSION_WAIT_MAX: Duration = Duration::from_secs(30);
/// Logins a second while the store has named no budget.
pub(crate) const LOGINS_PER_SECOND_UNTOLD: u32 = 2_000;
/// What a device is told to wait when the store cannot be reached.
pub(crate) const UNAVAILABLE_RETRY_AFTER: Duration = Duration::from_millis(500);
/// Devices sent away at once are told to come back over this long, and longer if they are many.
pub(crate) const SPREAD_MIN: Duration = Duration::from_millis(500);
/// Logins a second assumed of the other gateways when devices are sent away.
pub(crate) const SPREAD_LOGINS_PER_SECOND: u64 = 2_000;
/// Devices that a drain sends away a second, if it is not told.
pub(crate) const DRAIN_RATE_DEFAULT: u32 = 1_000;
/// The same at most.
pub(crate) const DRAIN_RATE_MAX: u32 = 100_000;
/// How often a drain sends devices away, and tells how far it is.
pub(crate) const DRAIN_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Devices that a drain sends away are told to come back within so long, ms: it is paced itself.
pub(crate) const DRAIN_SPREAD_MS: u64 = 200;
/// For the whole of a graceful shutdown.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(8);
/// After a failed accept, such as for too many open files.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const _: () = {
    // A page of one message always fits the queue of an empty connection.
    assert!(WRITE_QUEUE_BYTES_MAX >= wire::DEVICE_FRAME_BYTES_MAX);
    assert!(wire::BODY_BYTES_MAX < wire::DEVICE_FRAME_BYTES_MAX);
    // The largest frame can be on its way at once.
    assert!(QUIC_RECEIVE_WINDOW as usize > wire::DEVICE_FRAME_BYTES_MAX);
    assert!(PAGE_MESSAGES_MAX <= wire::FETCH_MESSAGES_MAX as usize);
    assert!(PAGE_BYTES_MAX <= wire::FETCH_BYTES_MAX as usize);
    // A window may be acknowledged whole while the one before it settles.
    assert!(SETTLING_MAX >= 2 * wire::WINDOW_MAX as usize);
    // A burst that the rate limit lets through is not refused for another reason.
    assert!(SENDS_PENDING_MAX >= wire::SENDS_BURST as usize);
    assert!(ROUTE_ITEMS_MAX <= wire::ROUTE_ITEMS_MAX);
    // All that a connection has pending may go to one user, and is one request then.
    assert!(SENDS_PENDING_MAX <= ROUTE_ITEMS_MAX && ROUTE_BYTES_MAX <= SEND_BYTES_PENDING_MAX);
    assert!(
        SEND_BYTES_PENDING_MAX + ROUTE_ITEMS_MAX * wire::ENVELOPE_BYTES_MAX
            <= wire::REQUEST_BYTES_MAX
    );
    assert!(BATCH_ITEMS_MAX <= wire::ITEMS_PER_BATCH_MAX);
    assert!(NOTICES_BATCH_MAX <= wire::ITEMS_PER_BATCH_MAX);
};
