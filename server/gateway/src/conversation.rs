//! All that a gateway does for one connected device, as a pure state machine: delivery, the way of
//! acknowledgements, receipts and sends put together. The connection's task feeds it and does what
//! it asks for; tests do the same without any I/O.
//!
//! ```text
//!             ┌───────────────── Conversation ──────────────────┐
//!   Input ──▶ │ Delivery ─Acknowledged─▶ Settle ─Due─▶ Receipts │ ──▶ Action
//!             │ Sending                                         │
//!             └─────────────────────────────────────────────────┘
//! ```

mod rest;

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use switchboard_api::{
    device::v1::{
        self as device, Error, client_frame, error::Code, receipt::State, redirect::Reason,
        server_frame::Frame,
    },
    own_copy,
    v1::{DeviceRef, ItemStatus, Message, ack_request, message::Kind},
    validate,
};

use crate::{
    delivery::{self, Claimed, Delivery, Entry, FetchOrder, Page},
    limits::{FENCED_WAIT, READS_PENDING_MAX},
    outcome::Outcome,
    peers::Event,
    receipts::{Batch, Done, Purpose, Receipts},
    sending::{Answer, Sending},
    settle::{Settle, Settled},
};

pub(crate) use self::rest::Talk;

/// What happens to a conversation.
#[derive(Debug)]
pub(crate) enum Input {
    /// A frame of the device, after its Hello.
    Frame(client_frame::Frame),
    /// A push, already checked against the epoch.
    Push(Message),
    /// Something was stored at this seq.
    Heard(u64),
    /// A fetch was answered, or failed.
    Page { id: u64, page: Option<Page> },
    /// A send or a batch of receipts was answered.
    Routed { id: u64, outcome: Outcome },
    /// An ack was answered.
    Acked { id: u64, status: ItemStatus },
}

/// What an event means for a connection.
#[derive(Debug)]
pub(crate) enum Meaning {
    Input(Input),
    /// It is for an earlier session.
    Nothing,
    /// Another connection of the device has taken over.
    Replaced,
    /// Nothing is heard of the device any more.
    Silent,
    Leave {
        reason: Reason,
        retry_after_ms: u64,
    },
}

impl Meaning {
    /// Of an event for a connection whose session has this epoch.
    pub(crate) fn of(event: Event, current: u64) -> Self {
        match event {
            Event::Push { epoch, message } if epoch == current => Self::Input(Input::Push(message)),
            // Nobody else has taken its place, so the device is to come again.
            Event::Replaced { epoch, gone: true } if epoch == current => {
                Self::Leave { reason: Reason::LeaseLost, retry_after_ms: 0 }
            }
            Event::Replaced { epoch, gone: false } if epoch == current => Self::Replaced,
            Event::Push { .. } | Event::Replaced { .. } => Self::Nothing,
            Event::Page { id, page } => Self::Input(Input::Page { id, page }),
            Event::Routed { id, outcome } => Self::Input(Input::Routed { id, outcome }),
            Event::Acked { id, status } => Self::Input(Input::Acked { id, status }),
            Event::Silent => Self::Silent,
            Event::Leave { reason, retry_after_ms } => Self::Leave { reason, retry_after_ms },
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Write to the device.
    Write(Frame),
    /// Ask the store for messages.
    Fetch(FetchOrder),
    /// Acknowledge at the store.
    Ack { id: u64, item: ack_request::Item },
    /// Hand to a chat as one: they are to the same user, in this order.
    Route { sends: Vec<(u64, device::Send)> },
    /// Hand to a chat.
    RouteReceipts { id: u64, batch: Batch },
    /// End the connection.
    Close(Ending),
}

/// How a connection ends, as the device is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ending {
    /// The device said goodbye, or is gone.
    Gone,
    /// An error about the connection.
    Error(Error),
    /// The session was replaced, and nobody said by whom: by a claim whose answer was lost, most likely an earlier
    /// one of the same device, which is to come again.
    Fenced,
}

impl Ending {
    pub(crate) fn error(code: Code, message: impl Into<String>, retry_after: Duration) -> Self {
        let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        let code = code.into();
        Self::Error(Error {
            code,
            message: message.into(),
            retry_after_ms,
            message_id: Bytes::new(),
        })
    }
}

/// How full the connection is, and what time it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) at: Instant,
    pub(crate) unix_ms: u64,
    /// Bytes queued for the device.
    pub(crate) queued: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Conversation {
    delivery: Delivery,
    settle: Settle,
    receipts: Receipts,
    sending: Sending,
    /// Count of what was routed; ids are never used twice, so a late answer finds nothing.
    routed: u64,
    /// The session was found replaced. Whoever claimed says so; a claim that was given up and happened all the same
    /// has nobody who would, and at this time the connection ends by itself.
    fenced_until: Option<Instant>,
    /// The last frames have been taken: only settling goes on.
    parted: bool,
}

impl Conversation {
    pub(crate) fn new(device: DeviceRef, claimed: Claimed, window: u32, seed: u64) -> Self {
        Self {
            delivery: Delivery::new(claimed, window, seed),
            settle: Settle::new(device, claimed.epoch, seed),
            receipts: Receipts::new(seed),
            sending: Sending::new(seed),
            routed: 0,
            fenced_until: None,
            parted: false,
        }
    }

