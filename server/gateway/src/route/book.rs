//! What a Route stream has sent and not had answered: who waits for which id.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use switchboard_api::v1::{
    DeviceRef, RouteRequest, RouteResponse,
    route_request::{Receipts, Send},
};

use super::{Parcel, Ticket, What};
use crate::outcome::Outcome;

#[derive(Debug, Default)]
pub(super) struct Book {
    /// A ticket that is dropped answers UNAVAILABLE, so nothing need be done when the stream breaks.
    waiting: HashMap<u64, Ticket>,
    last_id: u64,
    /// The failures of this stream that are known here, so that the chat can tell a send that was
    /// written too early.
    failures_seen: u64,
    /// When something was answered last, or the oldest thing that waits was sent.
    progress: Option<Instant>,
}

impl Book {
    /// Makes a request of the parcels, in their order, and writes them down.
    pub(super) fn request(&mut self, parcels: Vec<Parcel>, now: Instant) -> RouteRequest {
        let mut request = RouteRequest { failures_seen: self.failures_seen, ..Default::default() };
        for Parcel { from, what } in parcels {
            match what {
                What::Sends(sends) => {
                    for (ticket, send) in sends {
                        request.sends.push(Send {
                            id: self.enter(ticket),
                            from: Some(from.clone()),
                            to: Some(DeviceRef { user: send.to_user, device: send.to_device }),
                            message_id: send.message_id,
                            ttl_ms: send.ttl_ms,
                            body: send.body,
                            to_own_devices: send.to_own_devices,
                        });
                    }
                }
                What::Receipts(ticket, batch) => request.receipts.push(Receipts {
                    id: self.enter(ticket),
                    by: Some(from),
                    to: Some(DeviceRef { user: batch.to.0, device: batch.to.1 }),
                    state: batch.state.into(),
                    message_ids: batch
                        .message_ids
                        .iter()
                        .map(|id| Bytes::copy_from_slice(id))
                        .collect(),
                    at_ms: batch.at_ms,
                }),
            }
        }
        self.progress.get_or_insert(now);
        request
    }

    /// Writes down who waits, and answers under which id.
    fn enter(&mut self, ticket: Ticket) -> u64 {
        self.last_id += 1;
        self.waiting.insert(self.last_id, ticket);
        self.last_id
    }

    /// Passes answers on.
    pub(super) fn answered(&mut self, response: &RouteResponse, now: Instant) {
        self.failures_seen = self.failures_seen.max(response.failures);
        for result in &response.results {
            if let Some(ticket) = self.waiting.remove(&result.id) {
                ticket.answer(Outcome {
                    status: result.status(),
                    at_ms: result.at_ms,
                    retry_after_ms: result.retry_after_ms,
                });
            }
        }
        self.progress = (!self.waiting.is_empty()).then_some(now);
    }

    /// When the chat has owed an answer for too long.
    pub(super) fn stalled_at(&self, limit: Duration) -> Option<Instant> {
        self.progress.map(|since| since + limit)
    }
}
