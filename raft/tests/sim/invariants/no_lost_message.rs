//! Sent means safe: a message that was answered as stored is fetched at the end, unless somebody
//! acknowledged it.

use super::{Checked, broken};
use crate::clients::USERS;
use switchboard_histories::{Action, History, Outcome};

pub fn check(history: &History) -> Checked {
    for user in 0..USERS {
        let acknowledged = history.of(user).filter_map(|operation| match operation.action {
            // An ack whose outcome is unknown may have counted.
            Action::Ack { up_to_seq, .. } if operation.outcome != Some(Outcome::Nothing) => {
                Some(up_to_seq)
            }
            _ => None,
        });
        let acknowledged = acknowledged.max().unwrap_or(0);
        let Some(left) = last_fetch(history, user) else { continue };
        for operation in history.of(user) {
            let Some(Outcome::Enqueued { seq, .. }) = operation.outcome else { continue };
            let here = left.iter().any(|(found, _)| *found == seq);
            if !here && seq > acknowledged {
                let how = format!("user {user}: {:?} at {seq} is gone", operation.action);
                return broken("no lost message", how);
            }
        }
    }
    Ok(())
}

/// The last fetch is that of the end, when all is quiet.
pub fn last_fetch(history: &History, user: usize) -> Option<&[(u64, u64)]> {
    let fetches = history.of(user).filter_map(|operation| match &operation.outcome {
        Some(Outcome::Fetched { messages }) => Some(messages.as_slice()),
        _ => None,
    });
    fetches.last()
}
