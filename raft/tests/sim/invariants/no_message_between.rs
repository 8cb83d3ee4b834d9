//! No message between: an enqueue that finds no session lies before every claim that it did not
//! see, so that the device that claims finds the message by its first fetch.

use super::{Checked, broken};
use crate::clients::USERS;
use switchboard_histories::{Action, History, Outcome};

pub fn check(history: &History) -> Checked {
    for user in 0..USERS {
        let claims: Vec<u64> = history.epochs(user).into_values().collect();
        let released: Vec<u64> = history
            .of(user)
            .filter_map(|operation| match operation.action {
                Action::Release { epoch } => Some(epoch),
                _ => None,
            })
            .collect();
        for operation in history.of(user) {
            let Some(Outcome::Enqueued { seq, session, .. }) = &operation.outcome else { continue };
            let told = session.map_or(0, |(epoch, _)| epoch);
            if told > *seq {
                let how = format!("user {user}: {seq} was told of the later session {told}");
                return broken("no message between", how);
            }
            // The newest claim before it. If it is not the session told, it must have been released.
            let newest = claims.iter().copied().filter(|epoch| epoch < seq).max().unwrap_or(0);
            if newest != told && !released.contains(&newest) {
                let how = format!("user {user}: {seq} was told of {told} and not of {newest}");
                return broken("no message between", how);
            }
        }
    }
    Ok(())
}
