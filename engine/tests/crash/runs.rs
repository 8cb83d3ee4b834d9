//! Many runs, each from a seed: aim at a point, work until the machine goes down there, restart,
//! compare, go on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use switchboard_engine::fs::sim::{Random, SimFiles};

use crate::aim::Aim;
use crate::points::{Hits, Phase, Point};

/// Runs of each world by default.
pub(crate) const RUNS: u64 = 200;
const RUNS_VARIABLE: &str = "SWITCHBOARD_CRASH_RUNS";
const SEED_VARIABLE: &str = "SWITCHBOARD_CRASH_SEED";
/// Crashes of one run.
const CRASHES: u64 = 6;
/// Actions between two crashes at most; a point that isn't met in so many is left for this time.
const ACTIONS_MAX: u64 = 120;
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
    let target = points.get((seed % points.len().max(1) as u64) as usize).copied();
    let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut world = W::new(seed);
    for crash in 0..CRASHES {
        // Some points are only met after a crash at another.
        let aimed = if random.one_in(4) { any(points, None, &mut random) } else { target };
        let starts = aimed.is_some_and(|(phase, ..)| phase == Phase::Open);
        let spare = if starts { random.below(4) / 2 } else { random.below(4) * random.below(3) };
        world.aim().set(world.disk(), aimed, spare);
        let ended = live(&mut world, points, starts, &mut random);
        world.close();
        if let Err(Failure::Wrong(what)) = ended {
            return Err(format!("after {crash} crashes: {what}"));
        }
        let hit = world.aim().take_hit();
        hits.add(hit, world.aim().take_seen());
        if random.one_in(3) {
            // The process only: what it wrote is seen by the next, synced or not.
            world.disk().kill();
        } else {
            world.disk().power_cut();
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

/// From one start to the next crash. What is left over from a crash is met by the start after it, so a
/// run that aims at a start goes down anywhere in between.
fn live<W: World>(
    world: &mut W,
    points: &[Point],
    starts: bool,
    random: &mut Random,
) -> Result<(), Failure> {
    world.open()?;
    if starts {
        world.aim().turn_to(any(points, Some(Phase::Work), random));
    }
    let actions = if random.one_in(4) { random.below(5) } else { ACTIONS_MAX };
    for _ in 0..actions {
        world.act()?;
    }
    Ok(())
}

fn any(points: &[Point], phase: Option<Phase>, random: &mut Random) -> Option<Point> {
    let fit: Vec<Point> =
        points.iter().copied().filter(|point| phase.is_none_or(|phase| point.0 == phase)).collect();
    fit.get(random.below(fit.len() as u64) as usize).copied()
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
