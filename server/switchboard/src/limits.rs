//! Bounds of the tools in this binary; those of the contract are in `switchboard_api::limits`.

use std::time::Duration;

/// Longest line or document `bench replay` reads, so that a wrong file fails early (bytes).
pub(crate) const CORPUS_BYTES_MAX: u64 = 1 << 30;

/// Longest plan of moves that is read: some ten thousand moves (bytes).
pub(crate) const PLAN_BYTES_MAX: u64 = 1 << 20;

/// How many examples of each kind of fault a replay keeps to print.
pub(crate) const FAULT_EXAMPLES_MAX: usize = 5;

/// Shortest time a replayed user stays offline or online: long enough that the connection is
/// really closed and opened.
pub(crate) const STRETCH_MIN: Duration = Duration::from_millis(300);

/// Messages of one sender's turn that may wait for their Accepted at a time.
pub(crate) const TURN_IN_FLIGHT_MAX: usize = 16;

/// First and longest pause of a replayed device between attempts to connect. Shorter than the
/// device library's, so that a gateway that is killed and restarted is found again soon.
pub(crate) const RECONNECT_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(1));

/// Most connections that a load test makes to each server.
pub(crate) const LOAD_CONNECTIONS_MAX: usize = 1_024;
/// Most calls that a load test keeps under way on a connection.
pub(crate) const LOAD_IN_FLIGHT_MAX: usize = 4_096;
/// Most devices of a load test from one process: each takes a file.
pub(crate) const LOAD_DEVICES_MAX: usize = 19_000;
/// Most users of a load test: their numbers have ten digits.
pub(crate) const LOAD_USERS_MAX: u64 = 1_000_000_000;

/// Connections that one worker of `bench connections` holds: below the limit of open files that is
/// usual where many are allowed, 20,000.
pub(crate) const IDLE_PER_WORKER_MAX: usize = 18_000;
/// Connections that all workers together are opening at any time.
pub(crate) const IDLE_OPENING_MAX: usize = 1_024;

/// Most devices in a storm, and most gateways that die in it.
pub(crate) const STORM_DEVICES_MAX: usize = 1_000_000;
/// See [`STORM_DEVICES_MAX`].
pub(crate) const STORM_GATEWAYS_MAX: usize = 64;
/// Devices that one worker of `bench storm` holds, likewise.
pub(crate) const STORM_PER_WORKER_MAX: usize = 10_000;

const _: () = assert!(TURN_IN_FLIGHT_MAX >= 1);
/// How long the end of a server waits for threads that it cannot stop.
pub(crate) const RUNTIME_END_MAX: Duration = Duration::from_secs(2);
