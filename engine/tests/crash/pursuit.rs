//! How a run comes to its point: what each process of it aims at, and how it ends.
//!
//! The first crashes of a run are anywhere as well as at its point. Then it goes on until it has hit
//! its point. Most points that are met rarely are the removal of what a crash has left over, so the
//! machine first goes down where that is left, in a way in which it stays.

use switchboard_engine::fs::sim::Random;

use crate::points::{Phase, Point};

use Phase::{Open, Work};

/// Crashes of a run wherever it may be.
const CRASHES: u64 = 6;
/// Crashes of a run that doesn't come to its point.
const CRASHES_MAX: u64 = 30;
/// Actions between two crashes at most; a point that isn't met in so many is left for this time.
const ACTIONS_MAX: u64 = 120;
/// The same for a run that does nothing but pursue its point.
const ACTIONS_PURSUING: u64 = 400;

/// One process: where the machine goes down while it runs.
pub(crate) struct Life {
    /// It begins with an empty disk.
    pub(crate) new_disk: bool,
    pub(crate) aim: Option<Point>,
    /// How many times that is passed before.
    pub(crate) spare: u64,
    /// What is aimed at once all is open, if it is something else.
    pub(crate) then: Option<Point>,
    pub(crate) actions: u64,
}

/// How the machine goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The process only: what it wrote is seen by the next, synced or not.
    Kill,
    PowerCut,
}

/// What must be before a point can be met.
#[derive(Clone, Copy)]
struct Way {
    new_disk: bool,
    /// A crash at one of these leaves it.
    through: &'static [Point],
    /// That is passed less often than this before the crash, as chance decides.
    passes_max: u64,
    end: End,
}

impl Way {
    const NONE: Self = Self { new_disk: false, through: &[], passes_max: 1, end: End::Kill };
    const NEW_DISK: Self = Self { new_disk: true, ..Self::NONE };
}

/// Where half a new segment is left.
const NEW_SEGMENT: &[Point] = &[
    (Work, "new segment", "create"),
    (Work, "new segment", "write"),
    (Work, "new segment", "sync"),
];

/// The way to a point, if it is not met by work alone.
fn way(point: Point) -> Option<Way> {
    let left = |through| Way { through, ..Way::NONE };
    Some(match point {
        (Open, "lock" | "segment header" | "frame of entries", _) => Way::NEW_DISK,
        (Open, "disk id", how) if how != "remove" => Way::NEW_DISK,
        // The first segment, and the name that the disk id is written under.
        (Open, "disk id" | "surplus segment", "remove") => Way {
            through: &[
                (Open, "disk id", "create"),
                (Open, "disk id", "write"),
                (Open, "disk id", "sync"),
            ],
            ..Way::NEW_DISK
        },
        // Where the next segment is already there, a start takes none: its name must be lost.
        (Open, "recycled segment", _) => Way {
            through: &[
                (Work, "recycled segment", "rename"),
                (Work, "recycled segment", "sync directory"),
            ],
            end: End::PowerCut,
            ..Way::NONE
        },
        (Open, "new segment", "remove") => left(NEW_SEGMENT),
        // The start takes a segment that was held until then, so that the rest stays.
        (Work, "new segment", "remove") => Way { passes_max: 12, ..left(NEW_SEGMENT) },
        (Open, "older checkpoint", _) => {
            left(&[(Work, "checkpoint", "rename"), (Work, "checkpoint", "sync directory")])
        }
        (Work, "checkpoint", "remove") => left(&[
            (Work, "checkpoint", "create"),
            (Work, "checkpoint", "write"),
            (Work, "checkpoint", "sync"),
        ]),
        (Open, "id file", _) => left(&[
            (Work, "id file", "write"),
            (Work, "id file", "sync"),
            (Work, "checkpoint", "write"),
        ]),
        (Open, "old file", _) => {
            left(&[(Work, "old file, moving", "write"), (Work, "old file, moving", "sync")])
        }
        _ => return None,
    })
}

