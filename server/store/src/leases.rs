//! Leases of gateway and chat processes, timed by this node's monotonic clock.
//!
//! Renewals are not logged; only the end of an incarnation is. So a node that has just started, or
//! has just been elected, knows nothing of earlier renewals and grants every live incarnation a whole
//! lease first: it may end one too late, never too early.
//!
//! Invariants:
//! - An incarnation that the meta group calls live has a deadline here after each
//!   [`Leases::lapsed`].
//! - Once a lease has been called lapsed it is never renewed: its process must not believe that it
//!   lives while its end is being written.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use switchboard_engine::MetaState;

/// One incarnation of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Incarnation {
    pub(crate) gateway_id: u32,
    pub(crate) incarnation: u64,
}

/// What a process last said of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) connections: u64,
    pub(crate) load: f64,
}

#[derive(Clone, Copy)]
struct Lease {
    /// Monotonic time.
    until: Duration,
    ending: bool,
    report: Report,
}

/// The leases as this node grants them. Times are those of a monotonic clock.
pub(crate) struct Leases {
    lease: Duration,
    /// A lock, held to touch one lease or to walk all of them (bounded by the number of processes).
    held: Mutex<HashMap<Incarnation, Lease>>,
}

impl Leases {
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, held: Mutex::default() }
    }

    /// How long a lease is.
    pub(crate) fn length(&self) -> Duration {
        self.lease
    }

    /// Grants a whole lease from `now` on; `None` when the incarnation is being ended.
    pub(crate) fn renew(
        &self,
        incarnation: Incarnation,
        report: Report,
        now: Duration,
    ) -> Option<Duration> {
        let mut held = self.held.lock();
        if held.get(&incarnation).is_some_and(|lease| lease.ending) {
            return None;
        }
        let until = now.saturating_add(self.lease);
        held.insert(incarnation, Lease { until, ending: false, report });
        Some(self.lease)
    }

    /// What is left of a lease, and the last report; a process not heard of since this node started
    /// has a whole one.
    pub(crate) fn left(&self, incarnation: Incarnation, now: Duration) -> (Duration, Report) {
        self.held.lock().get(&incarnation).map_or((self.lease, Report::default()), |lease| {
            (lease.until.saturating_sub(now), lease.report)
        })
    }

    /// Forgets everything, so that all live incarnations get a whole lease again: after an election,
    /// or when this process could not run and so took no renewals.
    pub(crate) fn start_over(&self) {
        self.held.lock().clear();
    }

    /// Live incarnations whose lease has ended, in order; forgets those that are not live.
    pub(crate) fn lapsed(&self, meta: &MetaState, now: Duration) -> Vec<Incarnation> {
        let mut held = self.held.lock();
        held.retain(|i, _| meta.is_live(i.gateway_id, i.incarnation));
        let live = meta.gateways().filter(|gateway| gateway.live).map(|gateway| Incarnation {
            gateway_id: gateway.gateway_id,
            incarnation: gateway.incarnation,
        });
        let whole = now.saturating_add(self.lease);
        let mut lapsed = Vec::new();
        for incarnation in live {
            let lease = held.entry(incarnation).or_insert_with(|| Lease {
                until: whole,
                ending: false,
                report: Report::default(),
            });
            if lease.until <= now {
                lease.ending = true;
                lapsed.push(incarnation);
            }
        }
        lapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);
    const NOW: Duration = Duration::from_secs(100);
    const ONE: Incarnation = Incarnation { gateway_id: 1, incarnation: 7 };

    #[test]
    fn a_renewal_counts_from_its_own_time() {
        let leases = Leases::new(LEASE);
        assert_eq!(leases.left(ONE, NOW).0, LEASE);
        leases.renew(ONE, Report { connections: 3, load: 0.5 }, NOW).expect("renewed");
        let (left, report) = leases.left(ONE, NOW + Duration::from_secs(4));
        assert_eq!((left, report.connections), (Duration::from_secs(6), 3));
        assert_eq!(leases.left(ONE, NOW + 2 * LEASE).0, Duration::ZERO);
    }

    #[test]
    fn what_the_meta_group_does_not_call_live_has_no_lease_to_lose() {
        let leases = Leases::new(LEASE);
        leases.renew(ONE, Report::default(), NOW).expect("renewed");
        assert!(leases.lapsed(&MetaState::default(), NOW + 2 * LEASE).is_empty());
        assert!(leases.held.lock().is_empty());
    }
}
