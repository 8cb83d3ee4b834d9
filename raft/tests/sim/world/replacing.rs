//! A disk that is lost, and what an operator does about it: the node that comes back without what it
//! promised is heard by nobody until each group has taken it out, and is then taken in anew.

use std::collections::BTreeSet;

use switchboard_engine::GroupId;
use switchboard_engine::fs::sim::SimFiles;
use switchboard_raft::NodeId;
use switchboard_raft::simulation::hands;

use super::{GROUPS, Voting, World};
use crate::process::End;

/// Milliseconds between two looks at what is left to do.
const LOOK_MS: u64 = 20;

/// A node with a new disk.
pub(super) struct Wiped {
    at: usize,
    /// Groups that it was a voter of and is not yet again.
    left: BTreeSet<GroupId>,
}

impl World {
    /// A machine loses its disk, if every group has a majority without it and no other disk is missing:
    /// more than that nobody promises to survive.
    pub(super) fn wipe(&mut self, at: usize) {
        let node = at as NodeId + 1;
        if self.wiped.is_some() || self.moving.is_some() || !self.processes[at].is_up() {
            return;
        }
        let mut left = BTreeSet::new();
        for id in GROUPS {
            let Some(voters) = self.settled_voters(id) else { return };
            if voters.contains(&node) {
                if voters.len() < 3 {
                    return;
                }
                left.insert(id);
            }
        }
        self.note(format_args!("wipe {at} {left:?}"));
        self.counts.wiped += 1;
        let back_ms = self.now() + self.random.below(400);
        self.processes[at].end(End::PowerCut, back_ms);
        self.processes[at].disk = SimFiles::new(self.random.next());
        if self.trust_wiped {
            return;
        }
        for id in GROUPS {
            self.votes.lock().push(Voting::Forgotten { node, group: id });
            self.net.bar(node, id);
        }
        self.wiped = Some(Wiped { at, left });
    }

    /// The voters of a group, if no change of them is half done, as its leader knows. One that was cut off
    /// and does not know of its successor does not know who votes now.
    fn settled_voters(&self, id: GroupId) -> Option<BTreeSet<NodeId>> {
        let group = self.group(self.leader(id)?, id)?;
        let terms = (0..self.processes.len()).filter_map(|at| self.group(at, id));
        if terms.map(|replica| replica.status().term).max() > Some(group.status().term) {
            return None;
        }
        hands::settled_members(&group).map(|members| members.voters)
    }

    /// What the operator does next for the node with the new disk, one change at a time.
    pub(super) fn replace_disk(&mut self) {
        if !self.now().is_multiple_of(LOOK_MS) || self.moving.is_some() {
            return;
        }
        let Some(Wiped { at, left }) = &self.wiped else { return };
        let (at, node, left) = (*at, *at as NodeId + 1, left.clone());
        for id in GROUPS {
            let Some(leader) = self.leader(id).filter(|leader| *leader != at) else { continue };
            let Some(group) = self.group(leader, id) else { continue };
            let Some(members) = hands::settled_members(&group) else {
                // Whoever began the change is gone: it is ended first.
                return self.change(leader, async move { hands::end_change(&group).await });
            };
            let is_member = members.voters.contains(&node) || members.learners.contains(&node);
            if self.net.is_barred(node, id) {
                if is_member {
                    return self.change(leader, async move { hands::remove(&group, node).await });
                }
                self.note(format_args!("unbar {at} {id}"));
                self.net.unbar(node, id);
            }
            if left.contains(&id) && !members.voters.contains(&node) {
                let mut voters = members.voters;
                voters.insert(node);
                return self.change(leader, async move {
                    hands::add_learner(&group, node).await
                        && hands::change_voters(&group, voters).await
                });
            }
        }
        let is_whole = GROUPS.iter().all(|id| {
            let voters = || self.settled_voters(*id).is_some_and(|voters| voters.contains(&node));
            !self.net.is_barred(node, *id) && (!left.contains(id) || voters())
        });
        if is_whole {
            self.note(format_args!("replaced {at}"));
            self.wiped = None;
        }
    }

    /// Whether no disk is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.wiped.is_none()
    }
}
