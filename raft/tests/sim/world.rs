//! A cluster, its clients and what befalls them, on one thread, from one seed.
//!
//! ```text
//!  each step of 1 ms:  letters that arrive ─▶ processes run ─▶ faults ─▶ clients ─▶ a look
//! ```
//! Time passes only here. A run has four parts: the cluster is made; faults and clients do what they
//! do; everything is healed, and has to work again in bounded time; then the history is judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use switchboard_engine::fs::sim::Random;
use switchboard_engine::{Clock, GroupId};
use switchboard_histories::History;
use switchboard_raft::{Group, NodeId, Role, simulation};

use crate::clients::Client;
use crate::clock::Time;
use crate::faults::{Plan, Stress};
use crate::invariants::{Checked, Violation, check_history};
use crate::net::Net;
use crate::observer::Observer;
use crate::process::{End, Process, STEP_MS};
use crate::summary::Counts;
use crate::trace::Trace;

mod delivering;
mod making;
mod replacing;
mod striking;

/// The meta group and two shards, on one log.
const GROUPS: [GroupId; 3] = [0, 1, 2];
/// Milliseconds in which a cluster is made, and in which it works again when all is healed.
const SETTLE_MS_MAX: u64 = 30_000;
/// Milliseconds between looks at replicas, and between looks at their contents.
const LOOK_MS: u64 = 3;
const LOOK_DEEP_MS: u64 = 150;

#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub seed: u64,
    /// Simulated milliseconds of faults.
    pub fault_ms: u64,
    /// With blackouts disks are slow too, for what hides between a write and its sync.
    pub stress: Stress,
    /// Nodes that lost their disks are trusted as if they had not.
    pub trust_wiped: bool,
}

/// What a run ended with.
#[derive(Debug)]
pub struct Ended {
    pub violation: Option<Violation>,
    pub counts: Counts,
    pub trace: Trace,
}

pub fn run(config: Config) -> Ended {
    let _entered = simulation::enter(config.seed);
    let mut world = World::new(config.seed);
    let violation = world.live(config).err();
    world.counts.elections = world.observer.invariants.election_safety.elections();
    world.counts.truncations = world.observer.truncations;
    world.counts.renewed = world.renewed.load(Ordering::Relaxed);
    world.counts.operations = world.history.operations.len() as u64;
    world.counts.unknown = world.history.unknown() as u64;
    world.counts.simulated_ms = world.time.now_ms();
    for process in &mut world.processes {
        process.end(End::Kill, u64::MAX);
    }
    Ended { violation, counts: world.counts, trace: world.trace }
}

/// A change of voters under way.
struct Move {
    /// The process that makes it, and in which of its lives.
    at: usize,
    life: u64,
    /// Set when it has ended, and when it has ended well.
    over: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
}

/// What becomes of the votes of a replica.
enum Voting {
    Granted { by: (NodeId, GroupId), vote: (u64, NodeId), life: u64 },
    Forgotten { node: NodeId, group: GroupId },
}

