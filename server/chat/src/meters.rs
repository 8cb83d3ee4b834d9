//! The process's metrics.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use switchboard_api::v1::ItemStatus;

use crate::{
    notifier::{Noted, Sent},
    route::pairs::Outcome,
};

const GAUGES: &[(&str, &str)] = &[
    ("switchboard_chat_route_streams", "Streams of gateways that are open."),
    ("switchboard_chat_store_items_limit", "How many items may be at the store at once."),
    ("switchboard_chat_store_items", "How many items are at the store."),
    ("switchboard_chat_wake_up_devices", "Devices to be woken up, or within their interval."),
];

const COUNTERS: &[(&str, &str)] = &[
    ("switchboard_chat_items_total", "Sends and receipts, by what came of them."),
    ("switchboard_chat_held_back_total", "Items sent back at once because of the limit."),
    ("switchboard_chat_pushes_total", "Pushes to gateways, by what came of them."),
    ("switchboard_chat_wake_ups_noted_total", "Messages that found nobody connected."),
    ("switchboard_chat_wake_ups_skipped_total", "Wake-ups that were not sent, by the reason."),
    ("switchboard_chat_wake_ups_total", "Wake-ups, by channel and by what came of them."),
    ("switchboard_chat_wake_up_retries_total", "Attempts at a wake-up beyond the first."),
];

/// Handles, looked up once.
pub(crate) struct Meters {
    sends: Outcomes,
    receipts: Outcomes,
    /// Open Route streams.
    pub(crate) streams: Gauge,
    /// How many items may be at the store at once.
    pub(crate) store_limit: Gauge,
    /// How many are.
    pub(crate) store_items: Gauge,
    /// Items that were sent back at once because of that limit.
    pub(crate) held_back: Counter,
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
        GAUGES.iter().for_each(|(name, text)| describe_gauge!(*name, *text));
        COUNTERS.iter().for_each(|(name, text)| describe_counter!(*name, *text));
        Self {
            sends: Outcomes::new("send"),
            receipts: Outcomes::new("receipt"),
            streams: gauge!("switchboard_chat_route_streams"),
            store_limit: gauge!("switchboard_chat_store_items_limit"),
            store_items: gauge!("switchboard_chat_store_items"),
            held_back: counter!("switchboard_chat_held_back_total"),
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

/// What becomes of wake-ups.
pub(crate) struct NotifierMeters {
    ready: Counter,
    coalesced: Counter,
    full: Counter,
    /// Devices that wait to be woken up, or for the end of their interval.
    pub(crate) devices: Gauge,
    /// Not needed: the device has connected, or nothing waits any more.
    pub(crate) awake: Counter,
    /// The device gave no push token.
    pub(crate) without_token: Counter,
    /// A subscription that cannot be used.
    pub(crate) bad_token: Counter,
    /// Neither a webhook nor Web Push is set up for this kind of token.
    pub(crate) no_channel: Counter,
    /// The store did not answer; tried again after an interval.
    pub(crate) not_looked_up: Counter,
    pub(crate) webhook: ChannelMeters,
    pub(crate) web_push: ChannelMeters,
}

impl NotifierMeters {
    pub(crate) fn new() -> Self {
        let noted =
            |outcome| counter!("switchboard_chat_wake_ups_noted_total", "outcome" => outcome);
        let skipped =
            |reason| counter!("switchboard_chat_wake_ups_skipped_total", "reason" => reason);
        Self {
            ready: noted("ready"),
            coalesced: noted("coalesced"),
            full: noted("dropped"),
            devices: gauge!("switchboard_chat_wake_up_devices"),
            awake: skipped("awake"),
            without_token: skipped("no_token"),
            bad_token: skipped("bad_token"),
            no_channel: skipped("no_channel"),
            not_looked_up: skipped("not_looked_up"),
            webhook: ChannelMeters::new("webhook"),
            web_push: ChannelMeters::new("web_push"),
        }
    }

    pub(crate) fn noted(&self, noted: Noted) {
        let counter = match noted {
            Noted::Ready => &self.ready,
            Noted::Coalesced => &self.coalesced,
            Noted::Dropped => &self.full,
        };
        counter.increment(1);
    }
}

/// One way of waking devices up.
#[derive(Clone)]
pub(crate) struct ChannelMeters {
    sent: Counter,
    gone: Counter,
    refused: Counter,
    failed: Counter,
    /// The queue was full.
    pub(crate) dropped: Counter,
    /// Attempts beyond the first.
    pub(crate) retries: Counter,
}

impl ChannelMeters {
    fn new(channel: &'static str) -> Self {
        let with = |outcome: &'static str| counter!("switchboard_chat_wake_ups_total", "channel" => channel, "outcome" => outcome);
        Self {
            sent: with("sent"),
            gone: with("gone"),
            refused: with("refused"),
            failed: with("failed"),
            dropped: with("dropped"),
            retries: counter!("switchboard_chat_wake_up_retries_total", "channel" => channel),
        }
    }

    pub(crate) fn count(&self, sent: Sent, wake_ups: usize) {
        let counter = match sent {
            Sent::Done => &self.sent,
            Sent::Gone => &self.gone,
            Sent::Refused => &self.refused,
            Sent::Failed => &self.failed,
        };
        counter.increment(wake_ups as u64);
    }
}
