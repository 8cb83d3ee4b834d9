//! Every bound of this crate in one place.

use std::time::Duration;

/// Bytes written to a connection's buffer before the session stops adding sends.
pub const WRITE_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// Bytes asked of the socket in one read.
pub const READ_CHUNK_BYTES: usize = 16 * 1024;

/// Frames taken from the read buffer before their events are handed over and acknowledged.
pub const FRAMES_A_TURN_MAX: usize = 64;

/// Sends that wait for `Accepted` on a connection at any time.
pub const IN_FLIGHT_MAX: usize = 128;

/// Bytes of the bodies of those sends; one send is always let through.
pub const IN_FLIGHT_BYTES_MAX: usize = 1024 * 1024;

/// Messages that the outbox holds; beyond it a send fails at once.
pub const OUTBOX_MAX: usize = 1_000_000;

/// Ids remembered to drop repeats; the oldest are forgotten first.
pub const SEEN_MAX: usize = 262_144;

/// Ids in one `Read` frame.
pub const READ_IDS_MAX: usize = 256;

/// `Read` frames that wait for their answer at any time.
pub const READ_FRAMES_IN_FLIGHT_MAX: usize = 4;

/// Seqs named one by one in an `Ack` frame.
pub const ACK_SEQS_MAX: usize = 512;

/// Events on their way to the application; beyond it the socket is not read.
pub const EVENTS_MAX: usize = 256;

/// Time for the transport to connect and for the gateway's `Welcome`.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// A QUIC connection on which nothing at all is heard for so long is gone; a device notices its
/// gateway's silence before.
pub const QUIC_IDLE_MAX: Duration = Duration::from_secs(120);

/// Time to write what is queued when a connection is closed on purpose, and for the gateway to make
/// the last acknowledgements count.
pub const FAREWELL_TIMEOUT: Duration = Duration::from_secs(3);

/// Without an answer for this long, sends and reads go out again on the same connection.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// First and longest pause between attempts to connect.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// See [`BACKOFF_MIN`].
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Longest pause that a server may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Used while a gateway names no keepalive of its own.
pub const KEEPALIVE_DEFAULT: Duration = Duration::from_secs(30);

const _: () = {
    assert!(IN_FLIGHT_MAX <= OUTBOX_MAX);
    // A gateway's default burst must swallow a full set of sends.
    assert!(IN_FLIGHT_MAX <= 500);
    assert!(FRAMES_A_TURN_MAX <= EVENTS_MAX);
    // Ids must be remembered for longer than a full mailbox may repeat them.
    assert!(SEEN_MAX >= 100_000);
};
