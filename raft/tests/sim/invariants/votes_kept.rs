//! Votes are kept: a replica that granted its vote in a term grants none to another candidate of that
//! term and none in an earlier one, and still knows the term after a restart on the same disk.

use std::collections::BTreeMap;

use switchboard_engine::GroupId;
use switchboard_raft::NodeId;

use super::{Checked, Replica, broken};

/// A vote that was granted.
#[derive(Clone, Copy, Debug)]
struct Grant {
    term: u64,
    candidate: NodeId,
    /// In which life of the process.
    life: u64,
}

#[derive(Default)]
pub struct VotesKept {
    last: BTreeMap<(NodeId, GroupId), Grant>,
}

impl VotesKept {
    /// A replica has answered a candidate that it votes for it.
    pub fn granted(
        &mut self,
        (node, group): (NodeId, GroupId),
        (term, candidate): (u64, NodeId),
        life: u64,
    ) -> Checked {
        let grant = Grant { term, candidate, life };
        let last = *self.last.entry((node, group)).or_insert(grant);
        if term < last.term || (term == last.term && candidate != last.candidate) {
            let how = format!("node {node}, group {group}: {grant:?} after {last:?}");
            return broken("votes are kept", how);
        }
        self.last.insert((node, group), grant);
        Ok(())
    }

    /// The replica is gone, with what it promised: its disk was lost, or nobody counts on it any more.
    pub fn forget(&mut self, node: NodeId, group: GroupId) {
        self.last.remove(&(node, group));
    }

    pub fn look(&self, replica: &Replica<'_>) -> Checked {
        let (node, group, term) = (replica.id, replica.group, replica.status.term);
        let Some(last) = self.last.get(&(node, group)) else { return Ok(()) };
        // A replica says that it is in term 0 until it has looked. Within a life it may say late what it knows.
        if term == 0 || replica.life == last.life || term >= last.term {
            return Ok(());
        }
        let how = format!("node {node}, group {group}: in term {term} after {last:?}");
        broken("votes are kept", how)
    }
}
