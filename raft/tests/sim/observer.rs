//! Looks at every living replica between two steps, and shows the invariants what is new.

use std::collections::BTreeMap;

use switchboard_engine::GroupId;
use switchboard_raft::{Node, NodeId};

use crate::invariants::{Checked, Invariants, Replica, broken, fingerprint, log_time};
use crate::process::Process;

/// The log of one replica as it was at the last look: the term of each entry.
type Terms = BTreeMap<u64, u64>;

#[derive(Default)]
pub struct Observer {
    pub invariants: Invariants,
    /// By node, life and group.
    logs: BTreeMap<(NodeId, u64, GroupId), Terms>,
    /// Times that a replica took entries back.
    pub truncations: u64,
}

impl Observer {
    /// Looks at one node. `deep` compares contents too.
    pub fn look(
        &mut self,
        process: &Process,
        groups: &[GroupId],
        median_ms: u64,
        deep: bool,
    ) -> Checked {
        if let Some(why) = process.refusal() {
            return broken("comes back", format!("node {} cannot open: {why}", process.id));
        }
        let Some(node) = process.node() else { return Ok(()) };
        for id in groups {
            let Some(group) = node.group(*id) else { continue };
            if let Some(why) = switchboard_raft::simulation::hands::stopped_by(&group) {
                if process.disk.is_down() {
                    continue;
                }
                let how = format!("node {}, group {id} stopped: {why}", process.id);
                return broken("keeps running", how);
            }
            let replica = self.replica(&node, process, *id);
            self.invariants.look(&replica)?;
            log_time::look(&replica, median_ms)?;
            if deep {
                self.invariants.look_deep(&replica)?;
            }
        }
        Ok(())
    }

    fn replica<'a>(&mut self, node: &'a Node, process: &Process, group: GroupId) -> Replica<'a> {
        let shard = node.group(group).expect("it was there before");
        let last = node.log().group_state(group).last;
        let terms = self.logs.entry((process.id, process.lives, group)).or_default();
        let end = last.map_or(0, |last| last.index + 1);
        let mut replica = Replica {
            node,
            id: process.id,
            group,
            life: process.lives,
            status: shard.status(),
            fresh: Vec::new(),
            applied: shard.shard().applied(),
        };
        let mut from = end;
        while let Some(at) = from.checked_sub(1).and_then(|index| replica.id_at(index))
            && terms.get(&at.index) != Some(&at.term)
        {
            from = at.index;
        }
        let taken_back = terms.split_off(&from);
        if !taken_back.is_empty() {
            self.truncations += 1;
        }
        // What is purged meanwhile cannot be read, and was seen when it was not.
        let entries = node.log().read(group, from..end, usize::MAX).unwrap_or_default();
        for (at, payload) in entries {
            terms.insert(at.index, at.term);
            replica.fresh.push((at, fingerprint(&payload)));
        }
        replica
    }
}
