//! The beginning of a run, when the cluster is made, and its end, when all is healed and has to work.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use switchboard_engine::command::Init;
use switchboard_engine::{Command, GroupId, Rules};
use switchboard_histories::{Action, Outcome};
use switchboard_raft::NodeId;
use switchboard_raft::simulation::hands;

use super::{GROUPS, SETTLE_MS_MAX, World};
use crate::clients::{Ask, Client, Said, USERS, group_of, serve};
use crate::invariants::{Checked, broken};

impl World {
    /// Starts the nodes, begins every group with three voters, and gives each shard its first command.
    pub(super) fn make(&mut self) -> Checked {
        self.settle("the nodes open", |world| {
            world.processes.iter().all(|process| process.node().is_some())
        })?;
        let voters = BTreeSet::from([1, 2, 3]);
        for (at, id) in (0..voters.len()).flat_map(|at| GROUPS.map(|id| (at, id))) {
            let Some(group) = self.group(at, id) else { continue };
            let voters = voters.clone();
            self.processes[at].spawn(async move {
                hands::form(&group, voters).await;
            });
        }
        self.settle("the shards begin", |world| GROUPS.iter().skip(1).all(|id| world.begin(*id)))
    }

    /// Whether a shard has had its first command; if not, its leader proposes it now and then.
    fn begin(&mut self, id: GroupId) -> bool {
        let Some(at) = self.leader(id) else { return false };
        let Some(group) = self.group(at, id) else { return false };
        if group.shard().is_initialized() {
            return true;
        }
        if self.now().is_multiple_of(200) {
            let init = Init { generation: 0, dedup_key: [7; 16], rules: Rules::default() };
            // Whether it was taken is seen in the shard.
            drop(group.propose(vec![Command::Init(init)]));
        }
        false
    }

    /// Ends every fault, and waits until all clients are answered, all replicas are equal, and every
    /// mailbox was fetched once more.
    pub(super) fn recover(&mut self) -> Checked {
        self.note(format_args!("recover"));
        self.net.heal();
        let now_ms = self.now();
        for process in &mut self.processes {
            *process.sync_ms_max.lock() = 2;
            process.clock.set_error_ms(0);
            if !process.is_up() {
                process.starts_at_ms = process.starts_at_ms.map(|at| at.min(now_ms));
            }
        }
        self.settle("the clients are answered", |world| world.clients.iter().all(Client::is_idle))?;
        self.settle("a lost disk is replaced", |world| world.is_whole())?;
        self.settle("the replicas are equal", Self::replicas_are_equal)?;
        for user in 0..USERS {
            self.fetch_at_the_end(user)?;
        }
        self.look(true)
    }

    fn replicas_are_equal(&mut self) -> bool {
        GROUPS.iter().all(|id| {
            let Some(leader) = self.leader(*id).and_then(|at| self.group(at, *id)) else {
                return false;
            };
            let status = leader.status();
            let members = status.voters.iter().chain(&status.learners);
            let applied = |node: &NodeId| self.group(*node as usize - 1, *id)?.shard().applied();
            status.applied.is_some()
                && status.applied.map(|at| at.index) == status.last_index
                && members.into_iter().all(|node| applied(node) == status.applied)
        })
    }

    /// A read by nobody in particular, directly from a leader that is sure of it.
    fn fetch_at_the_end(&mut self, user: usize) -> Checked {
        let done = Arc::new(parking_lot::Mutex::new(None));
        let group = group_of(user);
        let operation = self.history.invoke(user, Action::Fetch);
        // Which process was asked, in which of its lives: a question ends with the life.
        let mut asked = None;
        let answer = done.clone();
        self.settle("a mailbox is fetched", move |world| {
            let Some(at) = world.leader(group) else { return false };
            let refused = answer.lock().as_ref().is_some_and(Option::is_none);
            let lost = |(at, life): (usize, u64)| world.processes[at].lives != life;
            if refused || asked.is_none_or(lost) {
                asked = Some((at, world.processes[at].lives));
                *answer.lock() = None;
                let Some(node) = world.processes[at].node() else { return false };
                let action = Action::Fetch;
                let ask = Ask { client: 0, attempt: 0, group, user, action };
                let answer = answer.clone();
                world.processes[at].spawn(async move {
                    let said = serve(node, ask).await;
                    let outcome = match said {
                        Said::Done(outcome) => Some(outcome),
                        _ => None,
                    };
                    *answer.lock() = Some(outcome);
                });
            }
            answer.lock().as_ref().is_some_and(Option::is_some)
        })?;
        let outcome = done.lock().take().flatten();
        self.history.finish(operation, outcome.unwrap_or(Outcome::Nothing));
        Ok(())
    }

    /// Steps without new operations until something holds; it has to, in time.
    fn settle(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) -> Checked {
        let until_ms = self.now() + SETTLE_MS_MAX;
        while !holds(self) {
            if self.now() >= until_ms {
                let state = self.describe();
                return broken("recovers", format!("not in {SETTLE_MS_MAX} ms: {what}; {state}"));
            }
            self.step(false)?;
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for at in 0..self.processes.len() {
            for id in GROUPS {
                let Some(group) = self.group(at, id) else { continue };
                let status = group.status();
                let (role, term, leader) = (status.role, status.term, status.leader);
                let (last, committed) = (status.last_index, status.committed);
                let (applied, purged) = (status.applied, status.purged);
                // Writing to a text cannot fail.
                let _ = write!(
                    text,
                    "\n  node {} group {id}: {role:?} of term {term}, leader {leader:?}, last \
                     {last:?}, committed {committed:?}, applied {applied:?}, purged {purged:?}, \
                     voters {:?}, learners {:?}, replication {:?}",
                    at + 1,
                    status.voters,
                    status.learners,
                    status.replication,
                );
            }
        }
        text
    }
}
