//! Whether what clients saw of one user is what one server, doing one thing at a time, could have
//! shown them: the search of Wing and Gong, with Lowe's memory of configurations that failed
//! ("Testing for Linearizability", 2017).
//!
//! It is our own and not stateright's `LinearizabilityTester`, because that one remembers nothing: a
//! history with some thirty operations whose outcome is unknown, each of which may take effect at
//! any later moment, takes it for ever.
//!
//! An unknown operation may be left out, or be put anywhere after its invocation. Its effect is
//! known, if it had one, from what others saw: each message id and connection is used once.
//!
//! A read that fits is put next at once, and nothing else is tried there: wherever else it could stand,
//! it may as well stand here, since it changes nothing.

use std::collections::{BTreeMap, HashSet};

use crate::history::{Action, History, Operation, Outcome};

/// Configurations looked at before the search gives up.
const STEPS_MAX: u64 = 400_000;

/// What the search for an order found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is one.
    Linearizable,
    /// The most that could be put in order, and what does not fit behind it.
    Violated(String),
    /// The search was given up.
    Undecided,
}

/// A user's session and mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct User {
    session: Option<u64>,
    /// Seq and id of what waits.
    messages: Vec<(u64, u64)>,
    /// The highest position handed out.
    position: u64,
}

/// An operation as the search wants it.
struct Step<'a> {
    operation: &'a Operation,
    invoked: u64,
    /// `u64::MAX`: it never returns, and need not have happened.
    returned: u64,
    /// The position of its effect, if anybody was ever told of it.
    position: Option<u64>,
}

impl Step<'_> {
    fn is_read(&self) -> bool {
        matches!(self.operation.action, Action::Fetch | Action::Locate | Action::Stat)
    }
}

/// An epoch for a claim of which nobody was told.
fn unseen(connection: u64) -> u64 {
    u64::MAX - connection
}

/// Checks the history of one user.
#[must_use]
pub fn check(history: &History, user: usize) -> Verdict {
    let (seqs, epochs) = (history.seqs(user), history.epochs(user));
    let mut steps: Vec<Step<'_>> =
        history.of(user).filter_map(|operation| step_of(operation, &seqs, &epochs)).collect();
    steps.sort_by_key(|step| step.invoked);
    Search { steps, failed: HashSet::new(), looked: 0, best: (0, String::new()) }.run()
}

/// Leaves out what cannot have had an effect that anybody saw.
fn step_of<'a>(
    operation: &'a Operation,
    seqs: &BTreeMap<u64, u64>,
    epochs: &BTreeMap<u64, u64>,
) -> Option<Step<'a>> {
    let known = !matches!(operation.outcome, None | Some(Outcome::Unknown));
    let position = match operation.action {
        _ if operation.outcome == Some(Outcome::Nothing) => return None,
        Action::Enqueue { message } => {
            let seq = seqs.get(&message).copied();
            // Whoever fetched would have seen it, so nobody fetched while it waited; and an ack
            // never reaches beyond what was fetched.
            if !known && seq.is_none() {
                return None;
            }
            seq
        }
        Action::Claim { connection } => epochs.get(&connection).copied(),
        Action::Fetch | Action::Locate | Action::Stat if !known => return None,
        _ => None,
    };
    let returned = operation.returned.unwrap_or(u64::MAX);
    // What may be of any moment before may as well have been asked for at the beginning.
    let invoked = if operation.action == Action::Stat { 0 } else { operation.invoked };
    Some(Step { operation, invoked, returned, position })
}

