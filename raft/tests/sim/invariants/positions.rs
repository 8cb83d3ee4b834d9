//! Positions: epochs and seqs of one user are never handed out twice, and grow with real time.

use super::{Checked, broken};
use crate::clients::USERS;
use switchboard_histories::{History, Outcome};

pub fn check(history: &History) -> Checked {
    for user in 0..USERS {
        let mut given: Vec<(u64, u64, u64)> = history
            .of(user)
            .filter_map(|operation| {
                let position = match operation.outcome.as_ref()? {
                    Outcome::Enqueued { seq, .. } => *seq,
                    Outcome::Claimed { epoch, .. } => *epoch,
                    _ => return None,
                };
                Some((position, operation.invoked, operation.returned?))
            })
            .collect();
        given.sort_unstable();
        for pair in given.windows(2) {
            if pair[0].0 == pair[1].0 {
                return broken("positions", format!("user {user}: {} twice", pair[0].0));
            }
        }
        // Of two positions, the larger one was not given before the smaller one was asked for.
        let mut earliest_return = u64::MAX;
        for (position, invoked, returned) in given.iter().rev() {
            if earliest_return < *invoked {
                let how = format!("user {user}: {position} was given after a larger one");
                return broken("positions", how);
            }
            earliest_return = earliest_return.min(*returned);
        }
    }
    Ok(())
}
