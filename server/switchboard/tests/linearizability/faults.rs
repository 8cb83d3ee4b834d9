//! What goes wrong beside the clients: one fault after the other, each healed before the next.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::{network::Cut, server::Server};

/// How long the cluster is left alone between two faults.
const CALM_MS: std::ops::Range<u64> = 100..700;
/// How long a node stands still or is cut off: around an election timeout, and well beyond.
const AWAY_MS: std::ops::Range<u64> = 200..1_800;

pub(crate) struct Faults {
    random: StdRng,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed) }
    }

    /// Makes faults until then, and leaves everything whole.
    pub(crate) fn make(mut self, stores: &mut [Server], until: Instant) {
        let began = Instant::now();
        while Instant::now() < until {
            self.wait(CALM_MS);
            let node = self.random.random_range(0..stores.len());
            let store = &mut stores[node];
            let kinds = if store.place().is_some() { 8 } else { 4 };
            let what = match (self.random.random_range(0..kinds), store.place()) {
                (4.., Some(place)) => {
                    let cut = if self.random.random_bool(0.5) { Cut::Whole } else { Cut::Unheard };
                    place.cut(cut);
                    self.wait(AWAY_MS);
                    place.heal(cut);
                    match cut {
                        Cut::Whole => "was cut off",
                        Cut::Unheard => "heard and was not heard",
                    }
                }
                (0, _) => {
                    store.kill_and_restart(&mut self.random);
                    "was killed"
                }
                (1, _) => {
                    assert!(store.process.terminate().success(), "it ends in order");
                    store.restart();
                    "was restarted"
                }
                _ => {
                    store.process.stop();
                    self.wait(AWAY_MS);
                    store.process.go_on();
                    "stood still"
                }
            };
            eprintln!("{:6.1} s: node {} {what}", began.elapsed().as_secs_f64(), node + 1);
        }
    }

    fn wait(&mut self, range_ms: std::ops::Range<u64>) {
        std::thread::sleep(Duration::from_millis(self.random.random_range(range_ms)));
    }
}
