//! The report of a replay: the JSON of the contract, a table for people, and whether it passed.

use comfy_table::{CellAlignment, Table};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::checker::{Counts, Fault, FaultTally};

/// Quantiles of a latency, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    /// Median.
    pub(crate) p50: f64,
    /// 99 of 100 are at most this.
    pub(crate) p99: f64,
    /// 999 of 1,000 are at most this.
    pub(crate) p999: f64,
    /// The highest.
    pub(crate) max: f64,
}

impl Quantiles {
    /// From a histogram of microseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Quantiles {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Quantiles { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

/// What a replay did and found. Field names are fixed by the contract, and only added to.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    /// Messages to be sent.
    pub(crate) messages: u64,
    /// Messages answered by Accepted.
    pub(crate) accepted: u64,
    /// Messages shown to their recipient.
    pub(crate) delivered: u64,
    /// Accepted, never shown.
    pub(crate) lost: u64,
    /// Shown after a later message of the same sender and recipient.
    pub(crate) out_of_order: u64,
    /// Shown again.
    pub(crate) shown_twice: u64,
    /// Shown with another body or sender.
    pub(crate) body_mismatches: u64,
    /// Deliveries that devices dropped as repeats, and sends answered as duplicates.
    pub(crate) repeats: u64,
    /// Of those, deliveries that devices dropped.
    pub(crate) repeats_dropped: u64,
    /// Of those, sends answered as duplicates.
    pub(crate) duplicates_answered: u64,
    /// Receipts that devices dropped as repeats; not in `repeats`.
    pub(crate) receipt_repeats: u64,
    /// Sends written to a connection more than once.
    pub(crate) resends: u64,
    /// Messages whose sender got a *delivered* receipt (or a *read* one, which says more).
    pub(crate) receipts_delivered: u64,
    /// Messages whose sender got a *read* receipt.
    pub(crate) receipts_read: u64,
    /// Delivered messages without a *delivered* receipt.
    pub(crate) receipts_delivered_missing: u64,
    /// Read messages without a *read* receipt.
    pub(crate) receipts_read_missing: u64,
    /// Receipts for what was not delivered or read, or at the wrong user.
    pub(crate) receipts_wrong: u64,
    /// Messages shown to somebody else.
    pub(crate) misdelivered: u64,
    /// Messages refused for good.
    pub(crate) refused: u64,
    /// Messages handed over and never answered.
    pub(crate) unaccepted: u64,
    /// Deliveries and receipts that belong to no message of this replay.
    pub(crate) strangers: u64,
    /// Share of user time without a connection, until the last message was handed over.
    pub(crate) offline_fraction: f64,
    /// Messages whose recipient had no connection while they were sent.
    pub(crate) enqueued_offline: u64,
    /// Connections made, the first of each user apart.
    pub(crate) reconnects: u64,
    /// Length of the whole replay.
    pub(crate) seconds: f64,
    /// Of that, from the last message handed over until all was in.
    pub(crate) drain_seconds: f64,
    /// From hand-over to Accepted, with the time that the sender was offline in between.
    pub(crate) sent_ms: Quantiles,
    /// From hand-over until shown, for recipients who were connected all that time. A sender who went
    /// offline before the message was accepted is waited for here, too.
    pub(crate) delivered_ms: Quantiles,
    /// From hand-over to the *delivered* receipt, both sides connected all that time.
    pub(crate) receipt_ms: Quantiles,
    /// Users, each with one device.
    pub(crate) users: u64,
    /// Conversations.
    pub(crate) conversations: u64,
    /// What the draws were seeded with.
    pub(crate) seed: u64,
    /// What pauses were divided by.
    pub(crate) speedup: f64,
    /// Whether everything arrived within the drain timeout.
    pub(crate) drained: bool,
    /// Whether all checks passed.
    pub(crate) passed: bool,
    /// What failed, in words.
    pub(crate) failures: Vec<String>,
}

