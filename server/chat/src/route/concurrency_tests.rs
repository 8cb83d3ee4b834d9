//! The limit against a store that is a queue: what waits, how long, and how much gets through.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const TARGET: Duration = Duration::from_millis(100);
const CALL: usize = 64;

/// Answers in order, so many items a millisecond, none sooner than `base`.
struct Store {
    items_per_ms: f64,
    base: Duration,
    free_at: f64,
    /// When each call came, was begun, and is answered, in milliseconds.
    calls: VecDeque<(f64, f64, f64)>,
}

struct Run {
    start: Instant,
    now_ms: f64,
    limit: Concurrency,
    store: Store,
    /// When each call that waits came.
    waiting: VecDeque<f64>,
    answered: usize,
    worst: Duration,
}

impl Run {
    fn new(items_per_ms: f64, base: Duration) -> Self {
        let start = Instant::now();
        let store = Store { items_per_ms, base, free_at: 0.0, calls: VecDeque::new() };
        let limit = Concurrency::new(TARGET, start);
        let waiting = VecDeque::new();
        Self { start, now_ms: 0.0, limit, store, waiting, answered: 0, worst: Duration::ZERO }
    }

    fn at(&self, ms: f64) -> Instant {
        self.start + Duration::from_secs_f64(ms / 1_000.0)
    }

    /// For `ms` milliseconds `offered` items come each; answers what got through and the worst time
    /// from a call's coming to its answer.
    fn offer(&mut self, ms: usize, offered: f64) -> (usize, Duration) {
        (self.answered, self.worst) = (0, Duration::ZERO);
        let mut credit = 0.0;
        for _ in 0..ms {
            self.now_ms += 1.0;
            while self.store.calls.front().is_some_and(|(_, _, done)| *done <= self.now_ms) {
                let Some((came, began, done)) = self.store.calls.pop_front() else { break };
                self.limit.end(CALL, self.at(began), false, self.at(done));
                self.answered += CALL;
                self.worst = self.worst.max(self.at(done) - self.at(came));
                while !self.waiting.is_empty() && self.limit.next(CALL) {
                    let came = self.waiting.pop_front().unwrap();
                    self.go(came);
                }
            }
            credit += offered;
            while credit >= CALL as f64 {
                credit -= CALL as f64;
                match self.limit.enter(CALL) {
                    Entry::Go => self.go(self.now_ms),
                    Entry::Wait => self.waiting.push_back(self.now_ms),
                    Entry::Refused => {}
                }
            }
        }
        (self.answered, self.worst)
    }

    fn go(&mut self, came: f64) {
        let free = self.store.free_at.max(self.now_ms);
        self.store.free_at = free + CALL as f64 / self.store.items_per_ms;
        let base = self.now_ms + self.store.base.as_secs_f64() * 1_000.0;
        self.store.calls.push_back((came, self.now_ms, self.store.free_at.max(base)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn twice_what_the_store_can_do_neither_piles_up_nor_costs_throughput(
        items_per_ms in 5.0..100.0_f64,
        base_ms in 1..20_u64,
    ) {
        let mut run = Run::new(items_per_ms, Duration::from_millis(base_ms));
        run.offer(5_000, 2.0 * items_per_ms);
        let (answered, worst) = run.offer(10_000, 2.0 * items_per_ms);
        // The wait here, at most four limits, and the time at the store.
        prop_assert!(worst < 8 * TARGET, "{worst:?}");
        let share = answered as f64 / (items_per_ms * 10_000.0);
        prop_assert!(share > 0.85, "{share}");
    }

    #[test]
    fn after_a_slow_time_full_speed_is_back_within_seconds(
        items_per_ms in 20.0..100.0_f64,
        slower in 4.0..50.0_f64,
    ) {
        let mut run = Run::new(items_per_ms, Duration::from_millis(2));
        run.offer(2_000, items_per_ms * 0.8);
        run.store.items_per_ms = items_per_ms / slower;
        run.offer(5_000, items_per_ms * 0.8);
        run.store.items_per_ms = items_per_ms;
        run.offer(5_000, items_per_ms * 0.8);
        let (answered, worst) = run.offer(2_000, items_per_ms * 0.8);
        prop_assert!(answered as f64 > items_per_ms * 0.8 * 2_000.0 * 0.9, "{answered}");
        prop_assert!(worst <= TARGET, "{worst:?}");
    }

    #[test]
    fn the_limit_stays_within_its_bounds_and_the_count_is_exact(
        calls in prop::collection::vec((1..1_024_usize, 0..2_000_u64, any::<bool>()), 1..300),
    ) {
        let mut now = Instant::now();
        let mut limit = Concurrency::new(TARGET, now);
        let (mut open, mut waiting) = (Vec::new(), VecDeque::new());
        for (items, ms, refused) in calls {
            let was_empty = limit.in_flight() == 0;
            let entry = limit.enter(items);
            prop_assert!(entry == Entry::Go || !was_empty, "one call always passes");
            match entry {
                Entry::Go => open.push((items, now)),
                Entry::Wait => waiting.push_back(items),
                Entry::Refused => {}
            }
            now += Duration::from_millis(ms);
            if ms % 3 == 0 && let Some((items, began)) = open.pop() {
                limit.end(items, began, refused, now);
                while waiting.front().is_some_and(|items| limit.next(*items)) {
                    open.push((waiting.pop_front().unwrap(), now));
                }
                prop_assert!(!open.is_empty() || waiting.is_empty(), "nobody waits for nothing");
            }
            prop_assert!((STORE_ITEMS_MIN..=STORE_ITEMS_MAX).contains(&limit.limit()));
            prop_assert_eq!(limit.in_flight(), open.iter().map(|(items, _)| items).sum::<usize>());
        }
    }
}

#[test]
fn a_limit_that_is_not_used_does_not_grow() {
    let mut run = Run::new(100.0, Duration::from_millis(1));
    run.offer(20_000, 1.0);
    assert_eq!(run.limit.limit(), STORE_ITEMS_INITIAL);
}

#[test]
fn a_store_that_refuses_halves_the_limit() {
    let start = Instant::now();
    let mut limit = Concurrency::new(TARGET, start);
    assert_eq!(limit.enter(10), Entry::Go);
    limit.end(10, start, true, start + STORE_WINDOW);
    assert_eq!(limit.limit(), STORE_ITEMS_INITIAL / 2);
}
