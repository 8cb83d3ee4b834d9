//! Leader completeness: a leader has every entry that was committed before its term.

use std::collections::BTreeSet;

use switchboard_engine::GroupId;

use super::committed_stays::CommittedStays;
use super::{Checked, Replica, broken};

#[derive(Default)]
pub struct LeaderCompleteness {
    seen: BTreeSet<(GroupId, u64)>,
}

impl LeaderCompleteness {
    pub fn look(&mut self, replica: &Replica<'_>, committed: &CommittedStays) -> Checked {
        let (group, term) = (replica.group, replica.status.term);
        if !replica.leads() || !self.seen.insert((group, term)) {
            return Ok(());
        }
        // By log matching, whoever has the last one has all before it.
        let Some(last) = committed.last_before(group, term) else { return Ok(()) };
        let covered = replica.applied.is_some_and(|applied| applied >= last);
        if covered || replica.id_at(last.index) == Some(last) {
            return Ok(());
        }
        let id = replica.id;
        let how = format!("group {group}: node {id} leads term {term} without entry {last}");
        broken("leader completeness", how)
    }
}
