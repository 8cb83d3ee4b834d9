//! What happened in the runs: a fault that never strikes proves nothing.

use std::fmt;

/// Counts of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub simulated_ms: u64,
    pub operations: u64,
    pub unknown: u64,
    /// Users' histories for which the search for an order was given up.
    pub undecided: u64,
    pub elections: u64,
    pub truncations: u64,
    pub snapshots: u64,
    pub moves: u64,
    pub transfers: u64,
    pub checkpoints: u64,
    pub crashes: u64,
    pub wiped: u64,
    /// Replicas that left a node and came again.
    pub renewed: u64,
    pub votes: u64,
}

/// Sums over runs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    runs: u64,
    total: Counts,
    /// Runs in which each occurred.
    with: [u64; 6],
}

impl Summary {
    pub fn add(&mut self, counts: &Counts) {
        self.runs += 1;
        let total = &mut self.total;
        total.simulated_ms += counts.simulated_ms;
        total.operations += counts.operations;
        total.unknown += counts.unknown;
        total.undecided += counts.undecided;
        total.elections += counts.elections;
        total.truncations += counts.truncations;
        total.snapshots += counts.snapshots;
        total.moves += counts.moves;
        total.transfers += counts.transfers;
        total.checkpoints += counts.checkpoints;
        total.crashes += counts.crashes;
        total.wiped += counts.wiped;
        total.renewed += counts.renewed;
        total.votes += counts.votes;
        // The first leader of each of the three groups is no event.
        let occurred = [
            counts.elections > 3,
            counts.truncations > 0,
            counts.snapshots > 0,
            counts.moves > 0,
            counts.wiped > 0,
            counts.renewed > 0,
        ];
        for (with, occurred) in self.with.iter_mut().zip(occurred) {
            *with += u64::from(occurred);
        }
    }

    /// What must occur in at least a fifth of the runs and did not.
    pub fn rare(&self) -> Vec<&'static str> {
        let names = ["elections", "truncations", "snapshots", "moves"];
        let rare = names.iter().zip(self.with).filter(|(_, with)| with * 5 < self.runs);
        rare.map(|(name, _)| *name).collect()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, total, with } = self;
        writeln!(f, "{runs} runs, {} simulated seconds", total.simulated_ms / 1_000)?;
        writeln!(
            f,
            "elections {} (in {} runs), truncations {} ({}), snapshots {} ({}), moves {} ({})",
            total.elections,
            with[0],
            total.truncations,
            with[1],
            total.snapshots,
            with[2],
            total.moves,
            with[3],
        )?;
        writeln!(
            f,
            "crashes {}, disks lost {} ({}), replicas that left and returned {} ({})",
            total.crashes, total.wiped, with[4], total.renewed, with[5]
        )?;
        writeln!(
            f,
            "transfers {}, checkpoints {}, votes asked for {}",
            total.transfers, total.checkpoints, total.votes
        )?;
        write!(
            f,
            "operations {}, of these unknown {}; histories undecided {}",
            total.operations, total.unknown, total.undecided
        )
    }
}
