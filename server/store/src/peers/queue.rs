//! What waits on a link and what is under way: pure bookkeeping, no I/O.

use std::collections::{HashMap, VecDeque};

use prost::Message as _;
use switchboard_api::v1::{PeerCall, PeerCalls, PeerHello, peer_answer, peer_call};
use tokio::sync::oneshot;

use crate::limits;

pub(super) type Answer = peer_answer::Answer;

/// The calls of one stream. Invariant: `bytes` is the sum over what waits.
#[derive(Default)]
pub(super) struct Queue {
    hello: Option<PeerHello>,
    urgent: VecDeque<PeerCall>,
    waiting: VecDeque<PeerCall>,
    bytes: usize,
    under_way: HashMap<u64, oneshot::Sender<Answer>>,
    next_id: u64,
}

impl Queue {
    /// A queue of a new stream, which begins with a hello.
    pub(super) fn new(hello: PeerHello, next_id: u64) -> Self {
        Self { hello: Some(hello), next_id, ..Self::default() }
    }

    /// The first id that was not used.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Appends a call; none when the link is full. Urgent calls overtake the others.
    pub(super) fn push(
        &mut self,
        call: peer_call::Call,
        urgent: bool,
    ) -> Option<(u64, oneshot::Receiver<Answer>)> {
        let id = self.next_id;
        let call = PeerCall { id, call: Some(call) };
        let bytes = call.encoded_len();
        let is_full = self.bytes + bytes > limits::LINK_BYTES_MAX
            || self.under_way.len() >= limits::LINK_CALLS_MAX;
        if is_full {
            return None;
        }
        self.next_id += 1;
        self.bytes += bytes;
        let (sender, answer) = oneshot::channel();
        self.under_way.insert(id, sender);
        if urgent {
            self.urgent.push_back(call)
        } else {
            self.waiting.push_back(call)
        }
        Some((id, answer))
    }

    /// The next message: all that is urgent, then as much as fits of what waits; the hello first.
    pub(super) fn take(&mut self) -> Option<PeerCalls> {
        let hello = self.hello.take();
        let mut calls = Vec::new();
        let mut bytes = 0;
        while bytes < limits::PEER_MESSAGE_BYTES {
            let Some(call) = self.urgent.pop_front().or_else(|| self.waiting.pop_front()) else {
                break;
            };
            bytes += call.encoded_len();
            calls.push(call);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        (hello.is_some() || !calls.is_empty()).then_some(PeerCalls { hello, calls })
    }

    /// Hands an answer to who waits for it, if anybody does still.
    pub(super) fn answer(&mut self, id: u64, answer: Answer) {
        if let Some(sender) = self.under_way.remove(&id) {
            // Who asked may have gone in this moment.
            let _ = sender.send(answer);
        }
    }

    /// Nobody waits for this answer any more. The call may still be sent.
    pub(super) fn forget(&mut self, id: u64) {
        self.under_way.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use switchboard_api::v1::RaftCall;

    use super::*;

    fn call(bytes: usize) -> peer_call::Call {
        peer_call::Call::Raft(RaftCall { group: 1, request: vec![0; bytes].into() })
    }

    fn ids(message: Option<PeerCalls>) -> Vec<u64> {
        message.into_iter().flat_map(|calls| calls.calls).map(|call| call.id).collect()
    }

    #[test]
    fn urgent_calls_overtake_and_others_keep_their_order() {
        let mut queue = Queue::new(PeerHello::default(), 1);
        for urgent in [false, false, true, false] {
            queue.push(call(10), urgent).unwrap();
        }
        let first = queue.take().unwrap();
        assert!(first.hello.is_some());
        assert_eq!(ids(Some(first)), [3, 1, 2, 4]);
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn a_message_ends_when_it_is_large_and_a_full_link_takes_nothing() {
        let mut queue = Queue::new(PeerHello::default(), 1);
        for _ in 0..3 {
            queue.push(call(limits::PEER_MESSAGE_BYTES), false).unwrap();
        }
        assert_eq!(ids(queue.take()), [1]);
        while queue.push(call(1 << 20), false).is_some() {}
        assert!(queue.bytes <= limits::LINK_BYTES_MAX);
        assert_eq!(ids(queue.take()), [2]);
        assert!(queue.push(call(1 << 20), false).is_some(), "there is room again");
    }

    #[test]
    fn an_answer_goes_to_who_asked() {
        let mut queue = Queue::new(PeerHello::default(), 7);
        let (id, mut answer) = queue.push(call(1), false).unwrap();
        queue.answer(id + 1, Answer::Unanswered(true));
        assert!(answer.try_recv().is_err());
        queue.answer(id, Answer::Unanswered(true));
        assert_eq!(answer.try_recv(), Ok(Answer::Unanswered(true)));
        let (forgotten, _) = queue.push(call(1), false).unwrap();
        queue.forget(forgotten);
        assert!(queue.under_way.is_empty());
    }
}
