//! Proof that each checker bites: a bug is planted, and the checker that is there for it must find it
//! within a few seeds.

use switchboard_raft::planted::{PlantedBug, plant};

use crate::faults::Stress;
use crate::world::{Config, run};

/// Seeds that are tried for each bug at most.
const SEEDS: u64 = 80;
const FAULT_MS: u64 = 8_000;

/// Plants a bug and runs seeds until one of the checkers that are there for it has found it. What
/// another one finds first does not count. The first seed is one that found it when the test was
/// written: it saves time, and no more.
fn is_found(bug: PlantedBug, first_seed: u64, by: &[&str]) {
    let stress = match bug {
        PlantedBug::AnswerBeforeSync | PlantedBug::LostVote => Stress::Blackouts,
        PlantedBug::SkippedJointStep => Stress::Moves,
        _ => Stress::Evenly,
    };
    let mut others = Vec::new();
    for seed in first_seed..first_seed + SEEDS {
        let _planted = plant(bug);
        let ended = run(Config {
            seed,
            fault_ms: FAULT_MS,
            stress,
            trust_wiped: bug == PlantedBug::LostDiskVotes,
        });
        match ended.violation {
            Some(violation) if by.contains(&violation.invariant) => {
                println!("{bug:?}: seed {seed}: {violation}");
                return;
            }
            Some(violation) => others.push(format!("seed {seed}: {violation}")),
            None => others.push(format!("seed {seed}: nothing, {:?}", ended.counts)),
        }
    }
    panic!("{bug:?} was not found by {by:?}\n{}", others.join("\n"));
}

#[test]
fn an_answer_before_the_majoritys_sync_is_found() {
    let by = ["no lost message", "state machine safety", "leader completeness", "linearizability"];
    is_found(PlantedBug::AnswerBeforeSync, 1, &by);
}

#[test]
fn applying_by_the_wall_clock_is_found() {
    is_found(PlantedBug::ApplyByWallClock, 1, &["replicas agree", "log time"]);
}

#[test]
fn a_vote_lost_in_a_restart_is_found() {
    is_found(PlantedBug::LostVote, 1, &["votes are kept"]);
}

#[test]
fn a_leader_that_goes_on_leading_after_a_restart_is_found() {
    is_found(PlantedBug::LeaderRestore, 13, &["log matching"]);
}

#[test]
fn a_purge_before_the_checkpoint_is_durable_is_found() {
    is_found(PlantedBug::PurgeBeforeCheckpoint, 4, &["comes back"]);
}

#[test]
fn a_stale_read_is_found() {
    is_found(PlantedBug::StaleRead, 1, &["linearizability"]);
}

#[test]
fn a_leader_that_stamps_by_its_own_clock_is_found() {
    is_found(PlantedBug::OwnClock, 1, &["log time"]);
}

#[test]
fn a_change_of_voters_without_its_joint_step_is_found() {
    let by = ["election safety", "leader completeness", "state machine safety", "no lost message"];
    is_found(PlantedBug::SkippedJointStep, 68, &by);
}

#[test]
fn a_lost_disk_that_votes_again_is_found() {
    let by = [
        "no lost message",
        "state machine safety",
        "leader completeness",
        "linearizability",
        "keeps running",
    ];
    is_found(PlantedBug::LostDiskVotes, 1, &by);
}
