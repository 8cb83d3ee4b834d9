//! What a whole cluster in one simulated process needs of this crate, and no production build has:
//! the feature `simulation` is on for this crate's own tests only.
//!
//! A simulation is one thread. While [`enter`] is in force on it, everything here that would be left
//! to chance follows from the seed: openraft's random numbers and the order in which those who watch
//! a value wake ([`Runtime`]), and blocking work is done in place. Time, disk, network and the log's
//! writer are handed in by [`NodeOptions`](crate::NodeOptions) as always.
//!
//! [`hands`] does to a cluster what an operator would.

use std::cell::Cell;

use switchboard_engine::fs::sim::Random;

pub mod hands;
mod runtime;
mod watch;

pub use runtime::Runtime;

/// A vote, which travels beside a snapshot.
pub type Vote = openraft::alias::VoteOf<crate::types::TypeConfig>;

thread_local! {
    /// The generator of the simulation on this thread; none outside of one.
    static RANDOM: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The term of a vote, and whom it is for.
#[must_use]
pub fn vote_parts(vote: &Vote) -> (u64, crate::types::NodeId) {
    crate::types::vote_parts(vote)
}

/// Makes this thread a simulation until the value returned is dropped.
#[must_use]
pub fn enter(seed: u64) -> Entered {
    RANDOM.set(Some(seed));
    Entered(())
}

/// See [`enter`].
#[derive(Debug)]
pub struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        RANDOM.set(None);
    }
}

/// Whether this thread is a simulation.
pub(crate) fn is_running() -> bool {
    RANDOM.get().is_some()
}

/// The next random number of the simulation on this thread.
fn next_random() -> Option<u64> {
    let number = Random::new(RANDOM.get()?).next();
    RANDOM.set(Some(number));
    Some(number)
}
