//! What clients did and what they were told, in the order in which it happened.

use std::collections::BTreeMap;

/// What a client wants. Message ids and connection ids are never used twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Enqueue { message: u64 },
    Claim { connection: u64 },
    Release { epoch: u64 },
    Ack { up_to_seq: u64 },
    Fetch,
    Locate,
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Enqueued {
        seq: u64,
        prev_seq: u64,
        session: Option<(u64, u64)>,
    },
    /// It had been stored by an earlier attempt.
    Duplicate,
    Claimed {
        epoch: u64,
        backlog: u64,
        tail: u64,
    },
    Released {
        fenced: bool,
    },
    Acked {
        removed: u64,
    },
    /// Seq and message id of everything that waits.
    Fetched {
        messages: Vec<(u64, u64)>,
    },
    /// Epoch and connection of the session.
    Located {
        session: Option<(u64, u64)>,
    },
    /// No answer in time, or none that says: it may have happened, may still, or never will.
    Unknown,
    /// Certainly nothing happened.
    Nothing,
}

#[derive(Clone, Debug)]
pub struct Operation {
    pub user: usize,
    pub action: Action,
    /// Moments count events, so that no two are equal.
    pub invoked: u64,
    /// When it returned; none while it is under way, or for ever if it is unknown.
    pub returned: Option<u64>,
    pub outcome: Option<Outcome>,
}

#[derive(Clone, Debug, Default)]
pub struct History {
    pub operations: Vec<Operation>,
    moments: u64,
}

impl History {
    pub fn invoke(&mut self, user: usize, action: Action) -> usize {
        self.moments += 1;
        let invoked = self.moments;
        let operation = Operation { user, action, invoked, returned: None, outcome: None };
        self.operations.push(operation);
        self.operations.len() - 1
    }

    pub fn finish(&mut self, operation: usize, outcome: Outcome) {
        self.moments += 1;
        let operation = &mut self.operations[operation];
        // What is unknown never returns: it may take effect at any later moment.
        operation.returned = (outcome != Outcome::Unknown).then_some(self.moments);
        operation.outcome = Some(outcome);
    }

    pub fn of(&self, user: usize) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(move |operation| operation.user == user)
    }

    pub fn unknown(&self) -> usize {
        let unknown = |operation: &&Operation| operation.outcome == Some(Outcome::Unknown);
        self.operations.iter().filter(unknown).count()
    }

    /// The seq of every message that anybody was ever told of.
    pub fn seqs(&self, user: usize) -> BTreeMap<u64, u64> {
        let mut seqs = BTreeMap::new();
        for operation in self.of(user) {
            match (&operation.action, &operation.outcome) {
                (Action::Enqueue { message }, Some(Outcome::Enqueued { seq, .. })) => {
                    seqs.insert(*message, *seq);
                }
                (_, Some(Outcome::Fetched { messages })) => {
                    seqs.extend(messages.iter().map(|(seq, message)| (*message, *seq)));
                }
                _ => {}
            }
        }
        seqs
    }

    /// The epoch of every connection that anybody was ever told of.
    pub fn epochs(&self, user: usize) -> BTreeMap<u64, u64> {
        let mut epochs = BTreeMap::new();
        for operation in self.of(user) {
            match (&operation.action, &operation.outcome) {
                (Action::Claim { connection }, Some(Outcome::Claimed { epoch, .. })) => {
                    epochs.insert(*connection, *epoch);
                }
                (
                    _,
                    Some(
                        Outcome::Located { session: Some((epoch, connection)) }
                        | Outcome::Enqueued { session: Some((epoch, connection)), .. },
                    ),
                ) => {
                    epochs.insert(*connection, *epoch);
                }
                _ => {}
            }
        }
        epochs
    }
}
