//! Replicas agree: contents hash alike on every replica at the same log id.

use std::collections::BTreeMap;

use switchboard_engine::{GroupId, LogId};

use super::{Checked, Replica, broken};

#[derive(Default)]
pub struct ReplicasAgree {
    hashes: BTreeMap<(GroupId, LogId), (u64, u128)>,
}

impl ReplicasAgree {
    pub fn look(&mut self, replica: &Replica<'_>) -> Checked {
        let Some(group) = replica.node.group(replica.group) else { return Ok(()) };
        let (at, hash) = group.shard().state_hash();
        let (first, known) = *self.hashes.entry((replica.group, at)).or_insert((replica.id, hash));
        if known == hash {
            return Ok(());
        }
        let (group, id) = (replica.group, replica.id);
        broken("replicas agree", format!("group {group} at {at}: nodes {first} and {id} differ"))
    }
}
