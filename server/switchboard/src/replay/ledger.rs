//! What a running replay writes down: the checker, who is connected, and how long things took.
//!
//! Like the checker it takes time as a number (microseconds since the replay began) and does no I/O.
//! A latency counts only if the connections it needs stood from the hand-over on: otherwise it would
//! measure how long people were away.

use hdrhistogram::Histogram;

use super::checker::{Checker, Expected, MessageId, Receipt, Shown};
use super::report::{Quantiles, Report};

/// Highest latency told apart, microseconds: ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;

/// The connection of one user's device.
#[derive(Debug, Clone, Copy, Default)]
struct Link {
    /// How many times it connected.
    connects: u32,
    /// Since when it has no connection; `None` while it has one.
    offline_since_us: Option<u64>,
    /// Time without a connection before that.
    offline_us: u64,
}

impl Link {
    /// The number of the connection that stands, counted from 1; 0 if none does.
    fn connection(&self) -> u32 {
        if self.offline_since_us.is_none() { self.connects } else { 0 }
    }
}

/// The connections that stood when a message was handed over, as [`Link::connection`] gives them.
#[derive(Debug, Clone, Copy, Default)]
struct AtHandOver {
    from: u32,
    to: u32,
}

/// The record of a replay.
#[derive(Debug)]
pub(crate) struct Ledger {
    checker: Checker,
    parties: Vec<(usize, usize)>,
    links: Vec<Link>,
    at_hand_over: Vec<AtHandOver>,
    enqueued_offline: u64,
    measured_from_us: u64,
    measured_to_us: Option<u64>,
    sent_us: Histogram<u64>,
    delivered_us: Histogram<u64>,
    receipt_us: Histogram<u64>,
}

impl Ledger {
    /// An empty record of these messages between this many users, none of them connected.
    pub(crate) fn new(users: usize, expected: Vec<Expected>) -> Ledger {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .expect("bounds and precision are valid")
        };
        let parties: Vec<_> = expected.iter().map(|message| (message.from, message.to)).collect();
        Ledger {
            links: vec![Link { offline_since_us: Some(0), ..Link::default() }; users],
            at_hand_over: vec![AtHandOver::default(); parties.len()],
            parties,
            checker: Checker::new(expected),
            enqueued_offline: 0,
            measured_from_us: 0,
            measured_to_us: None,
            sent_us: histogram(),
            delivered_us: histogram(),
            receipt_us: histogram(),
        }
    }

    /// The checker, to look at.
    pub(crate) fn checker(&self) -> &Checker {
        &self.checker
    }

    /// The user's device has a connection.
    pub(crate) fn online(&mut self, user: usize, now_us: u64) {
        let (from_us, to_us) = (self.measured_from_us, self.measured_to_us);
        let Some(link) = self.links.get_mut(user) else { return };
        link.connects += 1;
        if let Some(since_us) = link.offline_since_us.take() {
            link.offline_us += overlap(since_us, now_us, from_us, to_us);
        }
    }

    /// The user's device has none.
    pub(crate) fn offline(&mut self, user: usize, now_us: u64) {
        if let Some(link) = self.links.get_mut(user) {
            link.offline_since_us.get_or_insert(now_us);
        }
    }

    /// How many users have a connection.
    pub(crate) fn users_online(&self) -> usize {
        self.links.iter().filter(|link| link.offline_since_us.is_none()).count()
    }

    /// The share of time offline counts from now on.
    pub(crate) fn measure_from(&mut self, now_us: u64) {
        self.measured_from_us = now_us;
        self.links.iter_mut().for_each(|link| link.offline_us = 0);
    }

    /// … and up to now.
    pub(crate) fn measure_to(&mut self, now_us: u64) {
        self.measured_to_us.get_or_insert(now_us);
    }

    /// See [`Checker::handed_over`].
    pub(crate) fn handed_over(&mut self, index: usize, id: MessageId, now_us: u64) {
        let (from, to) = self.connections(index);
        if let Some(at) = self.at_hand_over.get_mut(index) {
            *at = AtHandOver { from, to };
        }
        self.checker.handed_over(index, id, now_us);
    }

    /// See [`Checker::accepted`].
    pub(crate) fn accepted(&mut self, index: usize, now_us: u64) {
        if let Some(after_us) = self.checker.accepted(index, now_us) {
            record(&mut self.sent_us, after_us);
        }
        let to_before = self.at_hand_over.get(index).map_or(0, |at| at.to);
        let recipient = self.parties.get(index).and_then(|(_, to)| self.links.get(*to));
        // It was away at both ends of the interval; that it came and left in between is unlikely
        // and would only be counted here, not checked.
        if to_before == 0 && recipient.is_some_and(|link| link.connection() == 0) {
            self.enqueued_offline += 1;
        }
    }

    /// See [`Checker::refused`].
    pub(crate) fn refused(&mut self, index: usize, why: &str) {
        self.checker.refused(index, why);
    }

    /// See [`Checker::shown`].
    pub(crate) fn shown(
        &mut self,
        user: usize,
        id: &MessageId,
        from: Option<usize>,
        body: &[u8],
        now_us: u64,
    ) -> Option<Shown> {
        let shown = self.checker.shown(user, id, from, body, now_us)?;
        let (_, to) = self.connections(shown.index);
        if self.at_hand_over.get(shown.index).is_some_and(|at| at.to != 0 && at.to == to) {
            record(&mut self.delivered_us, shown.after_us);
        }
        Some(shown)
    }

    /// See [`Checker::receipt`].
    pub(crate) fn receipt(
        &mut self,
        user: usize,
        id: &MessageId,
        by: Option<usize>,
        state: Receipt,
        now_us: u64,
    ) {
        let Some((index, after_us)) = self.checker.receipt(user, id, by, state, now_us) else {
            return;
        };
        let (from, to) = self.connections(index);
        let undisturbed =
            |at: &AtHandOver| at.from != 0 && at.from == from && at.to != 0 && at.to == to;
        if state == Receipt::Delivered && self.at_hand_over.get(index).is_some_and(undisturbed) {
            record(&mut self.receipt_us, after_us);
        }
    }

    /// Takes stock. `report` brings what the ledger does not know.
    pub(crate) fn finish(
        mut self,
        mut report: Report,
        now_us: u64,
        repeats_required: bool,
    ) -> Report {
        self.measure_to(now_us);
        report.messages = self.checker.messages();
        report.offline_fraction = self.offline_fraction(now_us);
        report.enqueued_offline = self.enqueued_offline;
        report.sent_ms = Quantiles::of(&self.sent_us);
        report.delivered_ms = Quantiles::of(&self.delivered_us);
        report.receipt_ms = Quantiles::of(&self.receipt_us);
        let counts = self.checker.counts();
        report.judge(counts, &self.checker.finish(), repeats_required)
    }

    fn offline_fraction(&self, now_us: u64) -> f64 {
        let (from_us, to_us) = (self.measured_from_us, self.measured_to_us.unwrap_or(now_us));
        let offline_us: u64 = self
            .links
            .iter()
            .map(|link| {
                let current = link.offline_since_us;
                link.offline_us
                    + current.map_or(0, |since| overlap(since, now_us, from_us, Some(to_us)))
            })
            .sum();
        let all_us = to_us.saturating_sub(from_us) as f64 * self.links.len() as f64;
        if all_us > 0.0 { offline_us as f64 / all_us } else { 0.0 }
    }

    fn connections(&self, index: usize) -> (u32, u32) {
        let connection = |user: usize| self.links.get(user).map_or(0, Link::connection);
        self.parties.get(index).map_or((0, 0), |(from, to)| (connection(*from), connection(*to)))
    }
}

