//! Order and once: every fetch is in the order of seq and shows each message once; a message has one
//! seq for ever; what a sender sent one after the other lies in that order.

use std::collections::BTreeMap;

use super::{Checked, broken};
use crate::clients::USERS;
use switchboard_histories::{History, Outcome};

pub fn check(history: &History) -> Checked {
    for user in 0..USERS {
        let mut seqs: BTreeMap<u64, u64> = BTreeMap::new();
        for operation in history.of(user) {
            let Some(Outcome::Fetched { messages }) = &operation.outcome else { continue };
            if !messages.is_sorted_by(|one, next| one.0 < next.0) {
                return broken("mailbox order", format!("user {user}: {messages:?}"));
            }
            for (seq, message) in messages {
                let known = *seqs.entry(*message).or_insert(*seq);
                if known != *seq {
                    let how = format!("user {user}: message {message:x} at {known} and at {seq}");
                    return broken("mailbox order", how);
                }
            }
        }
        // Message numbers of a client grow, and each is under way alone.
        let by_number: Vec<(u64, u64)> = seqs.into_iter().collect();
        for pair in by_number.windows(2) {
            let one_sender = pair[0].0 >> 32 == pair[1].0 >> 32;
            if one_sender && pair[0].1 > pair[1].1 && !given_up(history, user, pair[0].0) {
                let how = format!("user {user}: {:x} lies behind {:x}", pair[0].0, pair[1].0);
                return broken("mailbox order", how);
            }
        }
    }
    Ok(())
}

/// Whether the sender gave the message up without an answer and went on: it may arrive late.
fn given_up(history: &History, user: usize, message: u64) -> bool {
    use switchboard_histories::{Action, Operation};
    let of_it = |operation: &&Operation| operation.action == (Action::Enqueue { message });
    let sent = history.of(user).find(of_it);
    sent.is_none_or(|operation| operation.returned.is_none())
}
