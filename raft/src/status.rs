//! What a replica says about itself.

use std::time::Duration;

use openraft::{Instant, RaftMetrics, ServerState};
use switchboard_engine::{GroupId, LogId};

use crate::proposer::ProposerStats;
use crate::settings::ELECTION_MAX;
use crate::types::{NodeId, TypeConfig, to_engine};

/// How stale a read of this replica may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staleness {
    /// The last entry that the read sees.
    pub applied: Option<LogId>,
    /// Upper bound in milliseconds; none if this replica cannot say.
    pub ms: Option<u64>,
}

impl Staleness {
    pub(crate) fn fresh(applied: Option<LogId>) -> Self {
        Self { applied, ms: Some(0) }
    }

    /// A leader within its lease is fresh; beyond it, it was fresh when a majority last answered.
    /// A follower goes by when it heard from its leader.
    pub(crate) fn of(
        metrics: &RaftMetrics<TypeConfig>,
        applied: Option<LogId>,
        heard: Option<Duration>,
    ) -> Self {
        let silent = metrics.last_quorum_acked.as_ref().map(|acked| acked.elapsed());
        let ms = match (metrics.state, silent) {
            (ServerState::Leader, Some(silent)) if silent <= ELECTION_MAX => Some(0),
            (ServerState::Leader, Some(silent)) => u64::try_from(silent.as_millis()).ok(),
            _ => heard.and_then(|age| u64::try_from(age.as_millis()).ok()),
        };
        Self { applied, ms }
    }
}

/// The part of a replica in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Gets entries and does not vote.
    Learner,
    /// Follows a leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
    /// Stopped, by a shutdown or for good by a storage error.
    Stopped,
}

/// A replica at one moment.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// Which group.
    pub group: GroupId,
    /// Its part in it.
    pub role: Role,
    /// The current term.
    pub term: u64,
    /// Who leads.
    pub leader: Option<NodeId>,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who only gets entries.
    pub learners: Vec<NodeId>,
    /// Index of the last entry in the log.
    pub last_index: Option<u64>,
    /// The last entry known to be committed.
    pub committed: Option<LogId>,
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// The last entry of the checkpoint.
    pub checkpoint: Option<LogId>,
    /// The last entry purged from the log.
    pub purged: Option<LogId>,
    /// Bytes of log that this group keeps.
    pub log_bytes: u64,
    /// The last applied stamp, Unix milliseconds.
    pub log_time_ms: u64,
    /// How often the clock leapt ahead of log time since the start.
    pub clock_alarms: u64,
    /// Whether it is ahead right now.
    pub clock_leaping: bool,
    /// Counters of the proposer.
    pub proposer: ProposerStats,
    /// On the leader: the last entry that each replica is known to hold.
    pub replication: Vec<(NodeId, Option<LogId>)>,
}

/// The part of a status that openraft knows.
pub(crate) fn status(group: GroupId, metrics: &RaftMetrics<TypeConfig>) -> GroupStatus {
    let role = match (&metrics.running_state, metrics.state) {
        (Err(_), _) | (_, ServerState::Shutdown) => Role::Stopped,
        (_, ServerState::Learner) => Role::Learner,
        (_, ServerState::Follower) => Role::Follower,
        (_, ServerState::Candidate) => Role::Candidate,
        (_, ServerState::Leader) => Role::Leader,
    };
    let membership = metrics.membership_config.membership();
    let replication = metrics.replication.iter().flatten();
    GroupStatus {
        group,
        role,
        term: metrics.current_term,
        leader: metrics.current_leader,
        voters: membership.voter_ids().collect(),
        learners: membership.learner_ids().collect(),
        last_index: metrics.last_log_index,
        committed: metrics.local_committed.as_ref().map(to_engine),
        applied: metrics.last_applied.as_ref().map(to_engine),
        checkpoint: metrics.snapshot.as_ref().map(to_engine),
        purged: metrics.purged.as_ref().map(to_engine),
        log_bytes: 0,
        log_time_ms: 0,
        clock_alarms: 0,
        clock_leaping: false,
        proposer: ProposerStats::default(),
        replication: replication
            .map(|(node, matched)| (*node, matched.as_ref().map(to_engine)))
            .collect(),
    }
}
