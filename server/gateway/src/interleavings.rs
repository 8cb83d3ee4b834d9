//! No message falls between: the delivery code of this crate and the state machine of the store,
//! driven through interleavings of storing, claiming here and on another gateway, releasing,
//! fetching at connect, late pushes, ends of leases, the death of a chat between storing and
//! pushing, and reconciliation.
//!
//! What is real: commands, `apply`, sessions, mailboxes, the log and its bodies (`switchboard-engine`,
//! on simulated files); conversations, peers, and the push service of this crate. What stands in: the
//! order of events, a chat's few steps, and the filter by which a store node hides sessions of ended
//! incarnations. Everything is one thread and repeatable: a failure names its choices.
//!
//! What is checked, by [`world::World`] while it runs and when it comes to rest:
//! 1. If no chat died, each accepted message reaches the connected device *without* reconciliation:
//!    this is what storing and looking up in one step is for.
//! 2. If one died, it does so with reconciliation.
//! 3. The device sees the messages of its sender in the order of sending, each once.
//! 4. Only the newest claim is served: a look-up names no other session and none of an incarnation
//!    that has ended, and what carries an older epoch removes nothing.
//! 5. Nothing leaves the mailbox that the device has not had, and its receipt is there before.
//!
//! The tests end with bugs that are put in on purpose, which the checks must find.

mod explore;
mod store;
mod world;

use explore::{exhaust, sample};
use world::{Budget, Bug};

/// Two messages while a device connects: the world in which one of them could fall between.
const CLAIM_AMID_SENDS: Budget = Budget {
    messages: 2,
    connects: [1, 0],
    chat_deaths: 0,
    lease_ends: 0,
    notices_end: 0,
    acks: 0,
    reconciliations: 0,
    all_is_slow: false,
};

/// Random runs of the code as it is.
const RUNS: u64 = 1_000;
/// Runs that any of the bugs must be found in.
const RUNS_TO_FIND_A_BUG: u64 = 2_000;

/// Every order of the events of a small world holds.
fn holds(budget: Budget) {
    if let Err(failure) = exhaust(budget, None) {
        panic!("{failure}");
    }
}

#[test]
fn a_claim_between_storing_and_pushing() {
    holds(CLAIM_AMID_SENDS);
}

#[test]
fn a_device_that_moves_to_another_gateway() {
    holds(Budget { messages: 1, connects: [1, 1], notices_end: 1, ..Budget::default() });
}

#[test]
fn a_chat_that_dies_after_storing() {
    holds(Budget { messages: 2, connects: [1, 0], chat_deaths: 1, ..Budget::default() });
}

#[test]
fn a_gateway_whose_lease_ends() {
    holds(Budget { messages: 1, connects: [1, 0], lease_ends: 1, ..Budget::default() });
}

#[test]
fn random_runs_of_everything() {
    for seed in 0..runs() {
        if let Err(failure) = sample(seed, Budget::large(), None) {
            panic!("seed {seed}: {failure}");
        }
    }
}

/// How many random runs: more by the environment variable, for a soak.
fn runs() -> u64 {
    let asked = std::env::var("SWITCHBOARD_INTERLEAVINGS").ok();
    asked.and_then(|runs| runs.parse().ok()).unwrap_or(RUNS)
}

/// The checks bite: each bug is found, and by the check that is there for it.
fn is_found(bug: Bug, expected: &str) {
    let found = (0..RUNS_TO_FIND_A_BUG)
        .find_map(|seed| sample(seed, Budget::large(), Some(bug)).err())
        .unwrap_or_else(|| panic!("{bug:?} was not found"));
    assert!(found.contains(expected), "{bug:?} was found as: {found}");
}

/// In a small world nothing but the one thing can go wrong, so the check that finds it is its own.
fn is_found_in_a_small_world(bug: Bug) {
    let found = exhaust(CLAIM_AMID_SENDS, Some(bug)).expect_err("the bug was not found");
    assert!(found.contains("fell between"), "{bug:?} was found as: {found}");
}

#[test]
fn a_look_up_before_the_enqueue_is_found() {
    is_found_in_a_small_world(Bug::LookUpBeforeEnqueue);
}

#[test]
fn a_gateway_that_forgets_pushes_during_its_claim_is_found() {
    is_found_in_a_small_world(Bug::PushesDroppedDuringClaim);
}

#[test]
fn a_gateway_that_never_reconciles_is_found() {
    is_found(Bug::NoReconciliation, "never came");
}

#[test]
fn a_store_that_shows_sessions_of_ended_incarnations_is_found() {
    is_found(Bug::EndedSessionsShown, "has ended");
}

#[test]
fn a_store_that_takes_acks_of_older_epochs_is_found() {
    is_found(Bug::AcksNotFenced, "older epoch");
}
