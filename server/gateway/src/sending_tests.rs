//! Sends keep their order per recipient, whatever is refused, fails or is repeated: single rules,
//! and random runs of a device, a gateway and a chat with frames under way between them.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use proptest::prelude::*;
use switchboard_api::{
    device::v1::{Send, error::Code},
    v1::ItemStatus,
};

use super::{limits::*, outcome::Outcome, sending::*};

fn send(n: u32, to: u8) -> Send {
    Send {
        message_id: Bytes::copy_from_slice(&u128::from(n).to_be_bytes()),
        to_user: Bytes::copy_from_slice(&[to]),
        ..Send::default()
    }
}

fn outcome(status: ItemStatus) -> Outcome {
    Outcome { status, at_ms: 7, retry_after_ms: 0 }
}

/// Ids of what goes to the chat now.
fn routed(sending: &mut Sending, ids: &mut u64, now: Instant) -> Vec<u64> {
    let mut batches = Vec::new();
    sending.next(ids, now, &mut batches);
    batches.into_iter().flatten().map(|(id, _)| id).collect()
}

fn codes(answers: &[Answer]) -> Vec<Code> {
    let code = |answer: &Answer| match answer {
        Answer::Error(error) => Some(error.code()),
        _ => None,
    };
    answers.iter().filter_map(code).collect()
}

#[test]
fn one_batch_a_recipient_is_under_way_and_what_failed_goes_first_again() {
    let now = Instant::now();
    let (mut sending, mut ids, mut answers) = (Sending::new(1), 0, Vec::new());
    for n in [1, 2] {
        sending.send(send(n, 1), || None, now, &mut answers);
    }
    sending.send(send(3, 2), || None, now, &mut answers);
    assert_eq!(routed(&mut sending, &mut ids, now), [1, 2, 3]);
    sending.send(send(4, 1), || None, now, &mut answers);
    assert!(routed(&mut sending, &mut ids, now).is_empty());
    sending.answered(1, outcome(ItemStatus::Ok), now, &mut answers);
    assert!(matches!(answers[..], [Answer::Accepted { duplicate: false, at_ms: 7, .. }]));
    sending.answered(2, outcome(ItemStatus::Unavailable), now, &mut answers);
    assert!(routed(&mut sending, &mut ids, now).is_empty());
    let at = sending.wake_at().unwrap();
    let mut batches = Vec::new();
    sending.next(&mut ids, at, &mut batches);
    assert_eq!(batches, [[(4, send(2, 1)), (5, send(4, 1))]]);
    // The first answer comes once more, too late.
    sending.answered(2, outcome(ItemStatus::Ok), at, &mut answers);
    assert_eq!(answers.len(), 1);
}

#[test]
fn after_a_refusal_later_sends_wait_for_the_refused_one() {
    let now = Instant::now();
    let (mut sending, mut answers) = (Sending::new(1), Vec::new());
    let pause = Duration::from_millis(10);
    sending.send(send(1, 1), || Some(pause), now, &mut answers);
    sending.send(send(2, 1), || None, now, &mut answers);
    sending.send(send(3, 2), || None, now, &mut answers);
    assert_eq!(codes(&answers), [Code::RateLimited, Code::RateLimited]);
    let later = now + pause;
    sending.send(send(2, 1), || None, later, &mut answers);
    sending.send(send(1, 1), || None, later, &mut answers);
    sending.send(send(2, 1), || None, later, &mut answers);
    assert_eq!(answers.len(), 3);
    assert_eq!(routed(&mut sending, &mut 0, later).len(), 3);
}

#[test]
fn a_repeat_of_what_is_pending_or_just_accepted_makes_nothing_wait() {
    let now = Instant::now();
    let (mut sending, mut ids, mut answers) = (Sending::new(1), 0, Vec::new());
    let limited = || Some(Duration::from_millis(10));
    sending.send(send(1, 1), limited, now, &mut answers);
    sending.send(send(1, 1), || None, now, &mut answers);
    assert_eq!(codes(&answers), [Code::RateLimited]);
    // It crosses the first copy's way to the chat: one answer serves both.
    sending.send(send(1, 1), limited, now, &mut answers);
    assert_eq!(answers.len(), 1);
    assert_eq!(routed(&mut sending, &mut ids, now), [1]);
    sending.answered(1, outcome(ItemStatus::Ok), now, &mut answers);
    assert!(matches!(answers[1], Answer::Accepted { .. }));
    // It crosses Accepted: the device will not send it again.
    sending.send(send(1, 1), limited, now, &mut answers);
    sending.send(send(2, 1), || None, now, &mut answers);
    assert_eq!(codes(&answers), [Code::RateLimited, Code::RateLimited]);
    assert_eq!(routed(&mut sending, &mut ids, now), [2]);
    sending.answered(2, outcome(ItemStatus::Ok), now, &mut answers);
    // When nothing can be on its way any more, nothing is kept.
    let later = sending.wake_at().expect("it forgets");
    assert_eq!(later, now + REFUSED_GRACE);
    assert!(routed(&mut sending, &mut ids, later).is_empty());
    assert!(sending.is_empty() && sending.wake_at().is_none());
}

