//! What must hold at every moment, one file each. The world shows every checker each living replica
//! after each look; a checker keeps what it needs to remember.

use std::fmt;

use switchboard_engine::{EntryPayload, GroupId, LogId};
use switchboard_histories::{History, Verdict};
use switchboard_raft::{GroupStatus, Node, NodeId, Role};

use crate::clients::USERS;

pub mod committed_stays;
pub mod election_safety;
pub mod leader_completeness;
pub mod log_matching;
pub mod log_time;
pub mod mailbox_order;
pub mod no_lost_message;
pub mod no_message_between;
pub mod positions;
pub mod replicas_agree;
pub mod votes_kept;

/// What was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: &'static str,
    pub how: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.how)
    }
}

pub type Checked = Result<(), Violation>;

pub fn broken(invariant: &'static str, how: impl Into<String>) -> Checked {
    Err(Violation { invariant, how: how.into() })
}

/// One replica as it is at a look.
pub struct Replica<'a> {
    pub node: &'a Node,
    pub id: NodeId,
    pub group: GroupId,
    /// Which life of its process.
    pub life: u64,
    pub status: GroupStatus,
    /// The entries that are new or changed since the last look, and what they hold.
    pub fresh: Vec<(LogId, u64)>,
    /// The last entry applied.
    pub applied: Option<LogId>,
}

impl Replica<'_> {
    pub fn leads(&self) -> bool {
        self.status.role == Role::Leader
    }

    /// The log id at an index, none if it is purged or not there.
    pub fn id_at(&self, index: u64) -> Option<LogId> {
        self.node.log().log_id_at(self.group, index)
    }
}

/// A fingerprint of an entry's content.
pub fn fingerprint(payload: &EntryPayload) -> u64 {
    let mut trace = crate::trace::Trace::default();
    match payload {
        EntryPayload::Blank => trace.event(format_args!("blank")),
        EntryPayload::Commands(bytes) => trace.event(format_args!("c{bytes:?}")),
        EntryPayload::Membership(bytes) => trace.event(format_args!("m{bytes:?}")),
    }
    trace.hash()
}

/// All checkers that look at replicas.
#[derive(Default)]
pub struct Invariants {
    pub election_safety: election_safety::ElectionSafety,
    pub votes_kept: votes_kept::VotesKept,
    log_matching: log_matching::LogMatching,
    committed_stays: committed_stays::CommittedStays,
    leader_completeness: leader_completeness::LeaderCompleteness,
    replicas_agree: replicas_agree::ReplicasAgree,
}

impl Invariants {
    pub fn look(&mut self, replica: &Replica<'_>) -> Checked {
        self.election_safety.look(replica)?;
        self.votes_kept.look(replica)?;
        self.log_matching.look(replica)?;
        self.committed_stays.look(replica)?;
        self.leader_completeness.look(replica, &self.committed_stays)
    }

    /// Looks at contents, which costs more.
    pub fn look_deep(&mut self, replica: &Replica<'_>) -> Checked {
        self.replicas_agree.look(replica)
    }
}

/// What must hold of the history as a whole, once every user was fetched at the end. Says how many
/// users' histories could not be decided.
pub fn check_history(history: &History) -> Result<u64, Violation> {
    positions::check(history)?;
    no_lost_message::check(history)?;
    mailbox_order::check(history)?;
    no_message_between::check(history)?;
    let mut undecided = 0;
    for user in 0..USERS {
        match switchboard_histories::check(history, user) {
            Verdict::Linearizable => {}
            Verdict::Undecided => undecided += 1,
            Verdict::Violated(how) => {
                return broken("linearizability", format!("user {user} {how}")).map(|()| 0);
            }
        }
    }
    Ok(undecided)
}
