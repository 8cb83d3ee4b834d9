//! What clients did and what they were told, in the order in which it happened.

use std::collections::BTreeMap;

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Store a message; repeated with the same id, it is still one operation.
    Enqueue {
        /// Never used twice.
        message: u64,
    },
    /// Be the user's session.
    Claim {
        /// Never used twice.
        connection: u64,
    },
    /// End the session, if this is its epoch.
    Release {
        /// The fencing token.
        epoch: u64,
    },
    /// Remove messages.
    Ack {
        /// Only if this is the session's epoch; 0: whatever the session.
        epoch: u64,
        /// All up to and including this one.
        up_to_seq: u64,
    },
    /// Read the whole mailbox, as it is now.
    Fetch,
    /// Read the session, as it is now.
    Locate,
    /// Read sums of the mailbox, of now or of any moment before.
    Stat,
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stored.
    Enqueued {
        /// Its position.
        seq: u64,
        /// That of the message before it; 0: the mailbox was empty.
        prev_seq: u64,
        /// Epoch and connection of the session at that moment.
        session: Option<(u64, u64)>,
    },
    /// It had been stored by an earlier attempt.
    Duplicate,
    /// The session is the client's.
    Claimed {
        /// Its fencing token.
        epoch: u64,
        /// How many messages wait.
        backlog: u64,
        /// The highest seq of them; 0: none waits.
        tail: u64,
    },
    /// Released, or not.
    Released {
        /// Another session is there, or none.
        fenced: bool,
    },
    /// Removed.
    Acked {
        /// How many; none: not told.
        removed: Option<u64>,
    },
    /// Refused: the session is another one.
    AckFenced,
    /// Read.
    Fetched {
        /// Seq and message id of everything that waits, in order.
        messages: Vec<(u64, u64)>,
    },
    /// Looked up.
    Located {
        /// Epoch and connection of the session.
        session: Option<(u64, u64)>,
    },
    /// The sums of a mailbox.
    Stat {
        /// How many messages wait.
        messages: u64,
        /// The highest seq of them; 0: none waits.
        tail: u64,
    },
    /// No answer in time, or none that says: it may have happened, may still, or never will.
    Unknown,
    /// Certainly nothing happened.
    Nothing,
}

/// One thing that a client did to a user.
#[derive(Clone, Debug)]
pub struct Operation {
    /// To whom.
    pub user: usize,
    /// What.
    pub action: Action,
    /// Moments count events, so that no two are equal.
    pub invoked: u64,
    /// When it returned; none while it is under way, or for ever if it is unknown.
    pub returned: Option<u64>,
    /// What it was told; none while it is under way.
    pub outcome: Option<Outcome>,
}

/// Operations in the order of their beginnings.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// All of them.
    pub operations: Vec<Operation>,
    moments: u64,
}

impl History {
    /// Something begins: its number.
    pub fn invoke(&mut self, user: usize, action: Action) -> usize {
        self.moments += 1;
        let invoked = self.moments;
        let operation = Operation { user, action, invoked, returned: None, outcome: None };
        self.operations.push(operation);
        self.operations.len() - 1
    }

    /// An operation ends. What returned unknown goes on for ever.
    pub fn finish(&mut self, operation: usize, outcome: Outcome) {
        self.moments += 1;
        let operation = &mut self.operations[operation];
        // What is unknown never returns: it may take effect at any later moment.
        operation.returned = (outcome != Outcome::Unknown).then_some(self.moments);
        operation.outcome = Some(outcome);
    }

    /// What was done to one user.
    pub fn of(&self, user: usize) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(move |operation| operation.user == user)
    }

    /// How many operations have an unknown outcome.
    #[must_use]
    pub fn unknown(&self) -> usize {
        let unknown = |operation: &&Operation| operation.outcome == Some(Outcome::Unknown);
        self.operations.iter().filter(unknown).count()
    }

    /// The seq of every message that anybody was ever told of.
    #[must_use]
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
    #[must_use]
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