    /// The highest seq written, for comparisons of tails.
    pub(crate) fn high(&self) -> u64 {
        self.delivery.high()
    }

    /// The device is gone: nothing more is delivered or sent; what it acknowledged is settled.
    pub(crate) fn part(&mut self) {
        self.parted = true;
    }

    /// Whether all that the device acknowledged has been removed at the store, or can no more be.
    pub(crate) fn is_settled(&self) -> bool {
        self.settle.is_empty() || self.fenced_until.is_some()
    }

    /// Takes an input. `limited` answers how long a send has to wait for the device's rate.
    pub(crate) fn handle(
        &mut self,
        input: Input,
        limited: &mut dyn FnMut() -> Option<Duration>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        self.set_room(now);
        let mut steps = Vec::new();
        match input {
            Input::Frame(frame) => self.frame(frame, limited, now, &mut steps, actions),
            Input::Push(message) => self.delivery.push(message, now.at, &mut steps),
            Input::Heard(seq) => self.delivery.heard(seq),
            Input::Page { id, page: Some(page) } => {
                self.delivery.page(id, page, now.at, &mut steps);
            }
            Input::Page { id, page: None } => self.delivery.page_failed(id, now.at),
            Input::Routed { id, outcome } => self.routed(id, outcome, now, actions),
            Input::Acked { id, status } => {
                if self.settle.answered(id, status, now.at) == Settled::Fenced {
                    self.fenced_until = Some(now.at + FENCED_WAIT);
                }
            }
        }
        self.follow(steps, now, actions);
    }

    /// Does what is due. To be called after inputs, and at [`Conversation::wake_at`].
    pub(crate) fn poll(&mut self, now: Now, actions: &mut Vec<Action>) {
        if !self.parted {
            self.set_room(now);
            let mut steps = Vec::new();
            self.delivery.poll(now.at, &mut steps);
            self.follow(steps, now, actions);
            let mut batches = Vec::new();
            self.sending.next(&mut self.routed, now.at, &mut batches);
            actions.extend(batches.into_iter().map(|sends| Action::Route { sends }));
        }
        while let Some((id, batch)) = self.receipts.next(&mut self.routed, now.at) {
            actions.push(Action::RouteReceipts { id, batch });
        }
        if let Some(until) = self.fenced_until {
            if until <= now.at {
                actions.push(Action::Close(Ending::Fenced));
            }
            return;
        }
        while let Some((id, item)) = self.settle.next_ack(self.delivery.first_out(), now.at) {
            actions.push(Action::Ack { id, item });
        }
    }

    /// When [`Conversation::poll`] is due although nothing came.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let settling = [self.receipts.wake_at(), self.settle.wake_at(), self.fenced_until];
        let serving = [self.delivery.wake_at(), self.sending.wake_at()];
        let serving = serving.into_iter().flatten().filter(|_| !self.parted);
        settling.into_iter().flatten().chain(serving).min()
    }