#[test]
fn a_repeat_of_what_was_pending_for_long_makes_nothing_wait() {
    let start = Instant::now();
    let (mut sending, mut ids, mut answers) = (Sending::new(1), 0, Vec::new());
    sending.send(send(1, 1), || Some(Duration::from_millis(10)), start, &mut answers);
    sending.send(send(2, 2), || None, start, &mut answers);
    let late = start + 2 * REFUSED_GRACE;
    assert_eq!(routed(&mut sending, &mut ids, late), [1]);
    sending.answered(1, outcome(ItemStatus::Ok), late, &mut answers);
    // The device had gone back to the refused one, and wrote the second again before it heard of it.
    sending.send(send(2, 2), || Some(Duration::from_millis(10)), late, &mut answers);
    assert_eq!(sending.expected().collect::<Vec<_>>(), [&send(1, 1).message_id]);
}

#[test]
fn a_device_that_gives_a_message_up_has_to_connect_anew() {
    let now = Instant::now();
    let (mut sending, mut answers) = (Sending::new(1), Vec::new());
    sending.send(send(1, 1), || Some(Duration::ZERO), now, &mut answers);
    sending.send(send(2, 1), || None, now + REFUSED_GRACE, &mut answers);
    assert_eq!(codes(&answers), [Code::RateLimited]);
    assert_eq!(answers.last(), Some(&Answer::Close(Code::RateLimited)));
}

#[test]
fn what_is_pending_is_bounded() {
    let now = Instant::now();
    let (mut sending, mut answers) = (Sending::new(1), Vec::new());
    for n in 0..=u32::try_from(SENDS_PENDING_MAX).unwrap() {
        sending.send(send(n, 1), || None, now, &mut answers);
    }
    assert_eq!(codes(&answers), [Code::Overloaded]);
}

#[test]
fn after_long_trying_the_device_is_told_to_try_again() {
    let start = Instant::now();
    let (mut sending, mut ids, mut answers) = (Sending::new(1), 0, Vec::new());
    sending.send(send(1, 1), || None, start, &mut answers);
    sending.send(send(2, 1), || None, start, &mut answers);
    let mut now = start;
    loop {
        for id in routed(&mut sending, &mut ids, now) {
            sending.answered(id, outcome(ItemStatus::Unavailable), now, &mut answers);
        }
        if !answers.is_empty() {
            break;
        }
        now = sending.wake_at().unwrap_or(now);
    }
    assert_eq!(codes(&answers), [Code::Unavailable, Code::Unavailable]);
    assert!(now - start <= SEND_TRIED_MAX + RETRY_MAX);
    // Nothing is left over.
    sending.send(send(1, 1), || None, now, &mut answers);
    assert_eq!(routed(&mut sending, &mut ids, now).len(), 1);
}

#[test]
fn while_chats_have_no_room_one_send_at_a_time_is_offered() {
    let start = Instant::now();
    let (mut sending, mut ids, mut answers) = (Sending::new(1), 0, Vec::new());
    for n in 0..40 {
        sending.send(send(n, n as u8), || None, start, &mut answers);
    }
    let offered = routed(&mut sending, &mut ids, start);
    assert_eq!(offered.len(), 40);
    for id in offered {
        sending.answered(id, outcome(ItemStatus::Overloaded), start, &mut answers);
    }
    // Those that are to be tried again wait for the connection's pause, however short their own.
    assert!(routed(&mut sending, &mut ids, start).is_empty());
    let mut now = sending.wake_at().expect("they are tried again");
    assert!(now > start && now <= start + RETRY_MAX);
    let mut offered = 0;
    for _ in 0..5 {
        let ids = routed(&mut sending, &mut ids, now);
        assert!(ids.len() <= 1, "{ids:?}");
        for id in ids {
            offered += 1;
            sending.answered(id, outcome(ItemStatus::Overloaded), now, &mut answers);
        }
        now = sending.wake_at().expect("they are tried again").max(now);
    }
    assert!(offered > 0);
    // Further sends are refused early.
    sending.send(send(99, 99), || None, now, &mut answers);
    assert_eq!(codes(&answers), [Code::Overloaded]);
    // There is room again: it doubles with each answer, until all is through.
    let mut most = 0;
    now += RETRY_MAX;
    for _ in 0..10 {
        let offered = routed(&mut sending, &mut ids, now);
        most = most.max(offered.len());
        for id in offered {
            sending.answered(id, outcome(ItemStatus::Ok), now, &mut answers);
        }
    }
    assert!(most > 8, "{most}");
    assert_eq!(answers.len(), 41, "all are durable, but the one that was refused");
}

