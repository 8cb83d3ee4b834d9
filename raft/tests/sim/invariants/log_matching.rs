//! Log matching: entries with the same term and index have the same content, in every log and life.

use std::collections::BTreeMap;

use switchboard_engine::{GroupId, LogId};

use super::{Checked, Replica, broken};

#[derive(Default)]
pub struct LogMatching {
    entries: BTreeMap<(GroupId, LogId), u64>,
}

impl LogMatching {
    pub fn look(&mut self, replica: &Replica<'_>) -> Checked {
        for (at, content) in &replica.fresh {
            let known = *self.entries.entry((replica.group, *at)).or_insert(*content);
            if known != *content {
                let (group, id) = (replica.group, replica.id);
                let how = format!("group {group}, entry {at}: node {id} has another one");
                return broken("log matching", how);
            }
        }
        Ok(())
    }
}
