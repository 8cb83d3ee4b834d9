//! State machine safety: what one replica has applied at an index, every replica applies there, in
//! every life.

use std::collections::BTreeMap;

use switchboard_engine::{GroupId, LogId};

use super::{Checked, Replica, broken};

#[derive(Default)]
pub struct CommittedStays {
    /// The term of each applied entry, by group and index.
    applied: BTreeMap<GroupId, BTreeMap<u64, u64>>,
    /// Up to where each node's present life was looked at.
    looked: BTreeMap<(GroupId, u64), u64>,
}

impl CommittedStays {
    pub fn look(&mut self, replica: &Replica<'_>) -> Checked {
        let Some(upto) = replica.applied else { return Ok(()) };
        let group = replica.group;
        let looked = self.looked.entry((group, replica.id)).or_default();
        // A restart applies again from its checkpoint; it is looked at again as well.
        let from = (*looked).min(upto.index);
        *looked = upto.index;
        let applied = self.applied.entry(group).or_default();
        for index in from..=upto.index {
            // Purged, or covered by a snapshot: others had it in their logs.
            let Some(at) = replica.id_at(index) else { continue };
            let term = *applied.entry(index).or_insert(at.term);
            if term != at.term {
                let id = replica.id;
                let how = format!("group {group}, index {index}: term {term}, node {id} has {at}");
                return broken("state machine safety", how);
            }
        }
        Ok(())
    }

    /// The last entry that anybody applied before a term.
    pub fn last_before(&self, group: GroupId, term: u64) -> Option<LogId> {
        let applied = self.applied.get(&group)?;
        let last = applied.iter().rev().find(|(_, of)| **of < term)?;
        Some(LogId::new(*last.1, *last.0))
    }
}
