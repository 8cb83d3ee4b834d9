//! Merging of receipts before they are stored: a state machine without I/O, one per Route stream.
//!
//! A receipt is a small message to the sending device: kind RECEIPT, from the device that makes
//! it, with an id derived from what it says, so that a repeat is dropped as a duplicate. While it
//! waits to be stored, another for the same message by the same device replaces it if its state is
//! higher, and both are answered by the one that is stored.
//!
//! Invariants: a request is answered exactly once, after all its receipts are resolved; receipts
//! need no order, since the highest state wins at the device.

use std::{collections::HashMap, hash::Hasher as _};

use bytes::Bytes;
use prost::Message as _;
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use switchboard_api::{
    device::v1::{Receipt, receipt::State},
    v1::{
        DeviceRef, ItemStatus, enqueue_request, message::Kind, route_request,
        route_response::Result as Answer,
    },
};

use super::pairs::{Outcome, is_retryable};
use crate::limits::RECEIPTS_GATHERED_MAX;

/// What two receipts must have in common to be merged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Subject {
    by_user: Bytes,
    by_device: u32,
    to_user: Bytes,
    to_device: u32,
    message_id: Bytes,
}

#[derive(Debug)]
struct Waiting {
    subject: Subject,
    state: State,
    at_ms: u64,
    /// The requests (by token) that this receipt is part of; an entry for each mention.
    requests: Vec<u64>,
}

/// A `Receipts` of the gateway, until all of its receipts are resolved.
#[derive(Debug)]
struct Request {
    id: u64,
    missing: usize,
    /// The answer so far.
    status: ItemStatus,
    at_ms: u64,
}

/// A receipt on its way to the store.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) item: enqueue_request::Item,
    /// Those that wait for it.
    requests: Vec<u64>,
}

impl Gathered {
    pub(crate) fn recipient(&self) -> &[u8] {
        self.item.to.as_ref().map_or(&[], |to| &to.user)
    }
}

/// The receipts of one stream.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    waiting: Vec<Waiting>,
    /// Index into `waiting`.
    by_subject: HashMap<Subject, usize>,
    requests: HashMap<u64, Request>,
    next_token: u64,
    items: usize,
}

impl Receipts {
    /// Receipts that are not resolved, those at the store included.
    pub(crate) fn items(&self) -> usize {
        self.items
    }

    /// Whether any waits to go out.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether so many wait that they should go out now.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= RECEIPTS_GATHERED_MAX
    }

    /// Takes a valid request.
    pub(crate) fn accept(&mut self, receipts: &route_request::Receipts) {
        let (Some(by), Some(to)) = (&receipts.by, &receipts.to) else { return };
        let token = self.next_token;
        self.next_token += 1;
        let missing = receipts.message_ids.len();
        self.items += missing;
        let request = Request { id: receipts.id, missing, status: ItemStatus::Ok, at_ms: 0 };
        self.requests.insert(token, request);
        for message_id in &receipts.message_ids {
            let subject = Subject {
                by_user: by.user.clone(),
                by_device: by.device,
                to_user: to.user.clone(),
                to_device: to.device,
                message_id: message_id.clone(),
            };
            self.add(subject, receipts.state(), receipts.at_ms, token);
        }
    }

    fn add(&mut self, subject: Subject, state: State, at_ms: u64, token: u64) {
        let known = self.by_subject.get(&subject).and_then(|at| self.waiting.get_mut(*at));
        match known {
            Some(waiting) => {
                if state > waiting.state {
                    (waiting.state, waiting.at_ms) = (state, at_ms);
                }
                waiting.requests.push(token);
            }
            None => {
                self.by_subject.insert(subject.clone(), self.waiting.len());
                self.waiting.push(Waiting { subject, state, at_ms, requests: vec![token] });
            }
        }
    }

    /// What waits, as calls to the store; each may be made in parts.
    pub(crate) fn gather(&mut self) -> Vec<Vec<Gathered>> {
        self.by_subject.clear();
        let mut calls: Vec<Vec<Gathered>> = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            if calls.last().is_none_or(|call| call.len() >= RECEIPTS_GATHERED_MAX) {
                calls.push(Vec::new());
            }
            if let Some(call) = calls.last_mut() {
                call.push(Gathered { item: item(&waiting), requests: waiting.requests });
            }
        }
        calls
    }

    /// Takes the outcomes of a call, one per item; the answers of requests that are complete now.
    pub(crate) fn resolve(&mut self, call: Vec<Gathered>, outcomes: &[Outcome]) -> Vec<Answer> {
        let missing = Outcome { status: ItemStatus::Unavailable, at_ms: 0 };
        let mut answers = Vec::new();
        for (at, receipt) in call.into_iter().enumerate() {
            let outcome = outcomes.get(at).copied().unwrap_or(missing);
            for token in receipt.requests {
                self.items -= 1;
                let Some(request) = self.requests.get_mut(&token) else { continue };
                request.missing -= 1;
                request.at_ms = request.at_ms.max(outcome.at_ms);
                request.status = worse(request.status, outcome.status);
                if request.missing == 0 {
                    answers.extend(self.requests.remove(&token).map(|done| Answer {
                        id: done.id,
                        status: done.status.into(),
                        at_ms: done.at_ms,
                        retry_after_ms: 0,
                    }));
                }
            }
        }
        answers
    }
}

