//! A conversation driven by bytes nobody has thought of: a device that does what it likes, a store and a
//! chat that answer late, wrongly or not at all, and the rules that hold all the same.
//!
//! ```text
//!   bytes ─▶ steps: a frame, a push, a tail heard of, an answer, time
//!                 ▼
//!   Talk ─▶ actions ─▶ rules: order, window, receipts first, ids used once
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::Bytes;
use switchboard_api::{
    device::v1::{Ack, Ping, Read, Send, client_frame, server_frame::Frame},
    v1::{DeviceRef, ItemStatus, Message},
};

use crate::{
    conversation::{Action, Conversation, Input, Now, Talk},
    delivery::{Claimed, FetchOrder, Page},
    outcome::Outcome,
    receipts::{Batch, Purpose},
};

/// Messages that are ever in the mailbox.
const MESSAGES_MAX: u64 = 400;

/// The bytes of an input, taken one after the other; zeros when they have run out.
struct Bytecode<'a>(&'a [u8]);

impl Bytecode<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.next()) % bound.max(1)
    }
}

struct World {
    talk: Talk,
    device: DeviceRef,
    now: Instant,
    window: usize,
    /// Waiting at the store, by seq.
    mailbox: BTreeMap<u64, Message>,
    stored: u64,
    /// Written to the device and not acknowledged by it.
    out: BTreeSet<u64>,
    /// The highest seq written for the first time.
    high: u64,
    /// The receipts of these are durable.
    receipted: BTreeSet<u64>,
    fetches: Vec<FetchOrder>,
    routed: Vec<u64>,
    receipts: BTreeMap<u64, Batch>,
    acks: BTreeMap<u64, Vec<u64>>,
    routed_last: u64,
    ended: bool,
}

/// Runs a conversation by these bytes.
///
/// # Panics
/// When a rule is broken.
pub fn conversation(bytes: &[u8]) {
    let mut code = Bytecode(bytes);
    let window = 1 + code.below(16);
    let mut world = World::new(window);
    for _ in 0..code.below(8) {
        world.store();
    }
    world.start(u32::try_from(window).unwrap_or(1));
    while !code.0.is_empty() && !world.ended {
        world.step(&mut code);
    }
    if !world.ended {
        world.finish();
    }
}

impl World {
    fn new(window: usize) -> Self {
        let device = DeviceRef { user: "bob".into(), device: 1 };
        let claimed = Claimed { epoch: 1, tail: 0 };
        let talk = Talk::Busy(Box::new(Conversation::new(device.clone(), claimed, 1, 1)));
        Self {
            talk,
            device,
            now: Instant::now(),
            window,
            mailbox: BTreeMap::new(),
            stored: 0,
            out: BTreeSet::new(),
            high: 0,
            receipted: BTreeSet::new(),
            fetches: Vec::new(),
            routed: Vec::new(),
            receipts: BTreeMap::new(),
            acks: BTreeMap::new(),
            routed_last: 0,
            ended: false,
        }
    }

    /// The claim is answered.
    fn start(&mut self, window: u32) {
        let claimed = Claimed { epoch: 1, tail: self.tail() };
        let conversation = Conversation::new(self.device.clone(), claimed, window, 7);
        self.talk = Talk::Busy(Box::new(conversation));
        self.poll();
    }