/// How much of `[since, until]` lies in the measured window.
fn overlap(since_us: u64, until_us: u64, from_us: u64, to_us: Option<u64>) -> u64 {
    until_us.min(to_us.unwrap_or(u64::MAX)).saturating_sub(since_us.max(from_us))
}

fn record(histogram: &mut Histogram<u64>, value_us: u64) {
    histogram.saturating_record(value_us.min(LATENCY_US_MAX));
}

#[cfg(test)]
mod tests {
    use super::super::checker::body_hash;
    use super::*;

    const ALICE: usize = 0;
    const BOB: usize = 1;

    fn ledger() -> Ledger {
        let message = Expected { from: ALICE, to: BOB, body: body_hash(b"x"), read: false };
        let mut ledger = Ledger::new(2, vec![message; 2]);
        ledger.online(ALICE, 50);
        ledger.online(BOB, 60);
        ledger
    }

    #[test]
    fn time_offline_is_measured_inside_the_window_only() {
        let mut ledger = ledger();
        ledger.measure_from(100);
        ledger.offline(BOB, 150);
        ledger.offline(BOB, 160); // a failed attempt to connect changes nothing
        ledger.online(BOB, 200);
        ledger.offline(ALICE, 290);
        ledger.measure_to(300);
        ledger.online(ALICE, 500);
        // 50 + 10 of 2 × 200.
        assert!((ledger.offline_fraction(600) - 0.15).abs() < 1e-9);
        assert_eq!(ledger.users_online(), 2);
    }

    #[test]
    fn a_message_to_somebody_away_counts_as_such_and_has_no_delivery_latency() {
        let mut ledger = ledger();
        ledger.offline(BOB, 100);
        ledger.handed_over(0, [1; 16], 110);
        ledger.accepted(0, 120);
        ledger.online(BOB, 900_000);
        ledger.shown(BOB, &[1; 16], Some(ALICE), b"x", 900_001);
        ledger.handed_over(1, [2; 16], 900_010);
        ledger.accepted(1, 900_020);
        ledger.shown(BOB, &[2; 16], Some(ALICE), b"x", 900_030);
        let report = ledger.finish(Report { drained: true, ..Report::default() }, 1_000_000, false);
        assert_eq!(report.enqueued_offline, 1);
        assert!(report.delivered_ms.max < 1.0, "{:?}", report.delivered_ms);
        assert_eq!(report.lost, 0);
        assert_eq!(report.receipts_delivered_missing, 2);
        assert!(!report.passed);
    }
}