#[test]
fn what_finds_no_place_is_sent_back_for_about_as_long_as_chats_have_had_no_room() {
    let start = Instant::now();
    let (mut sending, mut ids, mut answers) = (Sending::new(1), 0, Vec::new());
    for n in 0..20 {
        sending.send(send(n, n as u8), || None, start, &mut answers);
    }
    for id in routed(&mut sending, &mut ids, start) {
        sending.answered(id, outcome(ItemStatus::Overloaded), start, &mut answers);
    }
    let mut told = |after: Duration, n: u32| {
        let mut answers = Vec::new();
        sending.send(send(n, n as u8), || None, start + after, &mut answers);
        let [Answer::Error(error)] = &answers[..] else { panic!("{answers:?}") };
        Duration::from_millis(error.retry_after_ms)
    };
    let soon = told(Duration::ZERO, 100);
    assert!(soon >= SEND_RETRY_AFTER && soon <= 2 * SEND_RETRY_AFTER, "{soon:?}");
    let late = told(Duration::from_secs(60), 101);
    assert!(late >= SEND_RETRY_AFTER_MAX / 2 && late <= SEND_RETRY_AFTER_MAX, "{late:?}");
    // One to the same recipient has to follow it, so it waits as well, and never comes back at once.
    let follows = told(Duration::from_secs(80), 101 + 256);
    assert_eq!(follows, SEND_FOLLOWS_AFTER);
}

/// A device that sends from its outbox in order, and goes back to what was refused.
struct World {
    outbox: VecDeque<Send>,
    next: usize,
    /// Frames on their way to the gateway.
    upward: VecDeque<Send>,
    /// Answers on their way to the device.
    downward: VecDeque<Answer>,
    sending: Sending,
    ids: u64,
    /// At the chat, in order.
    at_chat: VecDeque<Vec<(u64, Send)>>,
    stored: BTreeMap<Bytes, Vec<Bytes>>,
    now: Instant,
}

#[derive(Debug, Clone)]
enum Op {
    Write,
    Arrive {
        limited: bool,
    },
    /// What goes to the chat now finds room in the queue, or not, by turns.
    Route {
        room: u8,
    },
    /// The chat answers its oldest batch; from this place on it fails, perhaps after storing one.
    Answer {
        fails_from: Option<usize>,
        stored: bool,
    },
    Hear,
    Wait(u64),
    /// The connection is lost with all frames, and made anew.
    Reconnect,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Write),
        6 => prop::bool::weighted(0.15).prop_map(|limited| Op::Arrive { limited }),
        4 => prop_oneof![Just(u8::MAX), any::<u8>()].prop_map(|room| Op::Route { room }),
        4 => (prop::option::weighted(0.4, 0..4_usize), any::<bool>())
            .prop_map(|(fails_from, stored)| Op::Answer { fails_from, stored }),
        6 => Just(Op::Hear),
        2 => (1..15_000_u64).prop_map(Op::Wait),
        1 => Just(Op::Reconnect),
    ]
}

