//! Ways through a world: all of them for a small budget, random ones for a large.

use super::{
    store::Store,
    world::{Budget, Bug, Step, World},
};

/// Runs on one store; then a fresh one, to give its memory away.
const RUNS_A_STORE: u64 = 500;

/// A budget with more ways than this is too large to be exhausted in a test.
const RUNS_MAX: u64 = 400_000;

/// Follows every order of events that the budget allows; what failed first, with the way to it.
pub(super) fn exhaust(budget: Budget, bug: Option<Bug>) -> Result<(), String> {
    let mut store = Store::new();
    // The choice made at each step, out of how many.
    let mut path: Vec<(usize, usize)> = Vec::new();
    let mut runs = 0_u64;
    loop {
        if runs.is_multiple_of(RUNS_A_STORE) {
            store = Store::new();
        }
        runs += 1;
        assert!(runs <= RUNS_MAX, "{budget:?} has too many ways");
        let mut world = World::new(&mut store, budget, bug, runs);
        let mut taken = Vec::new();
        loop {
            let steps = world.enabled();
            if steps.is_empty() {
                break;
            }
            let depth = taken.len();
            if depth == path.len() {
                path.push((0, steps.len()));
            }
            let step = steps[path[depth].0];
            taken.push(step);
            world.step(step);
        }
        finish(&mut world, &taken)?;
        // The next way, in the manner of an odometer.
        while path.last().is_some_and(|(choice, of)| choice + 1 == *of) {
            path.pop();
        }
        match path.last_mut() {
            Some((choice, _)) => *choice += 1,
            None => break,
        }
    }
    println!("{budget:?}: {runs} ways");
    Ok(())
}

thread_local! {
    static STORE: std::cell::RefCell<Option<(u64, Store)>> = const { std::cell::RefCell::new(None) };
}

/// One random way; what failed, with the way to it.
pub(super) fn sample(seed: u64, budget: Budget, bug: Option<Bug>) -> Result<(), String> {
    STORE.with_borrow_mut(|slot| {
        let (runs, store) = slot.get_or_insert_with(|| (0, Store::new()));
        if *runs == RUNS_A_STORE {
            (*runs, *store) = (0, Store::new());
        }
        *runs += 1;
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut world = World::new(store, budget, bug, *runs);
        let mut taken = Vec::new();
        loop {
            let steps = world.enabled();
            // Xorshift64 (Marsaglia 2003).
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let Some(choice) = u64::try_from(steps.len()).ok().and_then(|n| random.checked_rem(n))
            else {
                break;
            };
            let step = steps[usize::try_from(choice).expect("a place")];
            taken.push(step);
            world.step(step);
        }
        finish(&mut world, &taken)
    })
}

fn finish(world: &mut World<'_>, taken: &[Step]) -> Result<(), String> {
    world.come_to_rest();
    match world.failure() {
        Some(failure) => Err(format!("{failure}\nafter {taken:?}")),
        None => Ok(()),
    }
}
