//! A conversation in which nothing is under way, as what little has to be known of it: most
//! connections are idle most of the time, and this is what they hold then.

use switchboard_api::v1::DeviceRef;

use super::Conversation;
use crate::{
    delivery::{self, Delivery},
    receipts::Receipts,
    sending::Sending,
    settle::Settle,
};

/// What a conversation needs to go on. Counts go on too, so that no id is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rest {
    delivery: delivery::Rest,
    acks: u64,
    routed: u64,
}

/// A conversation, whole only while something is under way.
#[derive(Debug)]
pub(crate) enum Talk {
    Busy(Box<Conversation>),
    Resting(Rest),
}

impl Conversation {
    /// What is left of it if nothing is under way: nothing to deliver, to settle, to send or to
    /// wait for.
    fn rest(&self) -> Option<Rest> {
        let idle = self.settle.is_empty() && self.receipts.is_empty() && self.sending.is_empty();
        if !idle || self.parted || self.fenced_until.is_some() {
            return None;
        }
        let (acks, routed) = (self.settle.acks(), self.routed);
        Some(Rest { delivery: self.delivery.rest()?, acks, routed })
    }

    fn resume(rest: Rest, device: DeviceRef, seed: u64) -> Self {
        Self {
            settle: Settle::resume(device, rest.delivery.epoch(), rest.acks, seed),
            delivery: Delivery::resume(rest.delivery, seed),
            receipts: Receipts::new(seed),
            sending: Sending::new(seed),
            routed: rest.routed,
            fenced_until: None,
            parted: false,
        }
    }
}

impl Talk {
    /// The conversation, put together again if it rests.
    pub(crate) fn wake(&mut self, device: impl FnOnce() -> DeviceRef) -> &mut Conversation {
        if let Self::Resting(rest) = *self {
            let resumed = Conversation::resume(rest, device(), rand::random());
            *self = Self::Busy(Box::new(resumed));
        }
        match self {
            Self::Busy(conversation) => conversation,
            Self::Resting(_) => unreachable!("it was put together above"),
        }
    }

    /// The conversation, unless it rests.
    pub(crate) fn busy(&mut self) -> Option<&mut Conversation> {
        match self {
            Self::Busy(conversation) => Some(conversation),
            Self::Resting(_) => None,
        }
    }

