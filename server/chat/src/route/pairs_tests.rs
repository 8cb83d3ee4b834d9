//! The order of a pair under every interleaving of failures, with a gateway that resends and a
//! store that stores.

use proptest::prelude::*;

use super::*;

fn send(id: u64, from: u8, to: u8) -> Send {
    let device = |user: u8| Some(DeviceRef { user: Bytes::from(vec![user]), device: 1 });
    Send {
        id,
        from: device(from),
        to: device(to),
        body: Bytes::from_static(b"b"),
        ..Send::default()
    }
}

fn ids(step: &Step) -> Vec<Vec<u64>> {
    step.calls.iter().map(|call| call.iter().map(|sent| sent.id).collect()).collect()
}

fn answers(step: &Step) -> Vec<(u64, ItemStatus)> {
    step.answers.iter().map(|answer| (answer.id, answer.status())).collect()
}

const OK: Outcome = Outcome { status: ItemStatus::Ok, at_ms: 5 };
const DOWN: Outcome = Outcome { status: ItemStatus::Unavailable, at_ms: 0 };
const FULL: Outcome = Outcome { status: ItemStatus::MailboxFull, at_ms: 0 };

#[test]
fn one_batch_of_a_pair_is_out_and_other_pairs_do_not_wait() {
    let mut pairs = Pairs::default();
    let mut first = pairs.accept(vec![send(1, 1, 9), send(2, 1, 9), send(3, 2, 9)], 0);
    assert_eq!(ids(&first), [[1, 2, 3]]);
    assert!(ids(&pairs.accept(vec![send(4, 1, 9)], 0)).is_empty());
    assert_eq!(ids(&pairs.accept(vec![send(5, 3, 9), send(6, 1, 9)], 0)), [[5]]);
    let step = pairs.resolve(first.calls.remove(0), &[OK, OK, OK]);
    assert_eq!(ids(&step), [[4, 6]]);
    assert_eq!(step.answers[0].at_ms, 5);
    assert_eq!(pairs.items(), 3);
}

#[test]
fn a_refusal_for_good_holds_nothing_up() {
    let mut pairs = Pairs::default();
    let mut first = pairs.accept(vec![send(1, 1, 9)], 0);
    pairs.accept(vec![send(2, 1, 9)], 0);
    let step = pairs.resolve(first.calls.remove(0), &[FULL]);
    assert_eq!(answers(&step), [(1, ItemStatus::MailboxFull)]);
    assert_eq!(ids(&step), [[2]]);
    assert_eq!(pairs.failures(), 0);
}

#[test]
fn what_was_sent_before_the_failure_was_known_fails_with_it() {
    let mut pairs = Pairs::default();
    let mut first = pairs.accept(vec![send(1, 1, 9)], 0);
    pairs.accept(vec![send(2, 1, 9)], 0);
    let step = pairs.resolve(first.calls.remove(0), &[DOWN]);
    assert_eq!(answers(&step), [(1, ItemStatus::Unavailable), (2, ItemStatus::Unavailable)]);
    assert!(step.calls.is_empty());
    assert_eq!(pairs.failures(), 2);
    // Written before those answers were read; another pair is not concerned.
    let early = pairs.accept(vec![send(3, 1, 9), send(4, 2, 9)], 0);
    assert_eq!(answers(&early), [(3, ItemStatus::Unavailable)]);
    assert_eq!(ids(&early), [[4]]);
    // The gateway knows of the first two failures, but not that the third send failed as well.
    assert_eq!(answers(&pairs.accept(vec![send(5, 1, 9)], 2)), [(5, ItemStatus::Unavailable)]);
    let again = pairs.accept(vec![send(6, 1, 9), send(7, 1, 9)], pairs.failures());
    assert_eq!(ids(&again), [[6, 7]]);
    assert!(pairs.marks.is_empty() && pairs.by_mark.is_empty());
}

#[test]
fn a_long_queue_goes_out_in_bounded_batches() {
    let mut pairs = Pairs::default();
    let mut step = pairs.accept(vec![send(0, 1, 9)], 0);
    let count = 3 * PAIR_BATCH_ITEMS_MAX as u64;
    pairs.accept((1..=count).map(|id| send(id, 1, 9)).collect(), 0);
    let mut next = 0;
    while let Some(call) = step.calls.pop() {
        assert!(call.len() <= PAIR_BATCH_ITEMS_MAX);
        for sent in &call {
            assert_eq!(sent.id, next);
            next += 1;
        }
        let outcomes = vec![OK; call.len()];
        step = pairs.resolve(call, &outcomes);
    }
    assert_eq!(next, count + 1);
    assert_eq!((pairs.items(), pairs.bytes(), pairs.busy.len()), (0, 0, 0));
}

/// A gateway that sends numbered messages of several pairs and, after a failure, everything of the
/// pair that failed again once nothing of it is under way; a store that answers calls in any order,
/// and fails from some item on, stored or not.
struct World {
    pairs: Pairs,
    /// Per sender: what is to be sent, what is under way (message by request id).
    to_send: Vec<VecDeque<u64>>,
    unanswered: Vec<BTreeMap<u64, u64>>,
    failed: Vec<Vec<u64>>,
    next_message: u64,
    next_id: u64,
    /// Requests written and not yet read by chat.
    inbound: VecDeque<(Vec<Send>, u64)>,
    /// Responses not yet read by the gateway.
    outbound: VecDeque<(Vec<Answer>, u64)>,
    failures_seen: u64,
    calls: Vec<Vec<Outgoing>>,
    messages: HashMap<u64, (usize, u64)>,
    /// What the store has, per sender, without repeats.
    stored: Vec<Vec<u64>>,
}