    fn tail(&self) -> u64 {
        self.mailbox.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    /// Something is stored for the device.
    fn store(&mut self) -> Option<Message> {
        if self.stored >= MESSAGES_MAX {
            return None;
        }
        self.stored += 1;
        let seq = self.stored * 10;
        let message = Message {
            message_id: Bytes::copy_from_slice(&u128::from(seq).to_be_bytes()),
            from: Some(DeviceRef { user: "alice".into(), device: 1 }),
            seq,
            prev_seq: self.tail(),
            ..Message::default()
        };
        self.mailbox.insert(seq, message.clone());
        Some(message)
    }

    fn step(&mut self, code: &mut Bytecode<'_>) {
        match code.next() % 12 {
            0..2 => {
                // A push may also get lost.
                let message = self.store();
                if let Some(message) = message.filter(|_| !code.next().is_multiple_of(4)) {
                    self.input(Input::Push(message));
                }
            }
            2 => self.input(Input::Heard(self.tail())),
            3..5 => self.answer_fetch(code),
            5 => self.answer_route(code),
            6 => self.answer_receipts(code),
            7 => self.answer_ack(code),
            8 => {
                self.now += Duration::from_millis(1 << code.below(16));
                self.poll();
            }
            9..11 => self.acknowledge(code),
            _ => {
                let frame = frame(code);
                self.input(Input::Frame(frame));
            }
        }
    }

    fn answer_fetch(&mut self, code: &mut Bytecode<'_>) {
        if self.fetches.is_empty() {
            return;
        }
        let order = self.fetches.swap_remove(code.below(self.fetches.len()));
        let page = (!code.next().is_multiple_of(5)).then(|| self.page(&order));
        self.input(Input::Page { id: order.id, page });
    }

    fn page(&self, order: &FetchOrder) -> Page {
        let max = usize::try_from(order.messages_max).unwrap_or(1);
        let mut waiting = self.mailbox.range(order.after_seq + 1..).map(|(_, m)| m.clone());
        let messages = waiting.by_ref().take(max).collect();
        Page { messages, more: waiting.next().is_some(), tail: self.tail() }
    }

    fn answer_route(&mut self, code: &mut Bytecode<'_>) {
        if !self.routed.is_empty() {
            let id = self.routed.swap_remove(code.below(self.routed.len()));
            let outcome = outcome(code);
            self.input(Input::Routed { id, outcome });
        }
    }

    fn answer_receipts(&mut self, code: &mut Bytecode<'_>) {
        let Some((id, batch)) = self.receipts.pop_first() else { return };
        let outcome = outcome(code);
        // What was refused for good settles too: it could never be delivered otherwise.
        let retry = matches!(outcome.verdict(), crate::outcome::Verdict::Retry);
        if let (Purpose::Settle(seqs), false) = (&batch.purpose, retry) {
            self.receipted.extend(seqs);
        }
        self.input(Input::Routed { id, outcome });
    }

    fn answer_ack(&mut self, code: &mut Bytecode<'_>) {
        let Some((id, seqs)) = self.acks.pop_first() else { return };
        let status =
            if code.next().is_multiple_of(4) { ItemStatus::Unavailable } else { ItemStatus::Ok };
        if status == ItemStatus::Ok {
            for seq in seqs {
                self.mailbox.remove(&seq);
            }
        }
        self.input(Input::Acked { id, status });
    }

    fn acknowledge(&mut self, code: &mut Bytecode<'_>) {
        let out: Vec<u64> = self.out.iter().copied().collect();
        let ack = match out.get(code.below(out.len())) {
            Some(seq) if code.next().is_multiple_of(2) => Ack { up_to_seq: *seq, seqs: vec![] },
            Some(seq) => Ack { up_to_seq: 0, seqs: vec![*seq] },
            // In advance, of what a connection before this one delivered.
            None => Ack { up_to_seq: u64::from(code.next()) * 5, seqs: vec![] },
        };
        self.input(Input::Frame(client_frame::Frame::Ack(ack)));
    }

    fn input(&mut self, input: Input) {
        if let Input::Frame(client_frame::Frame::Ack(ack)) = &input {
            self.out.retain(|seq| *seq > ack.up_to_seq && !ack.seqs.contains(seq));
        }
        let now = Now { at: self.now, unix_ms: 1, queued: 0 };
        let mut actions = Vec::new();
        self.talk.wake(|| self.device.clone()).handle(input, &mut || None, now, &mut actions);
        self.act(actions);
        self.poll();
    }

    fn poll(&mut self) {
        let now = Now { at: self.now, unix_ms: 1, queued: 0 };
        let mut actions = Vec::new();
        if let Some(conversation) = self.talk.busy() {
            conversation.poll(now, &mut actions);
        }
        self.act(actions);
        self.talk.settle_down();
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Write(Frame::Deliver(deliver)) => {
                    self.delivered(&deliver.message.expect("a delivery has its message"));
                }
                Action::Write(_) => {}
                Action::Fetch(order) => {
                    assert!(self.fetches.is_empty(), "one fetch at a time");
                    self.fetches.push(order);
                }
                Action::Ack { id, item } => self.acked(id, item.up_to_seq, &item.seqs),
                Action::Route { sends } => {
                    for (id, _) in sends {
                        self.fresh(id);
                        self.routed.push(id);
                    }
                }
                Action::RouteReceipts { id, batch } => {
                    self.fresh(id);
                    self.receipts.insert(id, batch);
                }
                Action::Close(_) => self.ended = true,
            }
        }
    }

    fn fresh(&mut self, id: u64) {
        assert!(id > self.routed_last, "no id is used twice");
        self.routed_last = id;
    }

    fn delivered(&mut self, message: &Message) {
        if message.seq > self.high {
            self.high = message.seq;
            self.out.insert(message.seq);
        } else {
            assert!(self.out.contains(&message.seq), "only what is out is repeated");
        }
        assert!(self.out.len() <= self.window, "the window is kept");
    }

    fn acked(&mut self, id: u64, up_to_seq: u64, seqs: &[u64]) {
        let covered: Vec<u64> = self
            .mailbox
            .keys()
            .copied()
            .filter(|seq| *seq <= up_to_seq || seqs.contains(seq))
            .collect();
        for seq in &covered {
            assert!(!self.out.contains(seq), "{seq} was not acknowledged by the device");
            assert!(self.receipted.contains(seq), "the receipt of {seq} comes first");
        }
        self.acks.insert(id, covered);
    }

    /// Everybody answers from now on: all that waits is delivered, and settled. The conversation may
    /// go on being busy, with a refused send that the device has not repeated.
    fn finish(&mut self) {
        self.input(Input::Heard(self.tail()));
        let mut always = Bytecode(&[]);
        for _ in 0..100_000 {
            if self.ended || self.mailbox.is_empty() {
                return;
            }
            self.now += Duration::from_secs(1);
            self.poll();
            if let Some(order) = self.fetches.pop() {
                let page = Some(self.page(&order));
                self.input(Input::Page { id: order.id, page });
            }
            if let Some(id) = self.routed.pop() {
                let outcome = Outcome { status: ItemStatus::Ok, at_ms: 1, retry_after_ms: 0 };
                self.input(Input::Routed { id, outcome });
            }
            self.answer_receipts(&mut always);
            self.answer_ack(&mut Bytecode(&[1]));
            if let Some(seq) = self.out.last().copied() {
                let ack = Ack { up_to_seq: seq, seqs: vec![] };
                self.input(Input::Frame(client_frame::Frame::Ack(ack)));
            }
        }
        panic!("{} messages were never delivered and settled", self.mailbox.len());
    }
}

