//! The process's metrics.

use metrics::{Counter, Gauge, counter, gauge};
use switchboard_api::v1::ItemStatus;

use crate::route::pairs::Outcome;

/// Handles, looked up once.
pub(crate) struct Meters {
    sends: Outcomes,
    receipts: Outcomes,
    /// Open Route streams.
    pub(crate) streams: Gauge,
}

struct Outcomes {
    stored: Counter,
    duplicate: Counter,
    retryable: Counter,
    refused: Counter,
}

impl Outcomes {
    fn new(what: &'static str) -> Self {
        let with = |outcome: &'static str| counter!("switchboard_chat_items_total", "what" => what, "outcome" => outcome);
        Self {
            stored: with("stored"),
            duplicate: with("duplicate"),
            retryable: with("retryable"),
            refused: with("refused"),
        }
    }

    fn count(&self, outcomes: &[Outcome]) {
        let (mut stored, mut duplicate, mut retryable, mut refused) = (0, 0, 0, 0);
        for outcome in outcomes {
            *match outcome.status {
                ItemStatus::Ok => &mut stored,
                ItemStatus::Duplicate => &mut duplicate,
                ItemStatus::Overloaded | ItemStatus::Unavailable => &mut retryable,
                _ => &mut refused,
            } += 1;
        }
        self.stored.increment(stored);
        self.duplicate.increment(duplicate);
        self.retryable.increment(retryable);
        self.refused.increment(refused);
    }
}

impl Meters {
    pub(crate) fn new() -> Self {
        Self {
            sends: Outcomes::new("send"),
            receipts: Outcomes::new("receipt"),
            streams: gauge!("switchboard_chat_route_streams"),
        }
    }

    pub(crate) fn sends(&self, outcomes: &[Outcome]) {
        self.sends.count(outcomes);
    }

    pub(crate) fn receipts(&self, outcomes: &[Outcome]) {
        self.receipts.count(outcomes);
    }
}

/// What becomes of pushes.
pub(crate) struct PushMeters {
    /// Given to the transport.
    pub(crate) sent: Counter,
    /// Dropped: the queue was full or the gateway gone.
    pub(crate) dropped: Counter,
    /// The gateway had no such connection any more.
    pub(crate) fenced: Counter,
}

impl PushMeters {
    pub(crate) fn new() -> Self {
        let with =
            |outcome: &'static str| counter!("switchboard_chat_pushes_total", "outcome" => outcome);
        Self { sent: with("sent"), dropped: with("dropped"), fenced: with("fenced") }
    }
}