    fn set_room(&mut self, now: Now) {
        self.delivery
            .set_room(now.queued, self.settle.room().saturating_sub(self.delivery.out_len()));
    }

    fn frame(
        &mut self,
        frame: client_frame::Frame,
        limited: &mut dyn FnMut() -> Option<Duration>,
        now: Now,
        steps: &mut Vec<delivery::Action>,
        actions: &mut Vec<Action>,
    ) {
        match frame {
            client_frame::Frame::Send(send) => self.send(send, limited, now, actions),
            client_frame::Frame::Read(read) => self.read(read, limited, now, actions),
            client_frame::Frame::Ack(ack) => match validate::ack(&ack) {
                Ok(()) => self.delivery.acked(ack.up_to_seq, &ack.seqs, now.at, steps),
                Err(fault) => actions.push(invalid(fault.to_string())),
            },
            client_frame::Frame::Ping(ping) => {
                actions.push(Action::Write(Frame::Pong(device::Pong { nonce: ping.nonce })));
            }
            client_frame::Frame::Goodbye(_) => actions.push(Action::Close(Ending::Gone)),
            client_frame::Frame::Hello(_) => {
                let ending = Ending::error(Code::Protocol, "a second Hello", Duration::ZERO);
                actions.push(Action::Close(ending));
            }
        }
    }

    fn send(
        &mut self,
        send: device::Send,
        limited: &mut dyn FnMut() -> Option<Duration>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if let Err(fault) = validate::send(&self.settle.device().user, &send) {
            let code = match fault.status() {
                ItemStatus::TooLarge => Code::TooLarge,
                _ => Code::Invalid,
            };
            // Without an id it could not be told from an error about the connection, so it is one.
            if send.message_id.is_empty() {
                actions.push(invalid(fault.to_string()));
            } else {
                actions.push(Action::Write(Frame::Error(Error {
                    code: code.into(),
                    message: fault.to_string(),
                    retry_after_ms: 0,
                    message_id: send.message_id,
                })));
            }
            return;
        }
        let mut answers = Vec::new();
        self.sending.send(send, limited, now.at, &mut answers);
        actions.extend(answers.into_iter().map(told));
    }

