//! Crashes at every write, sync and change of names: what was acknowledged is there afterwards,
//! what was not is there whole or not at all, in order.
//!
//! Everything follows from a seed; a failure prints the line that runs it again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use switchboard_engine::fs::sim::{Random, SimFiles};
use switchboard_engine::log::{Log, LogOptions, LogStep, Record};

use crate::model::{Model, random_records};
use crate::support::{open_with, options};

const SEED_VARIABLE: &str = "SWITCHBOARD_LOG_SEED";

fn small() -> LogOptions {
    LogOptions { segment_bytes: 32 * 1024, ..options() }
}

/// A log and what it must hold.
struct Run {
    seed: u64,
    disk: SimFiles,
    random: Random,
    log: Option<Log>,
    /// What is durable for sure.
    durable: Model,
    /// What was appended after that, in order, not known to be durable.
    pending: VecDeque<Vec<Record>>,
    /// `durable` with all that is pending.
    appended: Model,
    completed: Arc<AtomicUsize>,
    said: Vec<Record>,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            disk: SimFiles::new(seed),
            random: Random::new(seed ^ 0x5eed),
            log: None,
            durable: Model::default(),
            pending: VecDeque::new(),
            appended: Model::default(),
            completed: Arc::default(),
            said: Vec::new(),
        }
    }

    fn fail(&self, what: &str) -> ! {
        let seed = self.seed;
        panic!(
            "seed {seed}: {what}\nagain: {SEED_VARIABLE}={seed} cargo test -p switchboard-engine \
             --test log crash"
        )
    }

    /// Opens the log; false if the machine goes down meanwhile.
    fn open(&mut self) -> bool {
        match open_with(&self.disk, small()) {
            // A machine that goes down while the next segment is prepared fails the log later.
            _ if self.disk.is_down() => return false,
            Ok(log) => self.log = Some(log),
            Err(error) => self.fail(&format!("does not open: {error}")),
        }
        self.check();
        true
    }

    /// The log must be what is durable with the first so many of what was pending.
    fn check(&mut self) {
        let Some(log) = self.log.clone() else { return };
        let mut differences = Vec::new();
        while let Some(difference) = self.durable.differs(&log, &self.said) {
            differences.push(difference);
            let Some(records) = self.pending.pop_front() else {
                self.fail(&format!("it is at no point of its history: {differences:#?}"));
            };
            self.durable.apply(&records);
        }
        self.pending.clear();
        self.appended = self.durable.clone();
    }

    /// Does random things to the log until it has done so many, or the machine is down.
    fn work(&mut self, actions: u64) {
        let Some(log) = self.log.clone() else { return };
        for _ in 0..actions {
            match self.random.below(8) {
                0..5 => self.append(&log),
                5..7 => {
                    log.step();
                }
                _ => log.step_silence(),
            }
            self.settle();
            if self.disk.is_down() || log.stats().closed {
                return;
            }
        }
        while log.step() == LogStep::Wrote {}
        self.settle();
    }

    fn append(&mut self, log: &Log) {
        let records = random_records(&self.appended, &mut self.random);
        self.appended.apply(&records);
        let committed = |record: &&Record| matches!(record, Record::Committed { .. });
        self.said.extend(records.iter().filter(committed).cloned());
        let lazy = !records.is_empty() && records.iter().all(|record| committed(&record));
        if lazy {
            // It is no part of what must be durable in order, but the group exists from now on.
            log.append(records, Box::new(|result| result.unwrap()));
            return;
        }
        self.pending.push_back(records.clone());
        let completed = self.completed.clone();
        let count = move |result: Result<(), _>| {
            if result.is_ok() {
                completed.fetch_add(1, Ordering::Relaxed);
            }
        };
        log.append(records, Box::new(count));
    }

    /// Takes what was acknowledged to what must be durable.
    fn settle(&mut self) {
        for _ in 0..self.completed.swap(0, Ordering::Relaxed) {
            let Some(records) = self.pending.pop_front() else {
                self.fail("a completion too many");
            };
            self.durable.apply(&records);
        }
    }
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var(SEED_VARIABLE) {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..count).collect(),
    }
}

#[test]
fn a_crash_at_every_operation_loses_nothing_acknowledged() {
    for seed in seeds(3) {
        let mut whole = Run::new(seed);
        assert!(whole.open());
        whole.work(120);
        let operations = whole.disk.operations();
        assert!(operations > 60, "{operations}");
        for at in 1..=operations {
            let mut run = Run::new(seed);
            run.disk.crash_at(at);
            if run.open() {
                run.work(120);
            }
            run.log = None;
            run.disk.power_cut();
            assert!(run.open(), "seed {seed}, crash at operation {at}");
            run.work(20);
        }
    }
}

#[test]
fn many_crashes_one_after_the_other_lose_nothing_acknowledged() {
    for seed in seeds(150) {
        let mut run = Run::new(seed);
        for _ in 0..12 {
            let at = run.disk.operations() + 1 + run.random.below(60);
            let crashes = !run.random.one_in(4);
            if crashes {
                run.disk.crash_at(at);
            }
            if run.open() {
                let actions = run.random.below(150);
                run.work(actions);
            }
            run.log = None;
            if run.random.one_in(3) {
                // The process only: what it wrote is seen, whether synced or not, and counts from
                // then on.
                run.disk.kill();
                if run.open() {
                    run.log = None;
                }
            }
            run.disk.power_cut();
        }
        assert!(run.open(), "seed {seed}");
    }
}

#[test]
fn what_is_seen_after_a_failed_sync_and_a_restart_is_durable() {
    for seed in seeds(100) {
        let mut run = Run::new(seed);
        assert!(run.open());
        run.disk.fail_sync_at(run.disk.operations() + run.random.below(60));
        run.work(100);
        run.log = None;
        run.disk.kill();
        // Opening may meet the planned failure itself; then it is an error, never a wrong state.
        if let Ok(log) = open_with(&run.disk, small()) {
            run.log = Some(log);
            run.check();
            run.log = None;
        }
        run.disk.power_cut();
        assert!(run.open(), "seed {seed}");
    }
}