struct World {
    time: Time,
    net: Net,
    processes: Vec<Process>,
    clients: Vec<Client>,
    history: History,
    observer: Observer,
    trace: Trace,
    counts: Counts,
    random: Random,
    /// Whether every event is printed: `SWITCHBOARD_SIM_TRACE`.
    shown: bool,
    moving: Option<Move>,
    /// Whose clock was wrong last, and until when others may go by what it showed.
    wrong_clock: Option<(usize, u64)>,
    wiped: Option<replacing::Wiped>,
    /// Replicas that were dropped and came again.
    renewed: Arc<AtomicU64>,
    /// What became of votes since the last step, in order.
    votes: Arc<Mutex<Vec<Voting>>>,
    /// Nobody minds that a disk was lost: the planted bug.
    trust_wiped: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let time = Time::default();
        let net = Net::new(time.clone(), random.next());
        // Three nodes, or five of which three have replicas at first.
        let nodes = if seed.is_multiple_of(2) { 5 } else { 3 };
        let processes =
            (1..=nodes).map(|id| Process::new(id, random.next(), &time, &net, &GROUPS)).collect();
        let clients = (1..=5).map(|id| Client::new(id, random.next())).collect();
        Self {
            time,
            net,
            processes,
            clients,
            history: History::default(),
            observer: Observer::default(),
            trace: Trace::default(),
            counts: Counts::default(),
            random,
            shown: std::env::var_os("SWITCHBOARD_SIM_TRACE").is_some(),
            moving: None,
            wrong_clock: None,
            wiped: None,
            renewed: Arc::default(),
            votes: Arc::default(),
            trust_wiped: false,
        }
    }

    fn live(&mut self, config: Config) -> Checked {
        self.trust_wiped = config.trust_wiped;
        self.make()?;
        let nodes = self.processes.len() as u64;
        let mut plan = Plan::new(self.random.next(), nodes, self.now() + 500, config.stress);
        if config.stress == Stress::Blackouts {
            for process in &self.processes {
                *process.sync_ms_max.lock() = 100;
            }
        }
        let until_ms = self.now() + config.fault_ms;
        while self.now() < until_ms {
            if let Some(fault) = plan.due(self.now()) {
                self.befall(fault);
            }
            self.step(true)?;
        }
        self.recover()?;
        self.counts.undecided = check_history(&self.history)?;
        Ok(())
    }

    fn now(&self) -> u64 {
        self.time.now_ms()
    }

    fn step(&mut self, begin: bool) -> Checked {
        self.time.advance(STEP_MS);
        let now_ms = self.now();
        self.start_those_due(now_ms);
        while let Some(letter) = self.net.arrived() {
            self.deliver(letter);
        }
        for process in &self.processes {
            process.step();
        }
        for at in 0..self.processes.len() {
            if self.processes[at].is_up() && self.processes[at].disk.is_down() {
                self.counts.crashes += 1;
                let back_ms = now_ms + self.random.below(600);
                let end = if self.random.one_in(2) { End::Kill } else { End::PowerCut };
                self.note(format_args!("down {at} {end:?}"));
                self.processes[at].end(end, back_ms);
            }
        }
        let nodes = self.processes.len() as u64;
        for client in &mut self.clients {
            client.step(now_ms, &mut self.history, &self.net, nodes, begin);
        }
        self.note_moved();
        self.note_votes()?;
        self.replace_disk();
        if now_ms.is_multiple_of(LOOK_MS) {
            self.look(now_ms.is_multiple_of(LOOK_DEEP_MS))?;
        }
        Ok(())
    }

    fn start_those_due(&mut self, now_ms: u64) {
        for at in 0..self.processes.len() {
            let process = &self.processes[at];
            if !process.is_up() && process.starts_at_ms.is_some_and(|at| at <= now_ms) {
                self.note(format_args!("start {at}"));
                self.processes[at].start();
            }
        }
    }

    /// Adds an event to the trace, and shows it to whoever asked for it.
    fn note(&mut self, event: std::fmt::Arguments<'_>) {
        let now_ms = self.time.now_ms();
        if self.shown {
            println!("{now_ms} {event}");
        }
        self.trace.event(format_args!("{now_ms} {event}"));
    }

    fn note_votes(&mut self) -> Checked {
        let kept = &mut self.observer.invariants.votes_kept;
        for voting in self.votes.lock().drain(..) {
            match voting {
                Voting::Granted { by, vote, life } => kept.granted(by, vote, life)?,
                Voting::Forgotten { node, group } => kept.forget(node, group),
            }
        }
        Ok(())
    }

    fn look(&mut self, deep: bool) -> Checked {
        let mut clocks: Vec<u64> =
            self.processes.iter().map(|process| process.clock.unix_ms()).collect();
        clocks.sort_unstable();
        let median_ms = clocks[clocks.len() / 2];
        for process in &self.processes {
            self.observer.look(process, &GROUPS, median_ms, deep)?;
        }
        Ok(())
    }

    fn group(&self, at: usize, id: GroupId) -> Option<Arc<Group>> {
        self.processes.get(at)?.node()?.group(id)
    }

    /// Which node leads a group, the one of the highest term if several believe it.
    fn leader(&self, id: GroupId) -> Option<usize> {
        let leads = |at: &usize| {
            let status = self.group(*at, id).map(|group| group.status());
            status.filter(|s| s.role == Role::Leader).map(|s| (s.term, *at))
        };
        (0..self.processes.len()).filter_map(|at| leads(&at)).max().map(|(_, at)| at)
    }
}
