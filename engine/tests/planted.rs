//! The test of the crash tests: each fault that is planted must be found by the runs that every change
//! gets. `cargo test -p switchboard-engine --features planted-bugs --test planted`

#![allow(dead_code, reason = "the modules are those of the crash tests, of which this uses a part")]

#[path = "crash/aim.rs"]
mod aim;
#[path = "log/model.rs"]
mod model;
#[path = "crash/node.rs"]
mod node;
#[path = "crash/points.rs"]
mod points;
#[path = "crash/pursuit.rs"]
mod pursuit;
#[path = "crash/reference.rs"]
mod reference;
#[path = "crash/runs.rs"]
mod runs;
#[path = "crash/store.rs"]
mod store;
#[path = "crash/tables.rs"]
mod tables;
#[path = "crash/workload.rs"]
mod workload;

use switchboard_engine::planted::{Bug, plant};

use points::Hits;
use runs::{RUNS, first_failure};

/// Plants a fault, and expects it to be found in as many runs as the crash tests make by default.
fn is_found(bug: Bug) {
    plant(Some(bug));
    let mut hits = Hits::default();
    let store = first_failure::<store::StoreWorld>(0..RUNS, tables::STORE, &mut hits);
    let node = first_failure::<node::NodeWorld>(0..RUNS, tables::NODE, &mut hits);
    plant(None);
    for (world, found) in [("store", &store), ("node", &node)] {
        match found {
            Some((seed, what)) => {
                let what: String = what.chars().take(200).collect();
                println!("{bug:?}: the {world} finds it with seed {seed}: {what}");
            }
            None => println!("{bug:?}: the {world} does not find it"),
        }
    }
    assert!(store.is_some() || node.is_some(), "{bug:?} is not found");
}

#[test]
fn a_skipped_sync_is_found() {
    is_found(Bug::SkippedSync);
}

#[test]
fn a_segment_that_is_let_go_too_early_is_found() {
    is_found(Bug::EarlyRecycle);
}

#[test]
fn a_frame_that_follows_the_wrong_one_is_found() {
    is_found(Bug::WrongChain);
}

#[test]
fn a_segment_that_is_written_while_a_reader_holds_it_is_found() {
    is_found(Bug::HeldSegmentReused);
}

#[test]
fn a_vote_that_only_an_old_segment_had_is_found() {
    is_found(Bug::VoteLeftBehind);
}

#[test]
fn a_last_frame_that_is_not_made_durable_is_found() {
    is_found(Bug::LastFrameNotSecured);
}

#[test]
fn a_checkpoint_before_its_old_files_are_synced_is_found() {
    is_found(Bug::OldFilesNotSynced);
}

#[test]
fn a_checkpoint_before_its_id_files_are_synced_is_found() {
    is_found(Bug::IdFilesNotSynced);
}

#[test]
fn a_checkpoint_whose_name_is_not_synced_is_found() {
    is_found(Bug::CheckpointNameNotSynced);
}

#[test]
fn a_log_that_is_purged_before_the_checkpoint_is_durable_is_found() {
    is_found(Bug::EarlyPurge);
}

#[test]
fn files_that_are_removed_before_the_newer_checkpoint_is_sure_are_found() {
    is_found(Bug::EarlyRemoval);
}
