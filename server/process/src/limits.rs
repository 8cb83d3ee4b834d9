//! Bounds of what this crate serves and waits for.

use std::time::Duration;

/// Connections to one HTTP listener at a time; more wait in the kernel's backlog.
pub const HTTP_CONNECTIONS_MAX: usize = 256;

/// A connection to the HTTP listener on which nothing moves for so long is closed.
pub const HTTP_IDLE_MAX: Duration = Duration::from_secs(60);

/// Connections that the kernel completes while the process is busy (it clamps this to
/// `net.core.somaxconn`).
pub const LISTEN_BACKLOG: u32 = 4096;

/// How often histograms give up the samples they gathered, so that an unscraped process does not
/// grow.
pub const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

const _: () = assert!(HTTP_CONNECTIONS_MAX > 0 && HTTP_CONNECTIONS_MAX <= LISTEN_BACKLOG as usize);
