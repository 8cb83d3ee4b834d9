//! A device's side of the conversation as a pure state machine: frames and wishes of the
//! application go in, frames and events come out. It knows no socket and no clock; time is given.
//!
//! ```text
//!   send, read, acknowledge ─▶ ┌─────────┐ ─▶ next_frame
//!   connected, frame, lost  ─▶ │ Session │ ─▶ next_event … handed_over
//!                              └─────────┘
//! ```
//! Invariants: a message becomes an event at most once while its id is remembered; it is
//! acknowledged only after its event was handed over (or, on wish, after the application said so).

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use switchboard_api::{
    device::v1::{
        ClientFrame, Error, Receipt, Send, ServerFrame, client_frame, error::Code, receipt,
        server_frame,
    },
    v1::Message,
};

use crate::{
    acks::Acks,
    error::SendError,
    event::{Accepted, DeviceStats, Event, Incoming},
    limits::RETRY_AFTER_MAX,
    outbox::{Outbox, Outgoing, Waiter},
    reads::Reads,
    seen::Seen,
};

/// What a frame means for the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on.
    Continue,
    /// The gateway ends the connection.
    End(Ending),
}

/// How and why a gateway ended a connection, and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) reason: String,
    pub(crate) code: Option<Code>,
    pub(crate) replaced: bool,
    pub(crate) fatal: bool,
    pub(crate) retry_after: Duration,
    /// Another gateway to go to; empty: any.
    pub(crate) address: String,
}

#[derive(Debug)]
pub(crate) struct Session {
    manual_ack: bool,
    outbox: Outbox,
    reads: Reads,
    acks: Acks,
    seen: Seen,
    /// Events to hand over, each with the seq that its hand-over settles.
    events: VecDeque<(Event, Option<u64>)>,
    stats: DeviceStats,
}

impl Session {
    pub(crate) fn new(manual_ack: bool, seen_max: usize) -> Self {
        Self {
            manual_ack,
            outbox: Outbox::default(),
            reads: Reads::default(),
            acks: Acks::default(),
            seen: Seen::new(seen_max),
            events: VecDeque::new(),
            stats: DeviceStats::default(),
        }
    }

    pub(crate) fn send(&mut self, outgoing: Outgoing, to_own_devices: bool, waiter: Waiter) {
        if let Err(waiter) = self.outbox.push(outgoing, to_own_devices, waiter) {
            let _ = waiter.send(Err(SendError::OutboxFull));
        }
    }

    pub(crate) fn read(&mut self, from_user: &Bytes, ids: Vec<[u8; 16]>) {
        self.reads.push(from_user, ids);
    }

    pub(crate) fn acknowledge(&mut self, seq: u64) {
        self.acks.settled(seq);
    }

    pub(crate) fn stats(&self) -> DeviceStats {
        DeviceStats {
            resends: self.outbox.resends,
            outbox: self.outbox.len(),
            reads_pending: self.reads.len(),
            ..self.stats
        }
    }

    /// The `Welcome` came: a new connection, on which all that is unanswered goes out again.
    pub(crate) fn connected(&mut self, epoch: u64, backlog: u64, server_time_ms: u64) {
        self.rewind();
        self.stats.connects += 1;
        self.events.push_back((Event::Online { epoch, backlog, server_time_ms }, None));
    }

    /// The connection is gone, or an attempt failed.
    pub(crate) fn disconnected(&mut self, ending: &Ending) {
        self.rewind();
        let Ending { reason, code, replaced, fatal, .. } = ending.clone();
        self.events.push_back((Event::Offline { reason, code, replaced, fatal }, None));
    }

    /// Ends every wait of a sender.
    pub(crate) fn close(&mut self) {
        self.outbox.close();
    }

    /// The next frame to write: acknowledgements first, since they free the peer's window.
    pub(crate) fn next_frame(&mut self, now: Instant) -> Option<ClientFrame> {
        self.outbox.expire(now);
        self.reads.expire(now);
        let frame = if let Some(ack) = self.acks.take() {
            client_frame::Frame::Ack(ack)
        } else if let Some(read) = self.reads.next_to_write(now) {
            client_frame::Frame::Read(read)
        } else {
            let (outgoing, to_own_devices) = self.outbox.next_to_write(now)?;
            client_frame::Frame::Send(Send {
                message_id: Bytes::copy_from_slice(&outgoing.message_id),
                to_user: outgoing.to_user.clone(),
                to_device: outgoing.to_device.into(),
                ttl_ms: outgoing.ttl_ms,
                body: outgoing.body.clone(),
                to_own_devices,
            })
        };
        Some(ClientFrame { frame: Some(frame) })
    }

    /// Only what is due before saying goodbye: acknowledgements.
    pub(crate) fn last_frame(&mut self) -> Option<ClientFrame> {
        self.acks.take().map(|ack| ClientFrame { frame: Some(client_frame::Frame::Ack(ack)) })
    }

    /// When to ask for frames again although nothing happened.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        [self.outbox.wake_at(), self.reads.wake_at()].into_iter().flatten().min()
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next event; the application has it when this returns, so a message it carries is settled
    /// unless the application acknowledges by itself.
    pub(crate) fn take_event(&mut self) -> Option<Event> {
        let (event, seq) = self.events.pop_front()?;
        if let Some(seq) = seq {
            self.acks.settled(seq);
        }
        Some(event)
    }