impl World {
    fn new(messages: u32) -> Self {
        Self {
            outbox: (0..messages).map(|n| send(n, u8::try_from(n % 3).unwrap())).collect(),
            next: 0,
            upward: VecDeque::new(),
            downward: VecDeque::new(),
            sending: Sending::new(9),
            ids: 0,
            at_chat: VecDeque::new(),
            stored: BTreeMap::new(),
            now: Instant::now(),
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Write => {
                if let Some(send) = self.outbox.get(self.next) {
                    self.upward.push_back(send.clone());
                    self.next += 1;
                }
            }
            Op::Arrive { limited } => {
                if let Some(send) = self.upward.pop_front() {
                    let pause = limited.then_some(Duration::from_millis(10));
                    let mut answers = Vec::new();
                    self.sending.send(send, || pause, self.now, &mut answers);
                    self.downward.extend(answers);
                }
            }
            Op::Route { room } => self.route(*room),
            Op::Answer { fails_from, stored } => self.answer(*fails_from, *stored),
            Op::Hear => self.hear(),
            Op::Wait(ms) => {
                // Nothing is on its way for long.
                let is_quiet = self.upward.is_empty() && self.downward.is_empty();
                self.now += Duration::from_millis(if is_quiet { *ms } else { ms % 100 });
            }
            Op::Reconnect => self.reconnect(),
        }
    }

    fn route(&mut self, room: u8) {
        let mut batches = Vec::new();
        self.sending.next(&mut self.ids, self.now, &mut batches);
        let mut request = Vec::new();
        for (at, batch) in batches.into_iter().enumerate() {
            if room >> (at % 8) & 1 == 1 {
                request.extend(batch);
                continue;
            }
            let mut answers = Vec::new();
            for (id, _) in batch {
                let refused = outcome(ItemStatus::Overloaded);
                self.sending.answered(id, refused, self.now, &mut answers);
            }
            self.downward.extend(answers);
        }
        if !request.is_empty() {
            self.at_chat.push_back(request);
        }
    }

    fn reconnect(&mut self) {
        self.upward.clear();
        self.downward.clear();
        self.sending = Sending::new(9);
        self.next = 0;
        // What the chat has may still be stored, or not; its answers find nobody.
    }

    fn answer(&mut self, fails_from: Option<usize>, stored: bool) {
        let Some(batch) = self.at_chat.pop_front() else { return };
        let mut places: BTreeMap<Bytes, usize> = BTreeMap::new();
        let mut answers = Vec::new();
        for (id, send) in batch {
            let place = places.entry(send.to_user.clone()).or_default();
            let fails = fails_from.is_some_and(|from| *place >= from);
            // The first that fails may have been stored all the same.
            let lost = fails && !(stored && fails_from == Some(*place));
            *place += 1;
            let log = self.stored.entry(send.to_user.clone()).or_default();
            let known = log.contains(&send.message_id);
            if !lost && !known {
                log.push(send.message_id.clone());
            }
            let status = match (fails, known) {
                (true, _) => ItemStatus::Unavailable,
                (false, true) => ItemStatus::Duplicate,
                (false, false) => ItemStatus::Ok,
            };
            self.sending.answered(id, outcome(status), self.now, &mut answers);
        }
        self.downward.extend(answers);
    }

    fn hear(&mut self) {
        let at = |outbox: &VecDeque<Send>, id: &Bytes| {
            outbox.iter().position(|send| send.message_id == *id)
        };
        match self.downward.pop_front() {
            Some(Answer::Accepted { message_id, .. }) => {
                if let Some(place) = at(&self.outbox, &message_id) {
                    self.outbox.remove(place);
                    self.next -= usize::from(place < self.next);
                }
            }
            Some(Answer::Error(error)) => {
                if let Some(place) = at(&self.outbox, &error.message_id) {
                    self.next = self.next.min(place);
                }
            }
            Some(Answer::Close(_)) => self.reconnect(),
            None => {}
        }
    }

    fn check(&self) {
        for log in self.stored.values() {
            assert!(log.is_sorted(), "stored in the order {log:?}");
        }
        if self.upward.is_empty() && self.downward.is_empty() {
            for id in self.sending.expected() {
                let comes = self.outbox.iter().any(|send| send.message_id == *id);
                assert!(comes, "the device will never send {id:?} again");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn messages_are_stored_in_the_order_of_sending(ops in prop::collection::vec(op(), 0..300)) {
        let mut world = World::new(30);
        for op in &ops {
            world.step(op);
            world.check();
        }
        // From now on all goes well, so all is stored.
        for _ in 0..3_000 {
            for op in [
                Op::Write,
                Op::Arrive { limited: false },
                Op::Route { room: u8::MAX },
                Op::Answer { fails_from: None, stored: true },
                Op::Hear,
                Op::Wait(50),
            ] {
                world.step(&op);
            }
            world.check();
            if world.outbox.is_empty() {
                break;
            }
        }
        prop_assert!(world.outbox.is_empty());
        prop_assert_eq!(world.stored.values().map(Vec::len).sum::<usize>(), 30);
    }
}