impl Report {
    /// Takes over the checker's counts and faults, and judges.
    pub(crate) fn judge(
        mut self,
        counts: Counts,
        faults: &[(Fault, FaultTally)],
        repeats_required: bool,
    ) -> Report {
        let count = |wanted: Fault| {
            faults.iter().find(|(fault, _)| *fault == wanted).map_or(0, |(_, tally)| tally.count)
        };
        self.accepted = counts.accepted;
        self.delivered = counts.delivered;
        self.receipts_delivered = counts.receipts_delivered;
        self.receipts_read = counts.receipts_read;
        self.strangers = counts.strangers;
        self.refused = counts.refused;
        self.lost = count(Fault::Lost);
        self.out_of_order = count(Fault::OutOfOrder);
        self.shown_twice = count(Fault::ShownTwice);
        self.body_mismatches = count(Fault::BodyMismatch);
        self.receipts_delivered_missing = count(Fault::DeliveredMissing);
        self.receipts_read_missing = count(Fault::ReadMissing);
        self.receipts_wrong = count(Fault::ReceiptWrong);
        self.misdelivered = count(Fault::Misdelivered);
        self.unaccepted = count(Fault::Unaccepted);
        self.repeats = self.repeats_dropped + self.duplicates_answered;
        self.failures.extend(faults.iter().map(|(fault, tally)| {
            format!("{fault:?}: {} ({})", tally.count, tally.examples.join("; "))
        }));
        if counts.handed_over < self.messages {
            let missing = self.messages - counts.handed_over;
            self.failures.push(format!("{missing} messages were never handed over"));
        }
        if !self.drained {
            self.failures.push("not everything arrived within the drain timeout".to_owned());
        }
        if repeats_required && self.repeats == 0 {
            self.failures.push(
                "no repeat at all: whatever was killed had nothing in flight, so nothing was shown"
                    .to_owned(),
            );
        }
        self.passed = self.failures.is_empty();
        self
    }

    /// For people.
    pub(crate) fn table(&self) -> Table {
        let mut table = crate::output::table(["what", "value"]);
        let mut row = |what: &str, value: String| {
            table.add_row([what.to_owned(), value]);
        };
        let quantiles = |q: &Quantiles| format!("{:.1} / {:.1} / {:.1}", q.p50, q.p99, q.p999);
        row("messages", self.messages.to_string());
        row("users, conversations", format!("{}, {}", self.users, self.conversations));
        row("accepted", self.accepted.to_string());
        row("delivered", self.delivered.to_string());
        row("lost", self.lost.to_string());
        row("out of order", self.out_of_order.to_string());
        row("shown twice", self.shown_twice.to_string());
        row("body mismatches", self.body_mismatches.to_string());
        row(
            "delivered receipts (missing)",
            format!("{} ({})", self.receipts_delivered, self.receipts_delivered_missing),
        );
        row(
            "read receipts (missing)",
            format!("{} ({})", self.receipts_read, self.receipts_read_missing),
        );
        row(
            "repeats dropped, answered",
            format!("{}, {}", self.repeats_dropped, self.duplicates_answered),
        );
        row("offline fraction", format!("{:.3}", self.offline_fraction));
        row("enqueued while offline", self.enqueued_offline.to_string());
        row("reconnects", self.reconnects.to_string());
        row("sent, ms p50 / p99 / p99.9", quantiles(&self.sent_ms));
        row("delivered, ms p50 / p99 / p99.9", quantiles(&self.delivered_ms));
        row(
            "seconds (of that draining)",
            format!("{:.1} ({:.1})", self.seconds, self.drain_seconds),
        );
        row("result", if self.passed { "passed" } else { "FAILED" }.to_owned());
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean() -> (Report, Counts) {
        let report = Report { messages: 2, drained: true, ..Report::default() };
        let counts = Counts { handed_over: 2, accepted: 2, delivered: 2, ..Counts::default() };
        (report, counts)
    }

    #[test]
    fn a_clean_run_passes() {
        let (report, counts) = clean();
        assert!(report.judge(counts, &[], false).passed);
    }

    #[test]
    fn any_fault_an_unfinished_drain_or_a_message_never_sent_fails() {
        let (report, counts) = clean();
        let fault = (Fault::Lost, FaultTally { count: 3, examples: vec!["message 7".into()] });
        let judged = report.clone().judge(counts, &[fault], false);
        assert!(!judged.passed);
        assert_eq!(judged.lost, 3);
        assert!(judged.failures[0].contains("message 7"));
        let undrained = Report { drained: false, ..report.clone() };
        assert!(!undrained.judge(counts, &[], false).passed);
        assert!(!report.judge(Counts { handed_over: 1, ..counts }, &[], false).passed);
    }

    #[test]
    fn under_kills_a_run_without_repeats_proves_nothing() {
        let (report, counts) = clean();
        assert!(!report.clone().judge(counts, &[], true).passed);
        let repeated = Report { duplicates_answered: 1, ..report };
        assert!(repeated.judge(counts, &[], true).passed);
    }

    #[test]
    fn the_json_has_the_fields_of_the_contract() {
        let json = serde_json::to_value(Report::default()).unwrap();
        for field in [
            "messages",
            "accepted",
            "delivered",
            "lost",
            "out_of_order",
            "shown_twice",
            "body_mismatches",
            "repeats",
            "receipts_delivered",
            "receipts_read",
            "offline_fraction",
            "enqueued_offline",
            "reconnects",
            "seconds",
            "sent_ms",
            "delivered_ms",
        ] {
            assert!(json.get(field).is_some(), "{field}");
        }
        for quantile in ["p50", "p99", "p999"] {
            assert!(json["sent_ms"].get(quantile).is_some_and(serde_json::Value::is_number));
        }
    }
}