    /// Gives the memory of a conversation away in which nothing is under way.
    pub(crate) fn settle_down(&mut self) {
        if let Self::Busy(conversation) = self
            && let Some(rest) = conversation.rest()
        {
            *self = Self::Resting(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use switchboard_api::{
        device::v1::{Ack, Send, client_frame, server_frame::Frame},
        v1::{ItemStatus, Message},
    };

    use super::*;
    use crate::{
        conversation::{Action, Ending, Input, Now},
        delivery::Claimed,
        outcome::Outcome,
    };

    fn device() -> DeviceRef {
        DeviceRef { user: "bob".into(), device: 1 }
    }

    fn act(talk: &mut Talk, input: Option<Input>) -> Vec<Action> {
        let now = Now { at: Instant::now(), unix_ms: 1, queued: 0 };
        let mut actions = Vec::new();
        let conversation = talk.wake(device);
        if let Some(input) = input {
            conversation.handle(input, &mut || None, now, &mut actions);
        }
        conversation.poll(now, &mut actions);
        talk.settle_down();
        actions
    }

    fn message(seq: u64, prev_seq: u64) -> Message {
        let from = Some(DeviceRef { user: "alice".into(), device: 1 });
        Message { message_id: vec![1; 16].into(), from, seq, prev_seq, ..Message::default() }
    }

    #[test]
    fn it_rests_exactly_while_nothing_is_under_way_and_goes_on_from_there() {
        let claimed = Claimed { epoch: 5, tail: 0 };
        let mut talk = Talk::Busy(Box::new(Conversation::new(device(), claimed, 8, 1)));
        let rests = |talk: &Talk| matches!(talk, Talk::Resting(_));
        assert!(matches!(act(&mut talk, None)[..], [Action::Write(Frame::Drained(_))]));
        assert!(rests(&talk));
        for (seq, prev_seq) in [(10, 0), (20, 10)] {
            let pushed = act(&mut talk, Some(Input::Push(message(seq, prev_seq))));
            assert!(matches!(pushed[..], [Action::Write(Frame::Deliver(_))]), "{pushed:?}");
            assert!(!rests(&talk), "it is not acknowledged");
            let ack = client_frame::Frame::Ack(Ack { up_to_seq: seq, seqs: vec![] });
            let acked = act(&mut talk, Some(Input::Frame(ack)));
            let [Action::RouteReceipts { id, .. }] = acked[..] else { panic!("{acked:?}") };
            assert!(!rests(&talk), "its receipt is not durable");
            let outcome = Outcome { status: ItemStatus::Ok, at_ms: 1, retry_after_ms: 0 };
            let durable = act(&mut talk, Some(Input::Routed { id, outcome }));
            let [Action::Ack { id, .. }] = durable[..] else { panic!("{durable:?}") };
            assert!(!rests(&talk), "its ack does not count yet");
            assert_eq!(act(&mut talk, Some(Input::Acked { id, status: ItemStatus::Ok })), []);
            assert!(rests(&talk));
        }
        // What was heard of and not delivered is fetched from where it stopped.
        let [Action::Fetch(order)] = act(&mut talk, Some(Input::Heard(30)))[..] else {
            panic!("no fetch")
        };
        assert_eq!((order.after_seq, order.id), (20, 1));
        assert!(!rests(&talk));
    }

    #[test]
    fn it_does_not_rest_while_a_send_is_unanswered() {
        let claimed = Claimed { epoch: 5, tail: 0 };
        let mut talk = Talk::Busy(Box::new(Conversation::new(device(), claimed, 8, 1)));
        act(&mut talk, None);
        let mut last = 0;
        for _ in 0..2 {
            let send =
                Send { message_id: vec![2; 16].into(), to_user: "alice".into(), ..Send::default() };
            let sent = act(&mut talk, Some(Input::Frame(client_frame::Frame::Send(send))));
            let [Action::Route { sends }] = &sent[..] else { panic!("{sent:?}") };
            let id = sends[0].0;
            assert!(id > last && talk.busy().is_some());
            last = id;
            let outcome = Outcome { status: ItemStatus::Ok, at_ms: 1, retry_after_ms: 0 };
            let accepted = act(&mut talk, Some(Input::Routed { id, outcome }));
            assert!(matches!(accepted[..], [Action::Write(Frame::Accepted(_))]));
            assert!(talk.busy().is_none());
        }
    }

    #[test]
    fn whose_session_is_found_replaced_waits_for_the_word_by_whom_and_is_to_come_again_without() {
        let claimed = Claimed { epoch: 5, tail: 0 };
        let mut talk = Talk::Busy(Box::new(Conversation::new(device(), claimed, 8, 1)));
        act(&mut talk, Some(Input::Push(message(10, 0))));
        let ack = client_frame::Frame::Ack(Ack { up_to_seq: 10, seqs: vec![] });
        let acked = act(&mut talk, Some(Input::Frame(ack)));
        let [Action::RouteReceipts { id, .. }] = acked[..] else { panic!("{acked:?}") };
        let outcome = Outcome { status: ItemStatus::Ok, at_ms: 1, retry_after_ms: 0 };
        let durable = act(&mut talk, Some(Input::Routed { id, outcome }));
        let [Action::Ack { id, .. }] = durable[..] else { panic!("{durable:?}") };
        let fenced = act(&mut talk, Some(Input::Acked { id, status: ItemStatus::Fenced }));
        assert_eq!(fenced, []);
        let conversation = talk.busy().expect("it waits");
        let at = conversation.wake_at().expect("not for ever");
        let mut actions = Vec::new();
        conversation.poll(Now { at, unix_ms: 1, queued: 0 }, &mut actions);
        assert_eq!(actions, [Action::Close(Ending::Fenced)]);
    }

    #[test]
    fn a_connection_at_rest_is_small() {
        assert!(std::mem::size_of::<Talk>() <= 64, "{}", std::mem::size_of::<Talk>());
    }
}
