//! Faults and moves, as they strike the cluster.

use std::collections::BTreeSet;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use switchboard_engine::GroupId;
use switchboard_raft::NodeId;
use switchboard_raft::limits::CLOCK_READING_AGE_MAX;
use switchboard_raft::simulation::hands;

use super::{Move, Voting, World};
use crate::faults::Fault;
use crate::net::STORM;
use crate::process::End;

impl World {
    pub(super) fn befall(&mut self, fault: Fault) {
        self.note(format_args!("{fault:?}"));
        match fault {
            Fault::Isolate { node, leader, with } => {
                self.cut_off(self.victim(node, leader), with, true);
            }
            Fault::Deafen { node, leader } => {
                self.cut_off(self.victim(node, leader), None, false);
            }
            Fault::Storm => self.net.set_weather(STORM),
            Fault::Heal => self.net.heal(),
            Fault::Crash { node, leader, power, after_ms } => {
                let victim = self.victim(node, leader);
                self.crash(victim, if power { End::PowerCut } else { End::Kill }, after_ms);
            }
            Fault::CrashAtOperation { node, operation } => {
                let disk = &self.processes[node].disk;
                disk.crash_at(disk.operations() + operation);
            }
            Fault::Blackout => {
                for at in 0..self.processes.len() {
                    let after_ms = self.random.below(300);
                    self.crash(at, End::PowerCut, after_ms);
                }
            }
            Fault::Disk { node, sync_ms_max } => {
                *self.processes[node].sync_ms_max.lock() = sync_ms_max;
            }
            Fault::Clock { node, error_ms } => self.misset_clock(node, error_ms),
            Fault::Transfer { group, to } => self.transfer(group, to),
            Fault::Checkpoint { node, group } => self.checkpoint(node, group),
            Fault::Move { group } => self.begin_move(group),
            Fault::Renew { node, group } => self.renew(node, group),
            Fault::Wipe { node } => self.wipe(node),
        }
    }

    /// The node meant, or instead of it one that leads.
    fn victim(&self, node: usize, leader: bool) -> usize {
        let leader = if leader { self.leader(node as GroupId % 3) } else { None };
        leader.unwrap_or(node)
    }

    /// Sets the clock of one node wrong and all others right. A node goes by readings of the others'
    /// clocks that may be a while old, so a clock that was set right is still wrong to some: another
    /// one goes wrong only after that, or a majority would not be right.
    fn misset_clock(&mut self, node: usize, error_ms: i64) {
        let now_ms = self.now();
        for (at, process) in self.processes.iter().enumerate() {
            if process.clock.error_ms() != 0 {
                self.wrong_clock = Some((at, now_ms + CLOCK_READING_AGE_MAX.as_millis() as u64));
            }
            process.clock.set_error_ms(0);
        }
        let trusted = self.wrong_clock.is_none_or(|(at, until)| at == node || until < now_ms);
        if trusted {
            self.processes[node].clock.set_error_ms(error_ms);
        }
    }

    /// Cuts what goes to a node and to another one with it, and maybe what comes from them.
    fn cut_off(&self, victim: usize, with: Option<usize>, both_ways: bool) {
        let side: Vec<usize> = iter::once(victim).chain(with).collect();
        for other in (0..self.processes.len()).filter(|at| !side.contains(at)) {
            for at in &side {
                let (other, inside) = (other as NodeId + 1, *at as NodeId + 1);
                self.net.cut(other, inside);
                if both_ways {
                    self.net.cut(inside, other);
                }
            }
        }
    }

    fn transfer(&mut self, group: GroupId, to: usize) {
        let Some(at) = self.leader(group).filter(|at| *at != to) else { return };
        let Some(group) = self.group(at, group) else { return };
        self.counts.transfers += 1;
        self.processes[at].spawn(async move {
            hands::transfer_leader(&group, to as NodeId + 1).await;
        });
    }

    fn checkpoint(&mut self, node: usize, group: GroupId) {
        let Some(group) = self.group(node, group) else { return };
        self.counts.checkpoints += 1;
        self.processes[node].spawn(async move {
            hands::checkpoint_and_purge(&group).await;
        });
    }

    /// The node meant, or the next one that has left the group.
    fn renew(&self, node: usize, id: GroupId) {
        let Some(leader) = self.leader(id).and_then(|at| self.group(at, id)) else { return };
        let members = leader.status();
        let has_left = |at: &usize| {
            let known = self.group(*at, id).is_some_and(|group| !group.status().voters.is_empty());
            let member = *at as NodeId + 1;
            known && !members.voters.contains(&member) && !members.learners.contains(&member)
        };
        let count = self.processes.len();
        let Some(at) = (node..node + count).map(|at| at % count).find(has_left) else { return };
        let Some(found) = self.processes[at].node() else { return };
        let (renewed, votes) = (self.renewed.clone(), self.votes.clone());
        self.processes[at].spawn(async move {
            if hands::renew(&found, id).await {
                renewed.fetch_add(1, Ordering::Relaxed);
                votes.lock().push(Voting::Forgotten { node: at as NodeId + 1, group: id });
            }
        });
    }

    fn crash(&mut self, at: usize, end: End, after_ms: u64) {
        if self.processes[at].is_up() {
            self.counts.crashes += 1;
            let back_ms = self.now() + after_ms;
            self.processes[at].end(end, back_ms);
        }
    }

    /// Has a leader change who votes: one change at a time, as the mover does.
    fn begin_move(&mut self, id: GroupId) {
        let Some(at) = self.leader(id).filter(|_| self.moving.is_none() && self.is_whole()) else {
            return;
        };
        let Some(group) = self.group(at, id) else { return };
        let voters: BTreeSet<NodeId> = group.status().voters.into_iter().collect();
        let others: Vec<NodeId> =
            (1..=self.processes.len() as NodeId).filter(|node| !voters.contains(node)).collect();
        let leaves = voters.iter().copied().nth(self.random.below(voters.len() as u64) as usize);
        let joins = others.get(self.random.below(others.len() as u64) as usize).copied();
        let mut next = voters.clone();
        // Three of three can only shrink, and two grow again.
        if let Some(joins) = joins {
            next.insert(joins);
        }
        if let Some(leaves) = leaves.filter(|_| next.len() > 3 || joins.is_none()) {
            next.remove(&leaves);
        }
        if next == voters || next.len() < 2 {
            return;
        }
        self.change(at, async move {
            let joined = match joins {
                Some(joins) => hands::add_learner(&group, joins).await,
                None => true,
            };
            joined && hands::change_voters(&group, next).await
        });
    }

    /// Begins a change of members on a process, which says in the end whether it is made.
    pub(super) fn change(&mut self, at: usize, made: impl Future<Output = bool> + Send + 'static) {
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let life = self.processes[at].lives;
        self.moving = Some(Move { at, life, over: over.clone(), done: done.clone() });
        self.processes[at].spawn(async move {
            if made.await {
                done.store(true, Ordering::Relaxed);
            }
            over.store(true, Ordering::Relaxed);
        });
    }

    pub(super) fn note_moved(&mut self) {
        let Some(Move { at, life, over, done }) = &self.moving else { return };
        let process = &self.processes[*at];
        if over.load(Ordering::Relaxed) || process.lives != *life || !process.is_up() {
            self.counts.moves += u64::from(done.load(Ordering::Relaxed));
            self.moving = None;
        }
    }
}