/// What a run aims at: runs are shared out to the points, more of them to those hard to come to.
fn target(seed: u64, points: &[Point]) -> Option<Point> {
    let shares: Vec<Point> =
        points.iter().flat_map(|point| std::iter::repeat_n(*point, shares(*point))).collect();
    shares.get((seed % shares.len().max(1) as u64) as usize).copied()
}

fn shares(point: Point) -> usize {
    match point {
        (Work, "new segment", "remove") => 4,
        (Work, "frame with a drop" | "recycled segment" | "surplus segment", _) => 2,
        _ if way(point).is_some() => 2,
        _ => 1,
    }
}

/// Plans the processes of one run.
pub(crate) struct Pursuit<'a> {
    points: &'a [Point],
    target: Option<Point>,
    crashes: u64,
    is_hit: bool,
    /// The last crash has left over what the target needs.
    is_left: bool,
}

impl<'a> Pursuit<'a> {
    pub(crate) fn new(seed: u64, points: &'a [Point]) -> Self {
        let target = target(seed, points);
        Self { points, target, crashes: 0, is_hit: false, is_left: false }
    }

    pub(crate) fn crashes(&self) -> u64 {
        self.crashes
    }

    /// The next process, unless the run has come to its end.
    pub(crate) fn next(&mut self, random: &mut Random) -> Option<Life> {
        if self.crashes < CRASHES {
            return Some(self.wander(random));
        }
        let target = self.target.filter(|_| !self.is_hit && self.crashes < CRASHES_MAX)?;
        Some(self.pursue(target, random))
    }

    fn wander(&self, random: &mut Random) -> Life {
        // Some points are only met after a crash at another.
        let aim = if random.one_in(4) { one_of(self.points, random) } else { self.target };
        let starts = aim.is_some_and(|(phase, ..)| phase == Open);
        let spare = if starts { random.below(4) / 2 } else { random.below(4) * random.below(3) };
        let actions = if random.one_in(4) { random.below(5) } else { ACTIONS_MAX };
        // What is left over from a crash is met by the start after it, so a run that aims at a
        // start goes down anywhere in between.
        let then = if starts { any_work(self.points, random) } else { None };
        Life { new_disk: false, aim, spare, then, actions }
    }

    fn pursue(&self, target: Point, random: &mut Random) -> Life {
        let Way { new_disk, through, passes_max, .. } = way(target).unwrap_or(Way::NONE);
        let before = one_of(through, random);
        let passes = random.below(passes_max);
        let actions = ACTIONS_PURSUING;
        let life = Life { new_disk: false, aim: Some(target), spare: 0, then: None, actions };
        match (before, target.0) {
            _ if self.is_left => life,
            (_, _) if new_disk => Life { new_disk, aim: before.or(Some(target)), ..life },
            (Some(before), Open) => Life { then: Some(before), ..life },
            (Some(before), Work) => Life { aim: Some(before), spare: passes, ..life },
            (None, Open) => Life { then: any_work(self.points, random), ..life },
            (None, Work) => life,
        }
    }

    /// A process has ended, at a point or not; says how the machine goes down.
    pub(crate) fn ended(&mut self, hit: Option<Point>, random: &mut Random) -> End {
        self.crashes += 1;
        self.is_hit |= hit.is_some() && hit == self.target;
        let way = self.target.and_then(way);
        let passed = way.filter(|way| hit.is_some_and(|hit| way.through.contains(&hit)));
        self.is_left = passed.is_some();
        let end = if random.one_in(3) { End::Kill } else { End::PowerCut };
        passed.filter(|_| self.crashes > CRASHES).map_or(end, |way| way.end)
    }
}

fn any_work(points: &[Point], random: &mut Random) -> Option<Point> {
    let fit: Vec<Point> = points.iter().copied().filter(|(phase, ..)| *phase == Work).collect();
    one_of(&fit, random)
}

fn one_of(points: &[Point], random: &mut Random) -> Option<Point> {
    if points.is_empty() {
        return None;
    }
    points.get(random.below(points.len() as u64) as usize).copied()
}