impl User {
    /// The state after the operation, if it can have been answered so in this state.
    fn after(&self, step: &Step<'_>) -> Option<Self> {
        let mut next = self.clone();
        let outcome = step.operation.outcome.as_ref();
        match (&step.operation.action, outcome) {
            (Action::Enqueue { message }, outcome) => {
                // Somebody fetched it before it was acknowledged, or finds it at the end.
                let seq = next.take_position(step.position?)?;
                if let Some(Outcome::Enqueued { prev_seq, session, .. }) = outcome {
                    let tail = self.messages.last().map_or(0, |(seq, _)| *seq);
                    let session = session.map(|(epoch, _)| epoch);
                    if *prev_seq != tail || session != self.session {
                        return None;
                    }
                }
                next.messages.push((seq, *message));
            }
            (Action::Claim { connection }, outcome) => {
                if let Some(Outcome::Claimed { backlog, tail, .. }) = outcome {
                    let waits = self.messages.last().map_or(0, |(seq, _)| *seq);
                    if *backlog != self.messages.len() as u64 || *tail != waits {
                        return None;
                    }
                }
                let epoch = match step.position {
                    Some(epoch) => next.take_position(epoch)?,
                    None => unseen(*connection),
                };
                next.session = Some(epoch);
            }
            (Action::Release { epoch }, outcome) => {
                let fenced = self.session != Some(*epoch);
                if let Some(Outcome::Released { fenced: told }) = outcome
                    && *told != fenced
                {
                    return None;
                }
                if !fenced {
                    next.session = None;
                }
            }
            (Action::Ack { epoch, up_to_seq }, outcome) => {
                let fenced = *epoch != 0 && self.session != Some(*epoch);
                match outcome {
                    Some(Outcome::AckFenced) if fenced => return Some(next),
                    Some(Outcome::AckFenced) => return None,
                    Some(Outcome::Acked { .. }) if fenced => return None,
                    // Refused, or never made: all the same to everybody else.
                    _ if fenced => return Some(next),
                    _ => {}
                }
                next.messages.retain(|(seq, _)| seq > up_to_seq);
                let removed = (self.messages.len() - next.messages.len()) as u64;
                if matches!(outcome, Some(Outcome::Acked { removed: Some(told) }) if *told != removed)
                {
                    return None;
                }
            }
            (Action::Fetch, Some(Outcome::Fetched { messages })) => {
                return (*messages == self.messages).then_some(next);
            }
            (Action::Locate, Some(Outcome::Located { session })) => {
                let epoch = session.map(|(epoch, _)| epoch);
                return (epoch == self.session).then_some(next);
            }
            (Action::Stat, Some(Outcome::Stat { messages, tail })) => {
                let waits = self.messages.last().map_or(0, |(seq, _)| *seq);
                let fits = (*messages, *tail) == (self.messages.len() as u64, waits);
                return fits.then_some(next);
            }
            _ => return None,
        }
        Some(next)
    }

    fn take_position(&mut self, position: u64) -> Option<u64> {
        let later = position > self.position;
        self.position = self.position.max(position);
        later.then_some(position)
    }
}

/// Which operations are in the order already.
type Done = Vec<u64>;

struct Search<'a> {
    steps: Vec<Step<'a>>,
    failed: HashSet<(Done, User)>,
    looked: u64,
    best: (usize, String),
}

/// One level of the search: what was done, and the next candidate to try.
struct Level {
    done: Done,
    count: usize,
    /// Every operation before it is done.
    first: usize,
    user: User,
    candidates: Vec<usize>,
}

impl Search<'_> {
    fn run(mut self) -> Verdict {
        let words = self.steps.len().div_ceil(64);
        let start = (vec![0; words], 0, 0, User::default());
        let mut levels = vec![self.level(start.0, start.1, start.2, start.3)];
        while let Some(level) = levels.last_mut() {
            if (level.first..self.steps.len())
                .all(|at| is_done(&level.done, at) || self.steps[at].returned == u64::MAX)
            {
                return Verdict::Linearizable;
            }
            let Some(candidate) = level.candidates.pop() else {
                levels.pop();
                continue;
            };
            let Some(user) = level.user.after(&self.steps[candidate]) else { continue };
            // An unknown operation without effect may as well not have happened.
            if self.steps[candidate].returned == u64::MAX && user == level.user {
                continue;
            }
            let mut done = level.done.clone();
            done[candidate / 64] |= 1 << (candidate % 64);
            let (count, first) = (level.count + 1, level.first);
            if !self.failed.insert((done.clone(), user.clone())) {
                continue;
            }
            self.looked += 1;
            if self.looked > STEPS_MAX {
                return Verdict::Undecided;
            }
            let level = self.level(done, count, first, user);
            levels.push(level);
        }
        Verdict::Violated(self.best.1)
    }

    /// What may come next: whatever was invoked before the first return that is still to come.
    fn level(&mut self, done: Done, count: usize, mut first: usize, user: User) -> Level {
        while first < self.steps.len() && is_done(&done, first) {
            first += 1;
        }
        let open = || (first..self.steps.len()).filter(|at| !is_done(&done, *at));
        let mut horizon = u64::MAX;
        let mut candidates = Vec::new();
        for at in open() {
            if self.steps[at].invoked > horizon {
                break;
            }
            horizon = horizon.min(self.steps[at].returned);
            candidates.push(at);
        }
        candidates.retain(|at| self.steps[*at].invoked <= horizon);
        let fits = |at: &usize| self.steps[*at].is_read() && user.after(&self.steps[*at]).is_some();
        if let Some(read) = candidates.iter().copied().find(fits) {
            candidates = vec![read];
        }
        // Popped from the back: first what returns first, last what never returns.
        candidates.sort_by_key(|at| std::cmp::Reverse((self.steps[*at].returned, *at)));
        if count >= self.best.0 {
            let stuck = candidates.iter().rev().take(4).map(|at| self.steps[*at].operation);
            let stuck: Vec<_> = stuck.collect();
            self.best = (count, format!("after {count} operations: {user:?}; then {stuck:?}"));
        }
        Level { done, count, first, user, candidates }
    }
}

