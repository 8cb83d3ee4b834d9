//! Delivery against a model mailbox, through random interleavings of stores, pushes that come, are
//! late or are lost, pages, failures, acknowledgements, expiry, comparisons of tails and reconnects.
//!
//! What must hold: first deliveries of a connection ascend; nothing that waits is skipped; the
//! window is never exceeded; nothing is settled that the device did not acknowledge; in the end,
//! everything that waits has been delivered.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{tests::message, *};

const WINDOW: u32 = 4;

#[derive(Debug, Clone)]
enum Op {
    /// A message is stored; its push comes at once, later or never.
    Store(Fate),
    /// The late push at this place comes.
    LatePush(usize),
    /// The fetch under way is served: what it will find is fixed.
    Serve,
    /// The answer comes, or none does.
    Answer {
        fails: bool,
    },
    /// The device acknowledges all or the one at this place.
    AckAll,
    AckOne(usize),
    /// On another connection it had acknowledged this much, and says so again.
    AckAhead(usize),
    /// It acknowledges whatever there is.
    AckEverything,
    /// The store applies the oldest settled acknowledgement.
    Settle,
    /// A message at this place expires.
    Expire(usize),
    /// Tails are compared.
    Reconcile,
    /// Time passes, to the next thing due.
    Wait,
    /// The socket is full, or not.
    Full(bool),
    /// The device connects anew.
    Reconnect,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Pushed,
    Late,
    Lost,
}

fn op() -> impl Strategy<Value = Op> {
    let fate = prop_oneof![Just(Fate::Pushed), Just(Fate::Late), Just(Fate::Lost)];
    prop_oneof![
        6 => fate.prop_map(Op::Store),
        3 => (0..8_usize).prop_map(Op::LatePush),
        4 => Just(Op::Serve),
        4 => prop::bool::weighted(0.2).prop_map(|fails| Op::Answer { fails }),
        2 => Just(Op::AckAll),
        2 => (0..4_usize).prop_map(Op::AckOne),
        1 => (0..8_usize).prop_map(Op::AckAhead),
        1 => Just(Op::AckEverything),
        3 => Just(Op::Settle),
        1 => (0..8_usize).prop_map(Op::Expire),
        2 => Just(Op::Reconcile),
        2 => Just(Op::Wait),
        1 => any::<bool>().prop_map(Op::Full),
        1 => Just(Op::Reconnect),
    ]
}

/// The store, the device and the connection between.
struct World {
    position: u64,
    /// What waits: seq to `prev_seq`.
    mailbox: BTreeMap<u64, u64>,
    late: Vec<Message>,
    delivery: Delivery,
    now: Instant,
    order: Option<FetchOrder>,
    page: Option<Page>,
    queued: usize,
    /// Of this connection.
    last_first: u64,
    written: BTreeSet<u64>,
    unacked: BTreeSet<u64>,
    /// Ever acknowledged by the device.
    acked: BTreeSet<u64>,
    /// Acknowledged, in order of arrival, to be removed at the store.
    settling: Vec<u64>,
}

impl World {
    fn new() -> Self {
        Self {
            position: 10,
            mailbox: BTreeMap::new(),
            late: Vec::new(),
            delivery: Delivery::new(Claimed { epoch: 10, tail: 0 }, WINDOW, 1),
            now: Instant::now(),
            order: None,
            page: None,
            queued: 0,
            last_first: 0,
            written: BTreeSet::new(),
            unacked: BTreeSet::new(),
            acked: BTreeSet::new(),
            settling: Vec::new(),
        }
    }

