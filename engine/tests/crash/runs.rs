//! Many runs, each from a seed: aim at a point, work until the machine goes down there, restart,
//! compare, go on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use switchboard_engine::fs::sim::{Random, SimFiles};

use crate::aim::Aim;
use crate::points::{Hits, Point};
use crate::pursuit::{End, Life, Pursuit};

/// Runs of each world by default.
pub(crate) const RUNS: u64 = 200;
const RUNS_VARIABLE: &str = "SWITCHBOARD_CRASH_RUNS";
const SEED_VARIABLE: &str = "SWITCHBOARD_CRASH_SEED";
/// Hits at each point from this many runs on.
const HITS_MIN: u64 = 100;
const RUNS_FOR_HITS: u64 = 10_000;

/// Why something came to no good end.
pub(crate) enum Failure {
    /// The machine went down, as planned.
    Down,
    /// What is found is not what must be there.
    Wrong(String),
}

impl Failure {
    pub(crate) fn wrong(what: impl Into<String>) -> Self {
        Self::Wrong(what.into())
    }
}

/// Something that keeps data on a simulated disk, and knows what must be there.
pub(crate) trait World {
    fn new(seed: u64) -> Self;
    fn disk(&self) -> &SimFiles;
    /// What watches the disk.
    fn aim(&self) -> &Aim;
    /// Opens what is on the disk, and compares all of it with what must be there.
    fn open(&mut self) -> Result<(), Failure>;
    /// Does one random thing.
    fn act(&mut self) -> Result<(), Failure>;
    /// Lets go of everything, as a process that ends does.
    fn close(&mut self);
}

/// One run: what is wrong, if anything is.
pub(crate) fn run<W: World>(seed: u64, points: &[Point], hits: &mut Hits) -> Result<(), String> {
    let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut pursuit = Pursuit::new(seed, points);
    let mut world = W::new(seed);
    while let Some(life) = pursuit.next(&mut random) {
        if life.new_disk {
            world = W::new(random.next());
        }
        world.aim().set(world.disk(), life.aim, life.spare);
        let ended = live(&mut world, &life);
        world.close();
        if let Err(Failure::Wrong(what)) = ended {
            return Err(format!("after {} crashes: {what}", pursuit.crashes()));
        }
        let hit = world.aim().take_hit();
        hits.add(hit, world.aim().take_seen());
        match pursuit.ended(hit, &mut random) {
            End::Kill => world.disk().kill(),
            End::PowerCut => world.disk().power_cut(),
        }
        if hit.is_none() && random.one_in(4) {
            // Some points are only met in the first days of a disk.
            world = W::new(random.next());
        }
    }
    match world.open() {
        Err(Failure::Wrong(what)) => Err(format!("in the end: {what}")),
        _ => Ok(()),
    }
}

/// From one start to the next crash.
fn live<W: World>(world: &mut W, life: &Life) -> Result<(), Failure> {
    world.open()?;
    if life.then.is_some() {
        world.aim().turn_to(life.then);
    }
    for _ in 0..life.actions {
        world.act()?;
    }
    Ok(())
}

/// The first seed of `seeds` that fails, and why; each crash is counted.
pub(crate) fn first_failure<W: World>(
    seeds: impl Iterator<Item = u64>,
    points: &[Point],
    hits: &mut Hits,
) -> Option<(u64, String)> {
    for seed in seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| run::<W>(seed, points, hits)));
        if let Err(what) = outcome.unwrap_or_else(|panic| Err(message(&*panic))) {
            return Some((seed, what));
        }
    }
    None
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a panic: {}", text.unwrap_or("of no known kind"))
}

/// Runs as many seeds as are asked for, and shows where machines went down.
pub(crate) fn survive<W: World>(test: &str, points: &[Point]) {
    let seed = std::env::var(SEED_VARIABLE).ok().map(|seed| seed.parse().expect("a seed"));
    let asked = std::env::var(RUNS_VARIABLE).ok().map(|runs| runs.parse().expect("a number"));
    let runs = asked.unwrap_or(RUNS);
    let seeds = seed.map_or(0..runs, |seed: u64| seed..seed + 1);
    let mut hits = Hits::default();
    if let Some((seed, what)) = first_failure::<W>(seeds, points, &mut hits) {
        panic!(
            "seed {seed}: {what}\nagain: {SEED_VARIABLE}={seed} cargo test -p switchboard-engine \
             --test crash {test}"
        );
    }
    if seed.is_some() {
        return;
    }
    hits.print(&format!("{test}, {runs} runs"));
    let unlisted = hits.unlisted(points);
    assert!(unlisted.is_empty(), "points that the list lacks:\n{}", unlisted.join("\n"));
    let wanted = if runs >= RUNS_FOR_HITS { HITS_MIN } else { 0 };
    let rare = hits.rare(points, wanted);
    assert!(rare.is_empty(), "hit less than {wanted} times: {rare:#?}");
}