fn is_done(done: &[u64], at: usize) -> bool {
    done[at / 64] & (1 << (at % 64)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(operations: &[(Action, u64, Option<u64>, Outcome)]) -> History {
        let mut history = History::default();
        for (action, invoked, returned, outcome) in operations {
            history.operations.push(Operation {
                user: 0,
                action: action.clone(),
                invoked: *invoked,
                returned: *returned,
                outcome: Some(outcome.clone()),
            });
        }
        history
    }

    fn enqueued(seq: u64, prev_seq: u64) -> Outcome {
        Outcome::Enqueued { seq, prev_seq, session: None }
    }

    fn fetched(messages: &[(u64, u64)]) -> Outcome {
        Outcome::Fetched { messages: messages.to_vec() }
    }

    #[test]
    fn reads_at_the_same_time_as_a_write_may_see_it_or_not() {
        for seen in [&[][..], &[(10, 1)]] {
            let history = history(&[
                (Action::Enqueue { message: 1 }, 1, Some(4), enqueued(10, 0)),
                (Action::Fetch, 2, Some(3), fetched(seen)),
            ]);
            assert_eq!(check(&history, 0), Verdict::Linearizable);
        }
    }

    #[test]
    fn a_read_after_a_write_must_see_it() {
        let history = history(&[
            (Action::Enqueue { message: 1 }, 1, Some(2), enqueued(10, 0)),
            (Action::Fetch, 3, Some(4), fetched(&[])),
        ]);
        assert!(matches!(check(&history, 0), Verdict::Violated(_)));
    }

    #[test]
    fn an_unknown_write_may_show_late_and_must_not_go_away() {
        let mut operations = vec![
            (Action::Enqueue { message: 1 }, 1, None, Outcome::Unknown),
            (Action::Fetch, 3, Some(4), fetched(&[])),
            (Action::Fetch, 5, Some(6), fetched(&[(10, 1)])),
        ];
        assert_eq!(check(&history(&operations), 0), Verdict::Linearizable);
        operations.push((Action::Fetch, 7, Some(8), fetched(&[])));
        assert!(matches!(check(&history(&operations), 0), Verdict::Violated(_)));
    }

    #[test]
    fn sums_may_be_old_and_must_have_been_true_once() {
        let stat = |messages, tail| Outcome::Stat { messages, tail };
        let mut operations = vec![
            (Action::Enqueue { message: 1 }, 1, Some(2), enqueued(10, 0)),
            (Action::Enqueue { message: 2 }, 3, Some(4), enqueued(11, 10)),
            (Action::Stat, 5, Some(6), stat(1, 10)),
            (Action::Stat, 7, Some(8), stat(0, 0)),
        ];
        assert_eq!(check(&history(&operations), 0), Verdict::Linearizable);
        operations.push((Action::Stat, 9, Some(10), stat(1, 11)));
        assert!(matches!(check(&history(&operations), 0), Verdict::Violated(_)));
    }

    #[test]
    fn an_ack_of_an_older_epoch_removes_nothing() {
        let claimed = |epoch, backlog, tail| Outcome::Claimed { epoch, backlog, tail };
        let ack = |epoch| Action::Ack { epoch, up_to_seq: 10 };
        let mut operations = vec![
            (Action::Enqueue { message: 1 }, 1, Some(2), enqueued(10, 0)),
            (Action::Claim { connection: 1 }, 3, Some(4), claimed(11, 1, 10)),
            (Action::Claim { connection: 2 }, 5, Some(6), claimed(12, 1, 10)),
            (ack(11), 7, Some(8), Outcome::AckFenced),
            (Action::Fetch, 9, Some(10), fetched(&[(10, 1)])),
        ];
        assert_eq!(check(&history(&operations), 0), Verdict::Linearizable);
        operations.push((ack(11), 11, Some(12), Outcome::Acked { removed: None }));
        assert!(matches!(check(&history(&operations), 0), Verdict::Violated(_)));
    }

    #[test]
    fn the_newest_claim_wins() {
        let claimed = |epoch| Outcome::Claimed { epoch, backlog: 0, tail: 0 };
        let located = |epoch, connection| Outcome::Located { session: Some((epoch, connection)) };
        let mut operations = vec![
            (Action::Claim { connection: 1 }, 1, Some(2), claimed(5)),
            (Action::Claim { connection: 2 }, 3, Some(4), claimed(9)),
            (Action::Release { epoch: 5 }, 5, Some(6), Outcome::Released { fenced: true }),
            (Action::Locate, 7, Some(8), located(9, 2)),
        ];
        assert_eq!(check(&history(&operations), 0), Verdict::Linearizable);
        operations.push((Action::Locate, 9, Some(10), located(5, 1)));
        assert!(matches!(check(&history(&operations), 0), Verdict::Violated(_)));
    }
}