/// The answer for a request of which receipts were answered `a` and `b`: to be sent again if any
/// is, else refused if any is, else done.
fn worse(a: ItemStatus, b: ItemStatus) -> ItemStatus {
    let rank = |status| match status {
        ItemStatus::Ok | ItemStatus::Duplicate => 0,
        status if is_retryable(status) => 2,
        _ => 1,
    };
    match (rank(a), rank(b)) {
        (0, 0) => ItemStatus::Ok,
        (of_a, of_b) if of_b > of_a => b,
        _ => a,
    }
}

fn item(receipt: &Waiting) -> enqueue_request::Item {
    let Waiting { subject, state, at_ms, .. } = receipt;
    let body = Receipt {
        message_id: subject.message_id.clone(),
        state: (*state).into(),
        by_user: subject.by_user.clone(),
        by_device: subject.by_device,
        at_ms: *at_ms,
        seq: 0,
    };
    enqueue_request::Item {
        to: Some(DeviceRef { user: subject.to_user.clone(), device: subject.to_device }),
        message_id: receipt_id(&subject.message_id, &subject.by_user, subject.by_device, *state),
        from: Some(DeviceRef { user: subject.by_user.clone(), device: subject.by_device }),
        ttl_ms: 0,
        kind: Kind::Receipt.into(),
        body: body.encode_to_vec().into(),
    }
}

