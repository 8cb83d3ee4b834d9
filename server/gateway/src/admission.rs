//! How many devices a second are taken in: the budget that the store hands out with the lease.
//!
//! ```text
//!   Hello ─▶ a login to spare? ── yes ─▶ claim
//!                 └─ no ─▶ OVERLOADED, with a time of its own to come back
//! ```
//! When a gateway dies, all its devices come at once. Each login is a durable write, so more than the
//! store can take would only wait in queues, those of everybody else's messages among them. Beyond
//! the budget a device is told at once when to come back; the times that are given out lie as far
//! apart as the budget says, so the crowd comes back as a stream.
//!
//! Invariants: in any second no more than the budget and one burst are admitted; two devices refused
//! one after the other are told times at least a login apart, until the longest wait is reached,
//! from where on they are spread at random.

use std::time::{Duration, Instant};

use crate::limits::{ADMISSION_BURST, ADMISSION_WAIT_MAX, LOGINS_PER_SECOND_UNTOLD};

/// See the module.
#[derive(Debug)]
pub(crate) struct Admission {
    /// When the bucket would be empty if nothing came: GCRA's theoretical arrival time.
    next: Instant,
    /// The last time that was given to a refused device.
    promised: Instant,
}

impl Admission {
    pub(crate) fn new(now: Instant) -> Self {
        Self { next: now, promised: now }
    }

    /// Admits a login, or says how long its device is to wait. `budget_per_s` is the store's, 0
    /// while it has not said; `spread` is drawn from 0 to 1.
    pub(crate) fn admit(
        &mut self,
        budget_per_s: u32,
        now: Instant,
        spread: f64,
    ) -> Result<(), Duration> {
        let budget = if budget_per_s == 0 { LOGINS_PER_SECOND_UNTOLD } else { budget_per_s };
        let apart = Duration::from_secs(1) / budget;
        let next = self.next.max(now);
        if next.saturating_duration_since(now) <= ADMISSION_BURST {
            self.next = next + apart;
            return Ok(());
        }
        // Who comes back needs a login too: the first place is behind those that are given out.
        let place = self.promised.max(next) + apart;
        let wait = place.saturating_duration_since(now);
        if wait <= ADMISSION_WAIT_MAX {
            self.promised = place;
            return Err(wait);
        }
        Err(ADMISSION_WAIT_MAX.mul_f64(0.5 + spread.clamp(0.0, 1.0) / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BinaryHeap;

    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn a_crowd_is_admitted_at_the_budget_and_all_of_it_is_in_when_it_can_be() {
        const BUDGET: u32 = 2_000;
        const CROWD: u32 = 30_000;
        let start = Instant::now();
        let mut random = StdRng::seed_from_u64(24);
        let mut admission = Admission::new(start);
        // All within 200 ms; each obeys what it is told.
        let mut coming: BinaryHeap<std::cmp::Reverse<Instant>> = (0..CROWD)
            .map(|_| start + Duration::from_micros(random.random_range(0..200_000)))
            .map(std::cmp::Reverse)
            .collect();
        let mut admitted = Vec::new();
        let mut refusals = 0;
        while let Some(std::cmp::Reverse(now)) = coming.pop() {
            match admission.admit(BUDGET, now, random.random_range(0.0..=1.0)) {
                Ok(()) => admitted.push(now),
                Err(wait) => {
                    refusals += 1;
                    coming.push(std::cmp::Reverse(now + wait));
                }
            }
        }
        assert_eq!(admitted.len(), CROWD as usize);
        let burst = (f64::from(BUDGET) * ADMISSION_BURST.as_secs_f64()) as usize + 1;
        for (at, first) in admitted.iter().enumerate() {
            let within = admitted[at..].partition_point(|t| *t < *first + Duration::from_secs(1));
            assert!(within <= BUDGET as usize + burst + 1, "{within} in one second");
        }
        let took = admitted[admitted.len() - 1] - start;
        let least = Duration::from_secs(u64::from(CROWD / BUDGET));
        assert!(took < least + least / 2, "{took:?} instead of {least:?}");
        assert!(refusals < 3 * CROWD, "{refusals} refusals");
    }

    #[test]
    fn who_is_refused_is_told_a_time_of_its_own() {
        let start = Instant::now();
        let mut admission = Admission::new(start);
        let mut waits = Vec::new();
        for _ in 0..10_000 {
            if let Err(wait) = admission.admit(100, start, 0.5) {
                waits.push(wait);
            }
        }
        let places = waits.iter().take_while(|wait| **wait < ADMISSION_WAIT_MAX).count();
        assert!(waits[..places].windows(2).all(|w| w[1] >= w[0] + Duration::from_millis(10)));
        assert!(waits.iter().all(|wait| *wait <= ADMISSION_WAIT_MAX));
        assert!(waits[places + 1..].iter().all(|wait| *wait == ADMISSION_WAIT_MAX.mul_f64(0.75)));
    }

    #[test]
    fn a_calm_second_gives_the_burst_back() {
        let start = Instant::now();
        let mut admission = Admission::new(start);
        let burst = |admission: &mut Admission, now| {
            (0..1_000).take_while(|_| admission.admit(1_000, now, 0.0).is_ok()).count()
        };
        let first = burst(&mut admission, start);
        assert!(first > 100);
        assert_eq!(burst(&mut admission, start + Duration::from_secs(2)), first);
    }
}
