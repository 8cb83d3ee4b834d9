//! A reconnect storm: gateways die with all their devices, and everybody comes back at once. The parts
//! of `bench storm`.
//!
//! ```text
//!                      ┌─ doomed gateways ══╗   killed together
//!   bench storm ──────▶├─ spare gateways  ══╬══ crowd: devices of the device library, in workers
//!     │  │             └─ one for others  ══╝     (this program again, with --worker)
//!     │  └─ workers: how many are back; at the end when each came, and what it received
//!     └──── others: look-ups, messages among others, messages to the crowd, at a fixed rate
//! ```
//! The crowd knows doomed and spare gateways in turn, as it would from a name server that nobody has
//! told yet. The spare ones are started when the crowd is in, so that all of it is on the doomed ones.

pub(crate) mod crowd;
pub(crate) mod gateways;
pub(crate) mod others;
pub(crate) mod report;
pub(crate) mod sessions;
pub(crate) mod workers;

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970: what workers and their parent, on one machine, tell times by.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The user of the `nth` device of a crowd.
pub(crate) fn user(prefix: &str, nth: usize) -> bytes::Bytes {
    format!("{prefix}-{nth}").into()
}