const SENDERS: usize = 3;

impl World {
    fn new() -> Self {
        Self {
            pairs: Pairs::default(),
            to_send: vec![VecDeque::new(); SENDERS],
            unanswered: vec![BTreeMap::new(); SENDERS],
            failed: vec![Vec::new(); SENDERS],
            next_message: 0,
            next_id: 0,
            inbound: VecDeque::new(),
            outbound: VecDeque::new(),
            failures_seen: 0,
            calls: Vec::new(),
            messages: HashMap::new(),
            stored: vec![Vec::new(); SENDERS],
        }
    }

    /// Writes a request with up to `count` messages of each sender, new ones only if `fresh`.
    fn write(&mut self, count: usize, fresh: bool) {
        let mut sends = Vec::new();
        for sender in 0..SENDERS {
            if self.unanswered[sender].is_empty() {
                // All answers are in: what failed goes first, in its order.
                let mut failed = std::mem::take(&mut self.failed[sender]);
                failed.sort_unstable();
                for message in failed.into_iter().rev() {
                    self.to_send[sender].push_front(message);
                }
            }
            if !self.failed[sender].is_empty() {
                continue;
            }
            for _ in 0..count {
                let message = match self.to_send[sender].pop_front() {
                    Some(message) => message,
                    None if fresh => {
                        self.next_message += 1;
                        self.next_message
                    }
                    None => break,
                };
                self.next_id += 1;
                self.unanswered[sender].insert(self.next_id, message);
                self.messages.insert(self.next_id, (sender, message));
                sends.push(send(self.next_id, sender as u8, 200));
            }
        }
        if !sends.is_empty() {
            self.inbound.push_back((sends, self.failures_seen));
        }
    }

    fn step(&mut self, step: Step) {
        self.calls.extend(step.calls);
        if !step.answers.is_empty() {
            self.outbound.push_back((step.answers, self.pairs.failures()));
        }
    }

    fn read_request(&mut self) {
        if let Some((sends, seen)) = self.inbound.pop_front() {
            let step = self.pairs.accept(sends, seen);
            self.step(step);
        }
    }

    /// The store answers one call: items up to `good` are stored and answered so; from there on
    /// all fail, but those below `stored` have been stored nevertheless.
    fn answer_call(&mut self, which: usize, good: usize, stored: usize) {
        if self.calls.is_empty() {
            return;
        }
        let call = self.calls.remove(which % self.calls.len());
        let mut outcomes = Vec::new();
        for (at, sent) in call.iter().enumerate() {
            let (sender, message) = self.messages[&sent.id];
            if at < good.max(stored) && !self.stored[sender].contains(&message) {
                self.stored[sender].push(message);
            }
            outcomes.push(if at < good { OK } else { DOWN });
        }
        let step = self.pairs.resolve(call, &outcomes);
        self.step(step);
    }

    fn read_response(&mut self) {
        let Some((answers, failures)) = self.outbound.pop_front() else { return };
        self.failures_seen = failures;
        for answer in answers {
            let (sender, message) = self.messages[&answer.id];
            assert_eq!(self.unanswered[sender].remove(&answer.id), Some(message), "answered twice");
            if answer.status() == ItemStatus::Unavailable {
                self.failed[sender].push(message);
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            let busy = !self.inbound.is_empty()
                || !self.outbound.is_empty()
                || !self.calls.is_empty()
                || self.failed.iter().any(|failed| !failed.is_empty())
                || self.to_send.iter().any(|waiting| !waiting.is_empty());
            if !busy {
                return;
            }
            self.read_request();
            self.answer_call(0, usize::MAX, 0);
            self.read_response();
            if self.inbound.is_empty() {
                self.write(3, false);
            }
        }
        panic!("does not settle");
    }
}

#[derive(Debug, Clone)]
enum Event {
    Write(usize),
    ReadRequest,
    AnswerCall(usize, usize, usize),
    ReadResponse,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1..4_usize).prop_map(Event::Write),
        4 => Just(Event::ReadRequest),
        2 => (0..8_usize).prop_map(|which| Event::AnswerCall(which, usize::MAX, 0)),
        2 => (0..8_usize, 0..6_usize, 0..6_usize)
            .prop_map(|(which, good, stored)| Event::AnswerCall(which, good, stored)),
        4 => Just(Event::ReadResponse),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn the_store_has_each_pair_in_the_order_of_sending(events in prop::collection::vec(event(), 0..120)) {
        let mut world = World::new();
        for event in events {
            match event {
                Event::Write(count) => world.write(count, true),
                Event::ReadRequest => world.read_request(),
                Event::AnswerCall(which, good, stored) => world.answer_call(which, good, stored),
                Event::ReadResponse => world.read_response(),
            }
        }
        world.settle();
        for stored in &world.stored {
            prop_assert!(stored.is_sorted(), "{stored:?}");
        }
        let stored: usize = world.stored.iter().map(Vec::len).sum();
        prop_assert_eq!(stored as u64, world.next_message, "something was lost");
        prop_assert_eq!((world.pairs.items(), world.pairs.bytes()), (0, 0));
        prop_assert!(world.pairs.busy.is_empty());
    }
}