fn outcome(code: &mut Bytecode<'_>) -> Outcome {
    let status = match code.next() % 6 {
        0..3 => ItemStatus::Ok,
        3 => ItemStatus::Duplicate,
        4 => ItemStatus::Unavailable,
        _ => ItemStatus::MailboxFull,
    };
    Outcome { status, at_ms: 1, retry_after_ms: u64::from(code.next()) }
}

fn frame(code: &mut Bytecode<'_>) -> client_frame::Frame {
    let id = |code: &mut Bytecode<'_>| {
        let length = if code.next().is_multiple_of(16) { 3 } else { 16 };
        Bytes::from(vec![code.next(); length])
    };
    match code.next() % 8 {
        0..5 => client_frame::Frame::Send(Send {
            message_id: id(code),
            to_user: Bytes::from(vec![b'a' + code.next() % 4; 3]),
            to_device: u32::from(code.next() % 3),
            body: Bytes::from(vec![0; code.below(64)]),
            ..Send::default()
        }),
        5 => client_frame::Frame::Read(Read {
            to_user: "alice".into(),
            message_ids: (0..code.below(4)).map(|_| id(code)).collect(),
        }),
        6 => client_frame::Frame::Ping(Ping { nonce: 1 }),
        _ => client_frame::Frame::Ack(Ack {
            up_to_seq: 0,
            seqs: (0..code.below(4)).map(|_| u64::from(code.next()) * 1_000).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn the_rules_hold_whatever_happens(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            super::conversation(&bytes);
        }
    }
}
