//! Bounds of what this crate serves and waits for.

use std::time::Duration;

/// Connections to one HTTP listener at a time; more wait in the kernel's backlog.
pub const HTTP_CONNECTIONS_MAX: usize = 256;

/// A connection to the HTTP listener on which nothing moves for so long is closed.
pub const HTTP_IDLE_MAX: Duration = Duration::from_secs(60);

/// Connections that the kernel completes while the process is busy (it clamps this to
/// `net.core.somaxconn`).
pub const LISTEN_BACKLOG: u32 = 4096;

/// Log lines that wait for a slow reader of standard error; more are dropped, and counted.
pub const LOG_LINES_MAX: usize = 4096;

/// How long the end of a process waits for its last log lines to be read.
pub const LOG_FLUSH_MAX: Duration = Duration::from_secs(1);

/// How long a server may take to end in order after a signal; then it ends without. Below the 30
/// seconds after which supervisors are told (see `docs/operations.md`) to use force.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(25);

/// How often histograms give up the samples they gathered, so that an unscraped process does not
/// grow.
pub const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

const _: () = assert!(HTTP_CONNECTIONS_MAX > 0 && HTTP_CONNECTIONS_MAX <= LISTEN_BACKLOG as usize);
