//! Election safety: at most one leader in a term of a group.

use std::collections::BTreeMap;

use switchboard_engine::GroupId;
use switchboard_raft::NodeId;

use super::{Checked, Replica, broken};

#[derive(Default)]
pub struct ElectionSafety {
    leaders: BTreeMap<(GroupId, u64), NodeId>,
}

impl ElectionSafety {
    pub fn look(&mut self, replica: &Replica<'_>) -> Checked {
        if !replica.leads() {
            return Ok(());
        }
        let term = replica.status.term;
        let leader = *self.leaders.entry((replica.group, term)).or_insert(replica.id);
        if leader == replica.id {
            return Ok(());
        }
        let (group, second) = (replica.group, replica.id);
        broken("election safety", format!("group {group}, term {term}: {leader} and {second}"))
    }

    /// Terms that had a leader.
    pub fn elections(&self) -> u64 {
        self.leaders.len() as u64
    }
}
