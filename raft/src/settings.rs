//! Every setting of openraft, each once and with its reason.
//!
//! They are constants, not configuration: the lease, the election and the checkpoint policy are
//! only right together, and a test cluster that runs other values would test another system.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, ConfigError, SnapshotPolicy};

use crate::limits;
use crate::planted::{self, PlantedBug};

/// A leader's heartbeat. Its lease outlasts three that are lost.
pub const HEARTBEAT: Duration = Duration::from_millis(100);
/// The shortest election timeout. It begins when the leader's lease has passed, so a follower asks for
/// votes 650 to 800 ms after it last heard of a leader: nearly all of a failover is this wait.
pub const ELECTION_MIN: Duration = Duration::from_millis(250);
/// The longest election timeout, which is also the length of a leader's lease.
pub const ELECTION_MAX: Duration = Duration::from_millis(400);
/// A leader without a quorum is silent for this long, then probes for as long, so that a majority
/// that it cannot hear is not kept from electing. openraft asks for lease + election timeout.
pub const QUORUM_LOSS_PROBE: Duration = Duration::from_millis(800);
/// How long a restarted voter grants no vote: the promise that it gave to a leader's lease was
/// in memory, and lasts at most this long.
pub const VOTE_SILENCE_AFTER_START: Duration = ELECTION_MAX;
/// A snapshot holds every message of a shard; it may take minutes to send and to install.
pub const INSTALL_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

const _: () = assert!(ELECTION_MIN.as_millis() > 2 * HEARTBEAT.as_millis());
const _: () = assert!(QUORUM_LOSS_PROBE.as_millis() >= 2 * ELECTION_MAX.as_millis());

const fn millis(duration: Duration) -> u64 {
    // Every duration above is a small constant.
    duration.as_millis() as u64
}

/// The configuration of one group.
pub(crate) fn raft_config(cluster_name: String) -> Result<Arc<Config>, ConfigError> {
    let config = Config {
        cluster_name,
        heartbeat_interval: millis(HEARTBEAT),
        election_timeout_min: millis(ELECTION_MIN),
        election_timeout_max: millis(ELECTION_MAX),
        // A partitioned node that comes back must not depose a healthy leader by a higher term.
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(millis(QUORUM_LOSS_PROBE)),
        // Never: flushes are asynchronous, so a leader that restarts within its lease could
        // propose a second entry at an index whose first one reached a follower but not its own
        // disk. Followers compare log ids only, and would keep the first.
        enable_leader_restore: Some(planted::is(PlantedBug::LeaderRestore)),
        // Entries are large (a proposer fills them up to 1 MiB) and each message is bounded by
        // bytes in the log reader; a low count would only hurt a follower that catches up on
        // small entries.
        max_payload_entries: limits::APPEND_ENTRIES_MAX,
        // The engine's checkpoint is the snapshot, and its policy is by bytes: see `checkpointer`.
        snapshot_policy: SnapshotPolicy::Never,
        // Purging by policy is off: the checkpointer names the index, because it knows how many
        // bytes the log keeps, and an entry may hold one command or 65,535.
        max_in_snapshot_log_to_keep: u64::MAX,
        install_snapshot_timeout: millis(INSTALL_SNAPSHOT_TIMEOUT),
        ..Config::default()
    };
    config.validate().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openraft_accepts_the_settings() {
        let config = raft_config("test".into()).expect("valid");
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.snapshot_policy, SnapshotPolicy::Never);
        assert!(config.max_payload_entries >= 1_024);
    }
}
