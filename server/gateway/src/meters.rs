//! The process's metrics.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use switchboard_api::device::v1::redirect::Reason;

const COUNTERS: &[(&str, &str)] = &[
    ("switchboard_gateway_claims_total", "Logins, by what came of them."),
    ("switchboard_gateway_delivered_total", "Messages and receipts written, repeats included."),
    ("switchboard_gateway_pushes_total", "Pushes of chats; fenced: no connection had the epoch."),
    ("switchboard_gateway_fetches_total", "Pages of mailboxes asked for."),
    ("switchboard_gateway_reconciled_total", "Mailboxes whose tail told of something unheard of."),
    ("switchboard_gateway_routed_total", "Sends handed to chats, repeats included."),
    ("switchboard_gateway_routes_broken_total", "Streams to chats that broke."),
    ("switchboard_gateway_stuck_total", "Connections cut because the device did not read."),
    ("switchboard_gateway_frames_refused_total", "Frames that break the protocol."),
    ("switchboard_gateway_redirects_total", "Devices sent away, by the reason."),
];

/// Handles, looked up once.
pub(crate) struct Meters {
    /// Open connections, those without a Hello included.
    pub(crate) connections: Gauge,
    /// Devices taken in.
    pub(crate) claims: Counter,
    /// Devices that could not be taken in.
    pub(crate) claims_failed: Counter,
    /// Devices told to come back, because more came than the store's budget allows.
    pub(crate) logins_held_back: Counter,
    /// Messages and receipts written to devices, repeats included.
    pub(crate) delivered: Counter,
    /// Pushes that came for no connection.
    pub(crate) pushes_fenced: Counter,
    /// Pushes that came.
    pub(crate) pushes: Counter,
    /// Pages asked for.
    pub(crate) fetches: Counter,
    /// Mailboxes in which a comparison of tails found something unheard of.
    pub(crate) reconciled: Counter,
    /// Sends handed to chats, repeats included.
    pub(crate) routed: Counter,
    /// Route streams that broke.
    pub(crate) routes_broken: Counter,
    /// Connections cut because the device did not read.
    pub(crate) stuck: Counter,
    /// Frames that break the protocol.
    pub(crate) frames_refused: Counter,
}

impl Meters {
    pub(crate) fn new() -> Self {
        COUNTERS.iter().for_each(|(name, text)| describe_counter!(*name, *text));
        describe_gauge!(
            "switchboard_gateway_connections",
            "Open connections, those without a Hello included."
        );
        Self {
            connections: gauge!("switchboard_gateway_connections"),
            claims: counter!("switchboard_gateway_claims_total", "outcome" => "ok"),
            claims_failed: counter!("switchboard_gateway_claims_total", "outcome" => "failed"),
            logins_held_back: counter!("switchboard_gateway_claims_total", "outcome" => "held_back"),
            delivered: counter!("switchboard_gateway_delivered_total"),
            pushes_fenced: counter!("switchboard_gateway_pushes_total", "outcome" => "fenced"),
            pushes: counter!("switchboard_gateway_pushes_total", "outcome" => "taken"),
            fetches: counter!("switchboard_gateway_fetches_total"),
            reconciled: counter!("switchboard_gateway_reconciled_total"),
            routed: counter!("switchboard_gateway_routed_total"),
            routes_broken: counter!("switchboard_gateway_routes_broken_total"),
            stuck: counter!("switchboard_gateway_stuck_total"),
            frames_refused: counter!("switchboard_gateway_frames_refused_total"),
        }
    }

    /// A device was sent away.
    pub(crate) fn redirected(reason: Reason) {
        counter!("switchboard_gateway_redirects_total", "reason" => reason.as_str_name())
            .increment(1);
    }
}