    /// A frame came after the `Welcome`.
    pub(crate) fn frame(&mut self, frame: ServerFrame, now: Instant) -> Verdict {
        use server_frame::Frame;
        match frame.frame {
            Some(Frame::Accepted(accepted)) => {
                self.accepted(&accepted.message_id, accepted.at_ms, accepted.duplicate, now);
            }
            Some(Frame::Deliver(deliver)) => {
                if let Some(message) = deliver.message {
                    self.deliver(message);
                }
            }
            Some(Frame::Receipt(receipt)) => self.receipt(&receipt),
            Some(Frame::ReadAccepted(accepted)) => {
                let ids = self.reads.accepted(&accepted.message_ids, now);
                if !ids.is_empty() {
                    self.events.push_back((Event::ReadAccepted { ids }, None));
                }
            }
            Some(Frame::Drained(_)) => self.events.push_back((Event::Drained, None)),
            Some(Frame::Error(error)) => return self.error(error, now),
            Some(Frame::Redirect(redirect)) => return Verdict::End(redirected(redirect)),
            // A second welcome says nothing new; unknown frames are from a newer gateway.
            Some(Frame::Welcome(_) | Frame::Pong(_)) | None => {}
        }
        Verdict::Continue
    }

    fn rewind(&mut self) {
        self.outbox.rewind();
        self.reads.rewind();
        self.acks.reset();
    }

    fn accepted(&mut self, id: &[u8], at_ms: u64, duplicate: bool, now: Instant) {
        self.stats.duplicates_answered += u64::from(duplicate);
        let Ok(message_id) = <[u8; 16]>::try_from(id) else { return };
        if let Some(waiter) = self.outbox.resolve(id, now) {
            // Nobody waiting is no fault.
            let _ = waiter.send(Ok(Accepted { at_ms, duplicate }));
            self.events.push_back((Event::Accepted { message_id, at_ms, duplicate }, None));
        }
    }

    fn deliver(&mut self, message: Message) {
        let (Some(from), Ok(message_id)) =
            (message.from, <[u8; 16]>::try_from(message.message_id.as_ref()))
        else {
            // Nothing a server sends looks like this; acknowledging it would lose it.
            tracing::warn!(seq = message.seq, "a delivery without sender or id");
            return;
        };
        if !self.seen.insert(&(&from.user, from.device), message_id) {
            self.stats.repeats_dropped += 1;
            self.acks.repeated(message.seq);
            return;
        }
        self.acks.received(message.seq);
        let incoming = Incoming {
            message_id,
            from_user: from.user,
            from_device: u16::try_from(from.device).unwrap_or(0),
            seq: message.seq,
            enqueued_at_ms: message.enqueued_at_ms,
            expires_at_ms: message.expires_at_ms,
            body: message.body,
        };
        let settles = (!self.manual_ack).then_some(message.seq);
        self.events.push_back((Event::Message(incoming), settles));
    }

    fn receipt(&mut self, receipt: &Receipt) {
        let Ok(message_id) = <[u8; 16]>::try_from(receipt.message_id.as_ref()) else { return };
        let sender = ("receipt", &receipt.by_user, receipt.by_device, receipt.state);
        if !self.seen.insert(&sender, message_id) {
            self.stats.receipt_repeats += 1;
            self.acks.repeated(receipt.seq);
            return;
        }
        self.acks.received(receipt.seq);
        let event = Event::Receipt {
            message_id,
            state: receipt::State::try_from(receipt.state).unwrap_or(receipt::State::Delivered),
            by_user: receipt.by_user.clone(),
            by_device: u16::try_from(receipt.by_device).unwrap_or(0),
            at_ms: receipt.at_ms,
        };
        self.events.push_back((event, Some(receipt.seq)));
    }

    fn error(&mut self, error: Error, now: Instant) -> Verdict {
        let code = error.code();
        let pause = retry_after(error.retry_after_ms);
        if error.message_id.is_empty() {
            // About the connection, which the gateway closes.
            return Verdict::End(failed(&error));
        }
        match code {
            Code::RateLimited | Code::Overloaded | Code::Unavailable => {
                self.outbox.postpone(&error.message_id, now, pause);
            }
            _ => self.refused(error, code, now),
        }
        Verdict::Continue
    }

    fn refused(&mut self, error: Error, code: Code, now: Instant) {
        let Ok(message_id) = <[u8; 16]>::try_from(error.message_id.as_ref()) else { return };
        if let Some(waiter) = self.outbox.resolve(&message_id, now) {
            let message = error.message;
            let _ = waiter.send(Err(SendError::Refused { code, message: message.clone() }));
            self.events.push_back((Event::Refused { message_id, code, message }, None));
        }
    }
}

/// What a connection-level error means.
pub(crate) fn failed(error: &Error) -> Ending {
    let code = error.code();
    Ending {
        fatal: matches!(code, Code::Unauthenticated | Code::ExpiredToken | Code::Invalid),
        reason: format!("{}: {}", code.as_str_name(), error.message),
        code: Some(code),
        replaced: false,
        retry_after: retry_after(error.retry_after_ms),
        address: String::new(),
    }
}

/// What a redirect means.
pub(crate) fn redirected(redirect: switchboard_api::device::v1::Redirect) -> Ending {
    use switchboard_api::device::v1::redirect::Reason;
    let reason = redirect.reason();
    Ending {
        reason: format!("redirected: {}", reason.as_str_name()),
        code: None,
        replaced: reason == Reason::Replaced,
        fatal: false,
        retry_after: retry_after(redirect.retry_after_ms),
        address: redirect.address,
    }
}

fn retry_after(ms: u64) -> Duration {
    Duration::from_millis(ms).min(RETRY_AFTER_MAX)
}