    fn tail(&self) -> u64 {
        self.mailbox.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    fn nth(&self, place: usize) -> Option<u64> {
        self.mailbox.keys().nth(place % self.mailbox.len().max(1)).copied()
    }

    fn step(&mut self, op: &Op) {
        self.delivery.set_room(self.queued, 100);
        let mut actions = Vec::new();
        match op {
            Op::Store(fate) => self.store(*fate, &mut actions),
            Op::LatePush(place) => {
                if !self.late.is_empty() {
                    let message = self.late.remove(place % self.late.len());
                    self.delivery.push(message, self.now, &mut actions);
                }
            }
            Op::Serve => self.serve(),
            Op::Answer { fails } => self.answer(*fails, &mut actions),
            Op::AckAll => {
                let up_to = self.unacked.last().copied().unwrap_or(0);
                self.ack(up_to, &[], &mut actions);
            }
            Op::AckOne(place) => {
                let seq = self.unacked.iter().nth(*place).copied();
                self.ack(0, &seq.into_iter().collect::<Vec<_>>(), &mut actions);
            }
            Op::AckAhead(place) => {
                let seq = self.nth(*place);
                self.ack(0, &seq.into_iter().collect::<Vec<_>>(), &mut actions);
            }
            Op::AckEverything => {
                self.acked.extend((10..=self.position).step_by(10));
                self.ack(u64::MAX, &[], &mut actions);
            }
            Op::Settle => {
                if !self.settling.is_empty() {
                    let seq = self.settling.remove(0);
                    self.mailbox.remove(&seq);
                }
            }
            Op::Expire(place) => {
                if let Some(seq) = self.nth(*place) {
                    self.mailbox.remove(&seq);
                }
            }
            Op::Reconcile => {
                if self.tail() > self.delivery.high() {
                    self.delivery.heard(self.tail());
                }
            }
            Op::Wait => self.now = self.delivery.wake_at().unwrap_or(self.now).max(self.now),
            Op::Full(full) => {
                self.queued = if *full { WRITE_QUEUE_BYTES_MAX } else { 0 };
                self.delivery.set_room(self.queued, 100);
            }
            Op::Reconnect => self.reconnect(),
        }
        self.follow(actions);
        let mut actions = Vec::new();
        self.delivery.poll(self.now, &mut actions);
        self.follow(actions);
        assert!(self.delivery.out_len() <= WINDOW as usize);
        assert!(self.delivery.wake_at().is_none_or(|at| at > self.now), "it would spin");
    }

    fn store(&mut self, fate: Fate, actions: &mut Vec<Action>) {
        let prev = self.tail();
        self.position += 10;
        self.mailbox.insert(self.position, prev);
        let message = message(self.position, prev);
        match fate {
            Fate::Pushed => self.delivery.push(message, self.now, actions),
            Fate::Late => self.late.push(message),
            Fate::Lost => {}
        }
    }

    fn serve(&mut self) {
        let Some(order) = self.order.filter(|_| self.page.is_none()) else { return };
        assert!(order.min_position <= self.position, "it would wait for ever");
        let mut found = self.mailbox.range(order.after_seq + 1..);
        let count = usize::try_from(order.messages_max).unwrap();
        let messages: Vec<Message> =
            found.by_ref().take(count).map(|(seq, prev)| message(*seq, *prev)).collect();
        self.page = Some(Page { messages, more: found.next().is_some(), tail: self.tail() });
    }

    fn answer(&mut self, fails: bool, actions: &mut Vec<Action>) {
        let Some(order) = self.order else { return };
        if fails {
            self.delivery.page_failed(order.id, self.now);
        } else if let Some(page) = self.page.clone() {
            self.delivery.page(order.id, page, self.now, actions);
        } else {
            return;
        }
        (self.order, self.page) = (None, None);
    }

    fn ack(&mut self, up_to: u64, seqs: &[u64], actions: &mut Vec<Action>) {
        self.acked.extend(self.unacked.iter().filter(|seq| **seq <= up_to).copied());
        self.acked.extend(seqs);
        let acked = &self.acked;
        self.unacked.retain(|seq| !acked.contains(seq));
        self.delivery.acked(up_to, seqs, self.now, actions);
    }

    /// A new claim: the mailbox stays, pushes for the old epoch are dropped.
    fn reconnect(&mut self) {
        self.position += 10;
        let claimed = Claimed { epoch: self.position, tail: self.tail() };
        self.delivery = Delivery::new(claimed, WINDOW, self.position);
        self.delivery.set_room(self.queued, 100);
        (self.order, self.page) = (None, None);
        self.late.clear();
        self.last_first = 0;
        self.written.clear();
        self.unacked.clear();
        self.settling.clear();
    }

    fn follow(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Deliver(message) => self.delivered(message.seq),
                Action::Fetch(order) => {
                    assert!(self.order.is_none(), "two fetches at a time");
                    self.order = Some(order);
                }
                Action::Acknowledged(entries) => {
                    for entry in entries {
                        assert!(self.acked.contains(&entry.seq), "settled without being asked");
                        self.written.insert(entry.seq);
                        self.settling.push(entry.seq);
                    }
                }
                Action::Drained => {}
            }
        }
    }

    fn delivered(&mut self, seq: u64) {
        if self.written.insert(seq) {
            assert!(seq > self.last_first, "{seq} after {}", self.last_first);
            self.last_first = seq;
            let skipped: Vec<u64> = self
                .mailbox
                .range(..seq)
                .map(|(seq, _)| *seq)
                .filter(|seq| !self.written.contains(seq))
                .collect();
            assert!(skipped.is_empty(), "{skipped:?} were skipped by {seq}");
        }
        if !self.acked.contains(&seq) || self.delivery.first_out().is_some_and(|out| out <= seq) {
            self.unacked.insert(seq);
        }
    }

    /// Everything goes well from now on: all that waits arrives.
    fn come_to_rest(&mut self) {
        self.step(&Op::Full(false));
        self.step(&Op::Reconcile);
        for _ in 0..2_000 {
            if self.mailbox.keys().all(|seq| self.written.contains(seq)) {
                return;
            }
            for op in [Op::Serve, Op::Answer { fails: false }, Op::AckAll, Op::Settle] {
                self.step(&op);
            }
            self.now += Duration::from_millis(100);
            self.step(&Op::Reconcile);
        }
        panic!("stuck: {:?} wait, high is {}", self.mailbox, self.delivery.high());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn everything_arrives_in_order_within_the_window(ops in prop::collection::vec(op(), 0..120)) {
        let mut world = World::new();
        for op in &ops {
            world.step(op);
        }
        world.come_to_rest();
    }
}