/// The message id of a receipt: SipHash-2-4-128 with an all-zero key over message id, length of
/// the user (one byte), user, device (four bytes, little-endian) and state (one byte). No secret
/// is needed: the store keys its dedup with the sender, so a device can only pre-empt its own
/// receipts.
fn receipt_id(message_id: &[u8], by_user: &[u8], by_device: u32, state: State) -> Bytes {
    let mut hasher = SipHasher24::new();
    hasher.write(message_id);
    hasher.write(&[by_user.len() as u8]);
    hasher.write(by_user);
    hasher.write(&by_device.to_le_bytes());
    hasher.write(&[state as u8]);
    Bytes::copy_from_slice(&hasher.finish128().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Outcome = Outcome { status: ItemStatus::Ok, at_ms: 9 };
    const DUPLICATE: Outcome = Outcome { status: ItemStatus::Duplicate, at_ms: 4 };
    const DOWN: Outcome = Outcome { status: ItemStatus::Unavailable, at_ms: 0 };
    const FULL: Outcome = Outcome { status: ItemStatus::MailboxFull, at_ms: 0 };

    fn request(id: u64, state: State, messages: &[u8]) -> route_request::Receipts {
        let device =
            |user: &'static [u8]| Some(DeviceRef { user: Bytes::from_static(user), device: 1 });
        route_request::Receipts {
            id,
            by: device(b"bob"),
            to: device(b"alice"),
            state: state.into(),
            message_ids: messages.iter().map(|m| Bytes::from(vec![*m; 16])).collect(),
            at_ms: 100 + id,
        }
    }

    fn receipt(item: &enqueue_request::Item) -> Receipt {
        assert_eq!(item.kind(), Kind::Receipt);
        assert_eq!(item.from.as_ref().unwrap().user, "bob");
        assert_eq!(item.to.as_ref().unwrap().user, "alice");
        assert_eq!(item.message_id.len(), 16);
        Receipt::decode(item.body.clone()).unwrap()
    }

    fn only(calls: Vec<Vec<Gathered>>) -> Vec<Gathered> {
        assert_eq!(calls.len(), 1);
        calls.into_iter().next().unwrap()
    }

    #[test]
    fn the_highest_state_wins_and_both_requests_are_answered_by_it() {
        let mut receipts = Receipts::default();
        receipts.accept(&request(1, State::Delivered, &[7, 8]));
        receipts.accept(&request(2, State::Read, &[7]));
        receipts.accept(&request(3, State::Delivered, &[7]));
        let call = only(receipts.gather());
        assert!(!receipts.is_waiting());
        let bodies: Vec<_> = call.iter().map(|gathered| receipt(&gathered.item)).collect();
        assert_eq!(bodies.len(), 2);
        assert_eq!((bodies[0].state(), bodies[0].at_ms, bodies[0].seq), (State::Read, 102, 0));
        assert_eq!((bodies[1].state(), bodies[1].at_ms), (State::Delivered, 101));
        let mut answers = receipts.resolve(call, &[OK, DUPLICATE]);
        answers.sort_by_key(|answer| answer.id);
        assert_eq!(answers.iter().map(|a| a.id).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(answers.iter().all(|a| a.status() == ItemStatus::Ok && a.at_ms == 9));
        assert_eq!((receipts.items(), receipts.requests.len()), (0, 0));
    }

    #[test]
    fn a_receipt_at_the_store_is_not_merged_with() {
        let mut receipts = Receipts::default();
        receipts.accept(&request(1, State::Delivered, &[7]));
        let first = only(receipts.gather());
        receipts.accept(&request(2, State::Read, &[7]));
        let second = only(receipts.gather());
        assert_ne!(first[0].item.message_id, second[0].item.message_id);
        assert_eq!(receipts.resolve(second, &[OK])[0].id, 2);
        assert_eq!(receipts.resolve(first, &[OK])[0].id, 1);
    }

    #[test]
    fn a_request_waits_for_its_last_receipt_and_the_worst_answer_counts() {
        let cases = [
            (OK, FULL, ItemStatus::MailboxFull),
            (FULL, DOWN, ItemStatus::Unavailable),
            (DOWN, FULL, ItemStatus::Unavailable),
            (DUPLICATE, OK, ItemStatus::Ok),
        ];
        for (first, second, expected) in cases {
            let mut receipts = Receipts::default();
            receipts.accept(&request(1, State::Delivered, &[7]));
            let before = only(receipts.gather());
            receipts.resolve(before, &[OK]);
            receipts.accept(&request(2, State::Delivered, &[1, 2]));
            let call = only(receipts.gather());
            let answers = receipts.resolve(call, &[first, second]);
            assert_eq!(answers.len(), 1);
            assert_eq!(answers[0].status(), expected);
        }
    }

    #[test]
    fn a_message_named_twice_and_missing_answers_are_no_trouble() {
        let mut receipts = Receipts::default();
        receipts.accept(&request(1, State::Delivered, &[7, 7]));
        let call = only(receipts.gather());
        assert_eq!(call.len(), 1);
        let answers = receipts.resolve(call, &[]);
        assert_eq!(answers[0].status(), ItemStatus::Unavailable);
        assert_eq!(receipts.items(), 0);
    }

    #[test]
    fn ids_are_fixed_by_what_a_receipt_says() {
        let id = receipt_id(&[7; 16], b"bob", 1, State::Delivered);
        assert_eq!(id, receipt_id(&[7; 16], b"bob", 1, State::Delivered));
        for other in [
            receipt_id(&[8; 16], b"bob", 1, State::Delivered),
            receipt_id(&[7; 16], b"bobby", 1, State::Delivered),
            receipt_id(&[7; 16], b"bob", 2, State::Delivered),
            receipt_id(&[7; 16], b"bob", 1, State::Read),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn many_receipts_are_several_calls() {
        let mut receipts = Receipts::default();
        for id in 0..3 {
            let mut many = request(id, State::Read, &[]);
            many.message_ids = (0..1024_u64)
                .map(|n| Bytes::from([n.to_le_bytes(), id.to_le_bytes()].concat()))
                .collect();
            receipts.accept(&many);
        }
        assert!(receipts.is_full());
        let calls = receipts.gather();
        assert_eq!(calls.len(), 6);
        let mut answered = 0;
        for call in calls {
            let outcomes = vec![OK; call.len()];
            answered += receipts.resolve(call, &outcomes).len();
        }
        assert_eq!((answered, receipts.items()), (3, 0));
    }
}