    fn read(
        &mut self,
        read: device::Read,
        limited: &mut dyn FnMut() -> Option<Duration>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if let Err(fault) = validate::read(&read) {
            actions.push(invalid(fault.to_string()));
            return;
        }
        let message_ids: Vec<[u8; 16]> =
            read.message_ids.iter().filter_map(|id| id.as_ref().try_into().ok()).collect();
        let Some(first) = message_ids.first() else { return };
        let full = self.receipts.reads() >= READS_PENDING_MAX;
        let pause = if full { Some(Duration::from_secs(1)) } else { limited() };
        if let Some(pause) = pause {
            // About the first of its messages; the device repeats the whole.
            actions.push(Action::Write(Frame::Error(Error {
                code: Code::RateLimited.into(),
                message: "too many read receipts; repeat them later".to_owned(),
                retry_after_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).max(1),
                message_id: Bytes::copy_from_slice(first),
            })));
            return;
        }
        let to = DeviceRef { user: read.to_user, device: 0 };
        let batch = Batch::new(&to, State::Read, message_ids, now.unix_ms, Purpose::Read);
        self.receipts.push(batch);
    }

    fn routed(&mut self, id: u64, outcome: Outcome, now: Now, actions: &mut Vec<Action>) {
        let mut answers = Vec::new();
        if self.sending.answered(id, outcome, now.at, &mut answers) {
            actions.extend(answers.into_iter().map(told));
        } else if let Some(done) = self.receipts.answered(id, outcome, now.at) {
            self.receipts_done(done, actions);
        }
    }

    fn receipts_done(&mut self, done: Done, actions: &mut Vec<Action>) {
        match done.purpose {
            // Also when it was refused for good: nothing could ever settle otherwise.
            Purpose::Settle(seqs) => self.settle.receipted(&seqs),
            Purpose::Read => {
                let ids: Vec<Bytes> =
                    done.message_ids.iter().map(|id| Bytes::copy_from_slice(id)).collect();
                let frame = match done.refused {
                    None => Frame::ReadAccepted(device::ReadAccepted { message_ids: ids }),
                    Some(outcome) => Frame::Error(Error {
                        code: outcome.code().into(),
                        message: outcome.reason().to_owned(),
                        retry_after_ms: 0,
                        message_id: ids.into_iter().next().unwrap_or_default(),
                    }),
                };
                actions.push(Action::Write(frame));
            }
        }
    }

    /// Translates what delivery wants.
    fn follow(&mut self, steps: Vec<delivery::Action>, now: Now, actions: &mut Vec<Action>) {
        for step in steps {
            match step {
                delivery::Action::Deliver(message) => {
                    let own = self.settle.device();
                    // This device has sent it: its user's other devices get copies.
                    if is_copy(&message, own) && message.from.as_ref() == Some(own) {
                        self.pass_over(message.seq, now, actions);
                        continue;
                    }
                    match frame_of(message, own) {
                        Ok(frame) => actions.push(Action::Write(frame)),
                        Err(seq) => {
                            tracing::error!(
                                seq,
                                "a queued receipt cannot be decoded; it is dropped"
                            );
                            self.pass_over(seq, now, actions);
                        }
                    }
                }
                delivery::Action::Fetch(order) => actions.push(Action::Fetch(order)),
                delivery::Action::Drained => {
                    actions.push(Action::Write(Frame::Drained(device::Drained {})));
                }
                delivery::Action::Acknowledged(entries) => self.acknowledged(entries, now),
            }
        }
    }

    fn acknowledged(&mut self, entries: Vec<Entry>, now: Now) {
        for due in self.settle.acknowledged(entries) {
            let purpose = Purpose::Settle(due.seqs);
            let batch =
                Batch::new(&due.to, State::Delivered, due.message_ids, now.unix_ms, purpose);
            self.receipts.push(batch);
        }
    }

    /// What is of no use to the device is acknowledged in its place.
    fn pass_over(&mut self, seq: u64, now: Now, actions: &mut Vec<Action>) {
        let mut steps = Vec::new();
        self.delivery.acked(0, &[seq], now.at, &mut steps);
        self.follow(steps, now, actions);
    }
}

/// Whether it is what a device of this user sent to somebody, for the user's other devices.
fn is_copy(message: &Message, own: &DeviceRef) -> bool {
    message.kind() == Kind::Content
        && message.from.as_ref().is_some_and(|from| from.user == own.user)
        && own_copy::original(&message.message_id).is_some()
}

/// The frame that brings a message to `own`; its seq if it cannot be made.
fn frame_of(mut message: Message, own: &DeviceRef) -> Result<Frame, u64> {
    if message.kind() == Kind::Content {
        let own_copy = is_copy(&message, own);
        if own_copy && let Some(original) = own_copy::original(&message.message_id) {
            message.message_id = Bytes::copy_from_slice(&original);
        }
        return Ok(Frame::Deliver(device::Deliver { message: Some(message), own_copy }));
    }
    let seq = message.seq;
    let receipt = device::Receipt::decode(message.body).map_err(|_| seq)?;
    Ok(Frame::Receipt(device::Receipt { seq, ..receipt }))
}

fn told(answer: Answer) -> Action {
    match answer {
        Answer::Accepted { message_id, at_ms, duplicate } => {
            Action::Write(Frame::Accepted(device::Accepted { message_id, at_ms, duplicate }))
        }
        Answer::Error(error) => Action::Write(Frame::Error(error)),
        Answer::Close(code) => {
            let message = "the order of messages cannot be kept here; connect anew";
            Action::Close(Ending::error(code, message, Duration::from_secs(1)))
        }
    }
}

fn invalid(message: String) -> Action {
    Action::Close(Ending::error(Code::Invalid, message, Duration::ZERO))
}
