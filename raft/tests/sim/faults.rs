//! What goes wrong, and when: drawn from the seed alone, whatever the cluster does meanwhile.

use switchboard_engine::GroupId;
use switchboard_engine::fs::sim::Random;

/// One misfortune. Nodes are numbered from 0 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node, and another one with it if it is named, hears none of the others and none hears it.
    Isolate { node: usize, leader: bool, with: Option<usize> },
    /// A node is heard and hears nobody.
    Deafen { node: usize, leader: bool },
    /// The network delays, loses and repeats.
    Storm,
    /// All that is wrong with the network ends.
    Heal,
    /// A process dies, or a machine loses power; back after a while.
    Crash { node: usize, leader: bool, power: bool, after_ms: u64 },
    /// A machine goes down in the midst of an operation of its disk.
    CrashAtOperation { node: usize, operation: u64 },
    /// Every machine loses power.
    Blackout,
    /// The syncs of a disk become slow, or fast again.
    Disk { node: usize, sync_ms_max: u64 },
    /// The clock of one node is wrong by so much, unless another's was a moment ago.
    Clock { node: usize, error_ms: i64 },
    /// The leader of a group hands over.
    Transfer { group: GroupId, to: usize },
    /// A node takes a checkpoint and purges all of its log.
    Checkpoint { node: usize, group: GroupId },
    /// A replica of a group moves to a node that has none, or voters are added or removed.
    Move { group: GroupId },
    /// A node drops its replica of a group, if it is no member, and has a new one in its place.
    Renew { node: usize, group: GroupId },
    /// A machine loses its disk, and comes back with an empty one.
    Wipe { node: usize },
}

/// What goes wrong more often than anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stress {
    Evenly,
    /// Every fourth fault is a blackout.
    Blackouts,
    /// Voters change while the leader and a neighbour are cut off, and dies and comes back.
    Moves,
}

/// Draws what goes wrong.
pub struct Plan {
    random: Random,
    nodes: u64,
    next_ms: u64,
    stress: Stress,
}

impl Plan {
    pub fn new(seed: u64, nodes: u64, from_ms: u64, stress: Stress) -> Self {
        Self { random: Random::new(seed), nodes, next_ms: from_ms, stress }
    }

    /// What goes wrong at this moment.
    pub fn due(&mut self, now_ms: u64) -> Option<Fault> {
        if now_ms < self.next_ms {
            return None;
        }
        self.next_ms = now_ms + 40 + self.random.below(500);
        Some(match self.stress {
            Stress::Blackouts if self.random.one_in(4) => Fault::Blackout,
            Stress::Moves if !self.random.one_in(4) => self.draw_move(),
            _ => self.draw(),
        })
    }

    fn draw_move(&mut self) -> Fault {
        let node = self.random.below(self.nodes) as usize;
        match self.random.below(6) {
            0..=1 => Fault::Move { group: self.group() },
            2..=3 => Fault::Isolate { node, leader: true, with: self.neighbour() },
            4 => Fault::Crash { node, leader: true, power: false, after_ms: 0 },
            _ => Fault::Heal,
        }
    }

    /// Who shares the fate of a node that is cut off: of three nodes, nobody.
    fn neighbour(&mut self) -> Option<usize> {
        let shared = self.nodes > 3 && self.random.one_in(2);
        shared.then(|| self.random.below(self.nodes) as usize)
    }

    fn group(&mut self) -> GroupId {
        self.random.below(3) as GroupId
    }

    fn draw(&mut self) -> Fault {
        let node = self.random.below(self.nodes) as usize;
        let leader = self.random.one_in(2);
        match self.random.below(112) {
            0..=8 => Fault::Isolate { node, leader, with: self.neighbour() },
            9..=13 => Fault::Deafen { node, leader },
            14..=18 => Fault::Storm,
            19..=38 => Fault::Heal,
            39..=52 => {
                let (power, at_once) = (self.random.one_in(2), self.random.one_in(2));
                let after_ms = if at_once { 0 } else { self.random.below(1_500) };
                Fault::Crash { node, leader, power, after_ms }
            }
            53..=59 => {
                let operation = 1 + self.random.below(20);
                Fault::CrashAtOperation { node, operation }
            }
            60..=63 => Fault::Blackout,
            64..=71 => {
                let slow = self.random.one_in(2);
                let sync_ms_max = if slow { 5 + self.random.below(120) } else { 2 };
                Fault::Disk { node, sync_ms_max }
            }
            72..=78 => {
                let error_ms = [0, 0, 3_600_000, 3_600_000, -3_600_000, 5_000];
                let error_ms = error_ms[self.random.below(6) as usize];
                Fault::Clock { node, error_ms }
            }
            79..=84 => Fault::Transfer { group: self.group(), to: node },
            85..=92 => Fault::Checkpoint { node, group: self.group() },
            93..=99 => Fault::Move { group: self.group() },
            // Every node keeps its replica of the meta group.
            100..=107 => Fault::Renew { node, group: 1 + self.random.below(2) as GroupId },
            _ => Fault::Wipe { node },
        }
    }
}
