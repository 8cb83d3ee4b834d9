//! Whole clusters, simulated: the real engine, log and replication on disks that tear, networks that
//! lose and clocks that leap, one thread, one seed. `docs/adr/0015-deterministic-simulation.md` says
//! how it is made deterministic.
//!
//! `SWITCHBOARD_SIM_SEEDS=N` runs N seeds, `SWITCHBOARD_SIM_FIRST=S` begins with seed S,
//! `SWITCHBOARD_SIM_SEED=S` runs S alone, `SWITCHBOARD_SIM_MS=M` simulates M milliseconds of faults,
//! `SWITCHBOARD_SIM_STRESS=moves` or `blackouts` makes these more frequent than all else,
//! `SWITCHBOARD_SIM_TRACE=1` prints every event.
#![allow(unreachable_pub, missing_docs)]

mod clients;
mod clock;
mod faults;
mod invariants;
mod net;
mod observer;
mod planted;
mod process;
mod summary;
mod trace;
mod world;

use faults::Stress;
use summary::Summary;
use world::{Config, run};

/// The share that every `cargo test` runs.
const SEEDS: u64 = 3;
const FAULT_MS: u64 = 10_000;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")),
        Err(_) => default,
    }
}

fn stress() -> Stress {
    match std::env::var("SWITCHBOARD_SIM_STRESS").as_deref() {
        Err(_) | Ok("evenly") => Stress::Evenly,
        Ok("blackouts") => Stress::Blackouts,
        Ok("moves") => Stress::Moves,
        Ok(other) => panic!("SWITCHBOARD_SIM_STRESS is evenly, moves or blackouts, not {other}"),
    }
}

/// The command that repeats a run.
fn reproduce(config: Config) -> String {
    let Config { seed, fault_ms, stress, .. } = config;
    let stress = format!("{stress:?}").to_lowercase();
    format!(
        "SWITCHBOARD_SIM_SEED={seed} SWITCHBOARD_SIM_MS={fault_ms} SWITCHBOARD_SIM_STRESS={stress} \
         cargo test -p switchboard-raft --test sim every_invariant -- --nocapture"
    )
}

#[test]
fn every_invariant_holds_under_faults() {
    let one = std::env::var("SWITCHBOARD_SIM_SEED").is_ok();
    let seeds = if one { 1 } else { setting("SWITCHBOARD_SIM_SEEDS", SEEDS) };
    let first = setting("SWITCHBOARD_SIM_SEED", setting("SWITCHBOARD_SIM_FIRST", 1));
    let fault_ms = setting("SWITCHBOARD_SIM_MS", FAULT_MS);
    let stress = stress();
    let mut summary = Summary::default();
    for seed in first..first + seeds {
        let config = Config { seed, fault_ms, stress, trust_wiped: false };
        let ended = run(config);
        if let Some(violation) = ended.violation {
            panic!("{violation}\n{:?}\n{}", ended.counts, reproduce(config));
        }
        summary.add(&ended.counts);
    }
    println!("{summary}");
    if seeds >= 20 && stress == Stress::Evenly {
        assert_eq!(summary.rare(), Vec::<&str>::new(), "too rare to prove anything");
    }
}

#[test]
fn one_seed_gives_one_run() {
    let stress = Stress::Evenly;
    let config = Config { seed: 77, fault_ms: 4_000, stress, trust_wiped: false };
    let (one, two) = (run(config), run(config));
    assert_eq!(one.violation, two.violation);
    assert_eq!(one.counts, two.counts);
    assert_eq!((one.trace.events, one.trace.hash()), (two.trace.events, two.trace.hash()));
    let other = run(Config { seed: 79, ..config });
    assert_ne!(one.trace.hash(), other.trace.hash());
}
