//! A batch of commands over many shards: handed over in order, answered item by item.
//!
//! The hand-over is synchronous, so whoever reads requests one after the other keeps their order
//! within every shard without waiting for answers in between. Items of one shard are one proposal:
//! when it fails retryably they all do, so no item is answered OK behind one that was not taken.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use switchboard_api::v1::ItemStatus;
use switchboard_engine::{Command, Reply};
use switchboard_raft::{Node, Overloaded, ProposeError, Proposed, shard_of};
use tonic::Status;

use crate::errors;

/// What one item came to: the engine's reply, or why there is none.
pub(crate) type Answer = Result<Reply, ItemStatus>;

/// A batch that has been handed over.
pub(crate) struct Batch {
    answers: Vec<Answer>,
    under_way: Vec<(Vec<usize>, Proposed)>,
    refusal: Option<Status>,
    started: Instant,
}

/// The answers of a batch.
pub(crate) struct Answers {
    answers: Vec<Answer>,
    refusal: Option<Status>,
}

impl Batch {
    /// Hands each item's command to its user's shard; refused items keep their status.
    pub(crate) fn submit<I>(node: &Node, items: I) -> Self
    where
        I: IntoIterator<Item = Result<Command, ItemStatus>>,
    {
        let shards = node.shard_table();
        let count = u32::try_from(shards.len()).unwrap_or(0);
        let items = items.into_iter();
        let mut answers = Vec::with_capacity(items.size_hint().0);
        let mut by_shard = BTreeMap::<u32, (Vec<usize>, Vec<Command>)>::new();
        // About as many as each shard will get, so that few lists are moved as they grow.
        let each = items.size_hint().0 * 5 / 4 / shards.len().max(1) + 1;
        for item in items {
            let place = answers.len();
            // Until a reply replaces it, an item's outcome is not known.
            answers.push(Err(item.as_ref().err().copied().unwrap_or(ItemStatus::Unavailable)));
            let Ok(command) = item else { continue };
            let Some(user) = user_of(&command).filter(|_| count > 0) else { continue };
            let (places, commands) = by_shard
                .entry(shard_of(user, count))
                .or_insert_with(|| (Vec::with_capacity(each), Vec::with_capacity(each)));
            places.push(place);
            commands.push(command);
        }
        let mut batch =
            Self { answers, under_way: Vec::new(), refusal: None, started: Instant::now() };
        let mut refused: Option<Overloaded> = None;
        for (shard, (places, commands)) in by_shard {
            let Some(Some(group)) = shards.get(shard as usize) else { continue };
            match group.propose(commands) {
                Ok(proposed) => batch.under_way.push((places, proposed)),
                Err(overloaded) => {
                    set_all(&mut batch.answers, &places, |_| ItemStatus::Overloaded);
                    let longest = refused.map_or(Duration::ZERO, |other| other.retry_after);
                    refused = Some(overloaded).filter(|o| o.retry_after >= longest).or(refused);
                }
            }
        }
        if batch.under_way.is_empty() {
            batch.refusal = refused.map(errors::overloaded);
        }
        batch
    }

    /// Waits until every item is answered; in the order of the items.
    pub(crate) async fn answers(mut self) -> Answers {
        let taken = self.under_way.len();
        let mut untouched = 0;
        for (places, proposed) in self.under_way {
            match proposed.await {
                Ok(replies) => {
                    for (place, reply) in places.into_iter().zip(replies) {
                        if let Some(answer) = self.answers.get_mut(place) {
                            *answer = Ok(reply);
                        }
                    }
                }
                Err(error) => {
                    set_all(&mut self.answers, &places, |i| errors::item_of_failure(&error, i));
                    if matches!(error, ProposeError::NotLeader { .. } | ProposeError::Stopped) {
                        untouched += 1;
                        self.refusal.get_or_insert_with(|| errors::proposal(&error));
                    }
                }
            }
        }
        if taken > 0 {
            metrics::histogram!("switchboard_store_commit_seconds").record(self.started.elapsed());
        }
        // Something was taken: the caller has to look at each item.
        let refusal = self.refusal.filter(|_| untouched == taken);
        Answers { answers: self.answers, refusal }
    }
}

impl Answers {
    /// For a call of its own: an error when nothing that was asked for has been tried, so that
    /// callers learn when to come back. Refused items of such a batch would be refused again.
    pub(crate) fn for_call(self) -> Result<Vec<Answer>, Status> {
        self.refusal.map_or(Ok(self.answers), Err)
    }

    /// For a request among others on a stream: item by item, always.
    pub(crate) fn for_stream(self) -> Vec<Answer> {
        self.answers
    }
}

fn set_all(answers: &mut [Answer], places: &[usize], status: impl Fn(usize) -> ItemStatus) {
    for (index, place) in places.iter().enumerate() {
        if let Some(answer) = answers.get_mut(*place) {
            *answer = Err(status(index));
        }
    }
}

/// The user whose shard a command belongs to.
fn user_of(command: &Command) -> Option<&[u8]> {
    match command {
        Command::Claim(c) => Some(&c.device.user),
        Command::Release(c) => Some(&c.device.user),
        Command::Unregister(c) => Some(&c.device.user),
        Command::Enqueue(c) => Some(&c.to_user),
        Command::Ack(c) => Some(&c.device.user),
        Command::Purge(c) => Some(&c.device.user),
        _ => None,
    }
}
