//! Lets a machine go down at the point that a run aims at.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use switchboard_engine::fs::sim::SimFiles;

use crate::points::{Namer, Phase, Point};

/// Watches a disk through all the crashes of a run.
#[derive(Clone)]
pub(crate) struct Aim {
    state: Arc<Mutex<State>>,
}

struct State {
    namer: Namer,
    target: Option<Point>,
    /// How many times the target is passed before it is hit.
    spare: u64,
    hit: Option<Point>,
    seen: BTreeSet<Point>,
}

impl Aim {
    pub(crate) fn new() -> Self {
        let state = State {
            namer: Namer::default(),
            target: None,
            spare: 0,
            hit: None,
            seen: BTreeSet::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// From now until the next crash, the machine goes down at the target once it was passed so
    /// many times.
    pub(crate) fn set(&self, disk: &SimFiles, target: Option<Point>, spare: u64) {
        {
            let mut state = self.state.lock();
            state.target = target;
            state.spare = spare;
            state.namer.enter(Phase::Open);
        }
        let state = self.state.clone();
        disk.watch(move |touch| {
            let mut state = state.lock();
            let point = state.namer.name(touch);
            state.seen.insert(point);
            if state.target != Some(point) {
                return false;
            }
            if state.spare > 0 {
                state.spare -= 1;
                return false;
            }
            state.hit = Some(point);
            true
        });
    }

    /// It is open: what follows is work.
    pub(crate) fn opened(&self) {
        self.state.lock().namer.enter(Phase::Work);
    }

    /// Aims at another point than before.
    pub(crate) fn turn_to(&self, target: Option<Point>) {
        self.state.lock().target = target;
    }

    /// All points that were passed or hit.
    pub(crate) fn take_seen(&self) -> BTreeSet<Point> {
        std::mem::take(&mut self.state.lock().seen)
    }

    /// The point at which the machine went down since the last call.
    pub(crate) fn take_hit(&self) -> Option<Point> {
        self.state.lock().hit.take()
    }
}
