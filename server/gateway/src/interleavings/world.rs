//! The world of one run: two gateways, a chat, a device, and what is on its way between them.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use switchboard_api::{
    device::v1::{Ack, client_frame, redirect::Reason, server_frame::Frame},
    v1::{DeliverRequest, FetchRequest, ItemStatus, Message, SessionInfo, deliver_request},
};
use switchboard_engine::{
    self as engine, Claim, Command, DeviceId, Enqueue, MessageKind, Release, Reply, Status,
};

use super::store::{Store, device_ref, session_info};
use crate::{
    conversation::{Action, Conversation, Ending, Input, Meaning, Now},
    delivery::{Claimed, FetchOrder, Page},
    meters::Meters,
    outcome::Outcome,
    peers::{Event, Peer, Peers},
    receipts::Batch,
    service,
};

/// Small, so that it is reached.
const WINDOW: u32 = 2;

/// A fault put in on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// A chat asks where the recipient is, and stores afterwards.
    LookUpBeforeEnqueue,
    /// A gateway takes no push for a connection whose claim is not answered.
    PushesDroppedDuringClaim,
    NoReconciliation,
    /// A store node does not hide sessions of incarnations that have ended.
    EndedSessionsShown,
    /// A store does not look at the epoch of an ack.
    AcksNotFenced,
}

/// How much of each may happen in a run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Budget {
    pub(super) messages: u8,
    /// On each gateway.
    pub(super) connects: [u8; 2],
    pub(super) chat_deaths: u8,
    /// Gateways that lose their lease, and begin anew.
    pub(super) lease_ends: u8,
    /// Gateways that notice by themselves that the device has left, and release.
    pub(super) notices_end: u8,
    pub(super) acks: u8,
    pub(super) reconciliations: u8,
    /// Every message between processes takes its own time. Otherwise those that matter least are
    /// there at once, so that exhausting the rest is feasible.
    pub(super) all_is_slow: bool,
}

impl Budget {
    pub(super) fn large() -> Self {
        Self {
            messages: 7,
            connects: [3, 3],
            chat_deaths: 1,
            lease_ends: 2,
            notices_end: 3,
            acks: 6,
            reconciliations: 3,
            all_is_slow: true,
        }
    }
}

/// Something that may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Only with the bug of that name.
    LookUp,
    /// The chat stores the next message and has its answer: it is accepted.
    Store,
    /// The chat pushes what it stored at this place.
    Push(usize),
    ChatDies,
    Connect(usize),
    /// The gateway of this connection notices that the device has left it.
    NoticeEnd(usize),
    /// A gateway cannot renew: it sends its devices away.
    Fence(usize),
    /// The store ends the incarnation, and the gateway registers anew.
    LeaseEnds(usize),
    /// This one arrives.
    Arrive(usize),
    Reconcile,
    /// The device acknowledges all it has had on its connection.
    Ack,
}

#[derive(Debug)]
enum Parcel {
    Claim { conn: usize },
    Claimed { conn: usize, claimed: engine::Claimed },
    Push { gateway: u32, incarnation: u64, push: deliver_request::Push },
    Replaced { session: SessionInfo },
    Fetch { conn: usize, order: FetchOrder },
    Page { conn: usize, id: u64, page: Page },
    Ack { conn: usize, id: u64, ack: engine::Ack },
    Acked { conn: usize, id: u64, status: ItemStatus },
    Receipts { conn: usize, id: u64, batch: Batch },
    Routed { conn: usize, id: u64 },
    Release { epoch: u64 },
}

struct Gateway {
    id: u32,
    incarnation: u64,
    /// It may act.
    holds: bool,
    peers: Peers,
}

struct Conn {
    gateway: usize,
    incarnation: u64,
    peer: Arc<Peer>,
    conversation: Option<Conversation>,
    open: bool,
    /// What the device received last on it.
    last: u64,
}

/// What a chat has stored and not pushed.
struct Stored {
    message: Message,
    sessions: Vec<SessionInfo>,
}

pub(super) struct World<'a> {
    store: &'a mut Store,
    bug: Option<Bug>,
    budget: Budget,
    meters: Meters,
    now: Instant,
    alice: DeviceId,
    bob: DeviceId,
    gateways: Vec<Gateway>,
    conns: Vec<Conn>,
    parcels: Vec<Parcel>,
    chat: Vec<Stored>,
    /// With the bug.
    looked_up: Option<Vec<SessionInfo>>,
    /// Messages stored.
    accepted: u8,
    /// The connection that the device uses.
    on: Option<usize>,
    /// What it has been shown, by number, and the seqs it had.
    shown: Vec<u8>,
    had: BTreeSet<u64>,
    newest_epoch: u64,
    a_push_was_lost: bool,
    failure: Option<String>,
}

impl<'a> World<'a> {
    pub(super) fn new(store: &'a mut Store, budget: Budget, bug: Option<Bug>, run: u64) -> Self {
        let gateways = ["one", "two"]
            .map(|name| {
                let (id, incarnation) = store.register(name);
                Gateway { id, incarnation, holds: true, peers: Peers::default() }
            })
            .into();
        Self {
            store,
            bug,
            budget,
            meters: Meters::new(),
            now: Instant::now(),
            alice: DeviceId::new(format!("alice-{run}"), 1),
            bob: DeviceId::new(format!("bob-{run}"), 1),
            gateways,
            conns: Vec::new(),
            parcels: Vec::new(),
            chat: Vec::new(),
            looked_up: None,
            accepted: 0,
            on: None,
            shown: Vec::new(),
            had: BTreeSet::new(),
            newest_epoch: 0,
            a_push_was_lost: false,
            failure: None,
        }
    }

    /// What may happen now, in a fixed order.
    pub(super) fn enabled(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = (0..self.parcels.len()).map(Step::Arrive).collect();
        if self.budget.messages > 0 {
            let looks_up = self.bug == Some(Bug::LookUpBeforeEnqueue) && self.looked_up.is_none();
            steps.push(if looks_up { Step::LookUp } else { Step::Store });
        }
        steps.extend((0..self.chat.len()).map(Step::Push));
        if self.budget.chat_deaths > 0 && !self.chat.is_empty() {
            steps.push(Step::ChatDies);
        }
        for (at, gateway) in self.gateways.iter().enumerate() {
            if self.budget.connects[at] > 0 && gateway.holds {
                steps.push(Step::Connect(at));
            }
            if !gateway.holds {
                steps.push(Step::LeaseEnds(at));
            } else if self.budget.lease_ends > 0 {
                steps.push(Step::Fence(at));
            }
        }
        if self.budget.notices_end > 0 {
            let left = |(at, conn): &(usize, &Conn)| {
                conn.open && conn.conversation.is_some() && self.on != Some(*at)
            };
            let left = self.conns.iter().enumerate().filter(left);
            steps.extend(left.map(|(at, _)| Step::NoticeEnd(at)));
        }
        if self.budget.reconciliations > 0 && self.on.is_some() {
            steps.push(Step::Reconcile);
        }
        if self.budget.acks > 0 && self.on.is_some_and(|on| self.conns[on].last > 0) {
            steps.push(Step::Ack);
        }
        steps
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::LookUp => {
                let located = self.store.shard.locate(&self.bob.user);
                self.looked_up = Some(self.shown_sessions(&located.sessions));
            }
            Step::Store => self.store_message(),
            Step::Push(at) => self.push(at),
            Step::ChatDies => {
                self.budget.chat_deaths -= 1;
                self.chat.clear();
                self.a_push_was_lost = true;
            }
            Step::Connect(gateway) => {
                self.budget.connects[gateway] -= 1;
                self.connect(gateway);
            }
            Step::NoticeEnd(conn) => {
                self.budget.notices_end -= 1;
                self.close(conn);
                self.parcels.push(Parcel::Release { epoch: self.conns[conn].peer.epoch() });
            }
            Step::Fence(gateway) => self.fence(gateway),
            Step::LeaseEnds(gateway) => self.lease_ends(gateway),
            Step::Arrive(at) => {
                let parcel = self.parcels.remove(at);
                self.arrive(parcel);
            }
            Step::Reconcile => {
                self.budget.reconciliations -= 1;
                self.reconcile();
            }
            Step::Ack => {
                self.budget.acks -= 1;
                self.ack();
            }
        }
        if !self.budget.all_is_slow {
            self.hurry();
        }
    }

    /// The first check that failed.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Everything that is on its way arrives, and what must hold then is checked.
    pub(super) fn come_to_rest(&mut self) {
        if self.bug == Some(Bug::LookUpBeforeEnqueue) && self.looked_up.is_some() {
            self.store_message();
        }
        while !self.chat.is_empty() {
            self.push(0);
        }
        self.settle_down();
        for gateway in 0..self.gateways.len() {
            if !self.gateways[gateway].holds {
                self.lease_ends(gateway);
            }
        }
        self.settle_down();
        // A device that was sent away, or never came, connects.
        for _ in 0..3 {
            if self.on.is_none_or(|on| !self.conns[on].open) {
                self.connect(0);
                self.settle_down();
            }
        }
        self.keep_acknowledging();
        if !self.a_push_was_lost {
            self.check_all_shown("fell between without a chat's death");
        }
        if self.bug != Some(Bug::NoReconciliation) {
            self.reconcile();
            self.keep_acknowledging();
        }
        self.check_all_shown("never came, also with reconciliation");
        self.check_all_settled();
    }

    /// With a window of two, more comes only after an acknowledgement.
    fn keep_acknowledging(&mut self) {
        for _ in 0..20 {
            self.ack();
            self.settle_down();
        }
    }

    fn fail(&mut self, failure: String) {
        self.failure.get_or_insert(failure);
    }

    fn check_all_shown(&mut self, how: &str) {
        let missing: Vec<u8> = (0..self.accepted).filter(|n| !self.shown.contains(n)).collect();
        if !missing.is_empty() {
            self.fail(format!("messages {missing:?} {how}; shown: {:?}", self.shown));
        }
    }

    /// All is acknowledged and gone, and each message has its receipt.
    fn check_all_settled(&mut self) {
        let waiting = self.store.waiting(&self.bob);
        if !waiting.is_empty() {
            self.fail(format!("{waiting:?} still wait though all was acknowledged"));
        }
        let receipts = self.store.shard.stat(&self.alice).messages;
        if receipts != u64::from(self.accepted) {
            self.fail(format!("{receipts} receipts for {} messages", self.accepted));
        }
    }

    fn settle_down(&mut self) {
        // A resend is due after seconds; whatever goes on for longer than this goes on for ever.
        for _ in 0..10_000 {
            if self.parcels.is_empty() {
                return;
            }
            let parcel = self.parcels.remove(0);
            self.arrive(parcel);
        }
        self.fail("it never comes to rest".to_owned());
    }

    /// What matters least for the order of things is there at once.
    fn hurry(&mut self) {
        let is_quick = |parcel: &Parcel| {
            !matches!(
                parcel,
                Parcel::Claimed { .. }
                    | Parcel::Push { .. }
                    | Parcel::Replaced { .. }
                    | Parcel::Fetch { .. }
                    | Parcel::Page { .. }
            )
        };
        while let Some(at) = self.parcels.iter().position(is_quick) {
            let parcel = self.parcels.remove(at);
            self.arrive(parcel);
        }
    }

    fn shown_sessions(&self, sessions: &[engine::Session]) -> Vec<SessionInfo> {
        let hidden = |session: &engine::Session| {
            self.bug != Some(Bug::EndedSessionsShown)
                && self.store.has_ended(session.gateway_id, session.incarnation)
        };
        sessions.iter().filter(|session| !hidden(session)).map(session_info).collect()
    }

    fn store_message(&mut self) {
        self.budget.messages = self.budget.messages.saturating_sub(1);
        let n = self.accepted;
        let enqueue = Enqueue {
            to_user: self.bob.user.clone(),
            to_device: 0,
            message_id: [n; 16],
            from: self.alice.clone(),
            ttl_ms: 0,
            kind: MessageKind::Content,
            body: Bytes::from(vec![n; 20]),
        };
        let Reply::Enqueued(reply) = self.store.change(&Command::Enqueue(enqueue.clone())) else {
            panic!("no answer to an enqueue");
        };
        assert_eq!((reply.status, reply.stored.len()), (Status::Ok, 1));
        self.accepted += 1;
        let sessions = match self.looked_up.take() {
            Some(sessions) => sessions,
            None => self.shown_sessions(&reply.sessions),
        };
        for session in &sessions {
            if self.store.has_ended(session.gateway_id, session.incarnation) {
                self.fail(format!("a look-up shows {session:?}, whose incarnation has ended"));
            }
            if self.bug.is_none() && session.epoch != self.newest_epoch {
                self.fail(format!("a look-up shows {session:?}, which is not the newest claim"));
            }
        }
        let message = Message {
            message_id: Bytes::copy_from_slice(&enqueue.message_id),
            from: Some(device_ref(&self.alice)),
            seq: reply.stored[0].seq,
            prev_seq: reply.stored[0].prev_seq,
            enqueued_at_ms: reply.enqueued_at_ms,
            expires_at_ms: reply.expires_at_ms,
            body: enqueue.body,
            ..Message::default()
        };
        self.chat.push(Stored { message, sessions });
    }

    fn push(&mut self, at: usize) {
        let Stored { message, sessions } = self.chat.remove(at);
        for session in sessions {
            self.parcels.push(Parcel::Push {
                gateway: session.gateway_id,
                incarnation: session.incarnation,
                push: deliver_request::Push {
                    device: session.device,
                    connection_id: session.connection_id,
                    epoch: session.epoch,
                    message: Some(message.clone()),
                },
            });
        }
    }

    fn connect(&mut self, at: usize) {
        let gateway = &self.gateways[at];
        let peer = gateway.peers.add(&device_ref(&self.bob), gateway.incarnation);
        self.conns.push(Conn {
            gateway: at,
            incarnation: gateway.incarnation,
            peer,
            conversation: None,
            open: true,
            last: 0,
        });
        let conn = self.conns.len() - 1;
        self.on = Some(conn);
        self.parcels.push(Parcel::Claim { conn });
    }

    fn fence(&mut self, at: usize) {
        self.budget.lease_ends -= 1;
        self.gateways[at].holds = false;
        self.gateways[at].peers.for_each(|peer| {
            peer.tell(Event::Leave { reason: Reason::LeaseLost, retry_after_ms: 0 });
        });
        for conn in 0..self.conns.len() {
            if self.conns[conn].gateway == at {
                self.turn(conn);
            }
        }
    }

    fn lease_ends(&mut self, at: usize) {
        let (id, incarnation) = (self.gateways[at].id, self.gateways[at].incarnation);
        self.store.end(id, incarnation);
        let (_, incarnation) = self.store.register(["one", "two"][at]);
        self.gateways[at].incarnation = incarnation;
        self.gateways[at].holds = true;
    }

    fn close(&mut self, conn: usize) {
        let Conn { gateway, peer, open, .. } = &mut self.conns[conn];
        *open = false;
        self.gateways[*gateway].peers.remove(peer.connection_id);
        if self.on == Some(conn) {
            self.on = None;
        }
    }

    /// The gateways compare tails.
    fn reconcile(&mut self) {
        let tail = self.store.shard.stat(&self.bob).tail;
        for conn in 0..self.conns.len() {
            let Conn { peer, open, .. } = &self.conns[conn];
            if *open && peer.epoch() != 0 && tail > peer.high() {
                peer.heard(tail);
                self.turn(conn);
            }
        }
    }

    /// The device acknowledges what it has had on its connection.
    fn ack(&mut self) {
        let Some(conn) = self.on else { return };
        let last = self.conns[conn].last;
        if last > 0 {
            let ack = client_frame::Frame::Ack(Ack { up_to_seq: last, seqs: Vec::new() });
            self.input(conn, Input::Frame(ack));
            self.turn(conn);
        }
    }

    fn arrive(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Claim { conn } => self.claim(conn),
            Parcel::Claimed { conn, claimed } => self.claimed(conn, &claimed),
            Parcel::Push { gateway, incarnation, push } => {
                let request = DeliverRequest { pushes: vec![push], ..DeliverRequest::default() };
                self.deliver(gateway, incarnation, request);
            }
            Parcel::Replaced { session } => {
                let replaced = deliver_request::Replaced {
                    device: session.device,
                    connection_id: session.connection_id,
                    epoch: session.epoch,
                    gone: false,
                };
                let request =
                    DeliverRequest { replaced: vec![replaced], ..DeliverRequest::default() };
                self.deliver(session.gateway_id, session.incarnation, request);
            }
            Parcel::Fetch { conn, order } => self.fetch(conn, &order),
            Parcel::Page { conn, id, page } => {
                self.tell(conn, Event::Page { id, page: Some(page) });
            }
            Parcel::Ack { conn, id, ack } => self.apply_ack(conn, id, ack),
            Parcel::Acked { conn, id, status } => self.tell(conn, Event::Acked { id, status }),
            Parcel::Receipts { conn, id, batch } => self.store_receipts(conn, id, &batch),
            Parcel::Routed { conn, id } => {
                let outcome = Outcome { status: ItemStatus::Ok, at_ms: 1, retry_after_ms: 0 };
                self.tell(conn, Event::Routed { id, outcome });
            }
            Parcel::Release { epoch } => {
                self.store.change(&Command::Release(Release { device: self.bob.clone(), epoch }));
            }
        }
    }

    fn claim(&mut self, conn: usize) {
        let Conn { gateway, incarnation, peer, .. } = &self.conns[conn];
        let gateway_id = self.gateways[*gateway].id;
        if self.store.has_ended(gateway_id, *incarnation) {
            self.close(conn);
            return;
        }
        let claim = Claim {
            device: self.bob.clone(),
            gateway_id,
            incarnation: *incarnation,
            connection_id: peer.connection_id,
            push_token: Bytes::new(),
        };
        let Reply::Claimed(claimed) = self.store.change(&Command::Claim(claim)) else {
            panic!("no answer to a claim");
        };
        assert!(claimed.epoch > self.newest_epoch);
        self.newest_epoch = claimed.epoch;
        self.parcels.push(Parcel::Claimed { conn, claimed });
    }

    fn claimed(&mut self, conn: usize, claimed: &engine::Claimed) {
        if let Some(session) = &claimed.replaced
            && !self.store.has_ended(session.gateway_id, session.incarnation)
        {
            self.parcels.push(Parcel::Replaced { session: session_info(session) });
        }
        let Conn { gateway, incarnation, peer, conversation, open, .. } = &mut self.conns[conn];
        let gateway = &self.gateways[*gateway];
        peer.set_epoch(claimed.epoch);
        if !*open || !gateway.holds || gateway.incarnation != *incarnation {
            self.close(conn);
            return;
        }
        if self.bug == Some(Bug::PushesDroppedDuringClaim) {
            peer.take();
        }
        let answer = Claimed { epoch: claimed.epoch, tail: claimed.tail };
        let device = device_ref(&self.bob);
        *conversation = Some(Conversation::new(device, answer, WINDOW, claimed.epoch));
        self.turn(conn);
    }

    /// A request of a chat or of another gateway, as the service takes it.
    fn deliver(&mut self, gateway_id: u32, incarnation: u64, request: DeliverRequest) {
        let Some(at) = self.gateways.iter().position(|gateway| gateway.id == gateway_id) else {
            return;
        };
        // The address is another life's by now; its connections have other epochs.
        let _ = incarnation;
        let mut ghosts = Vec::new();
        service::take(&self.gateways[at].peers, &self.meters, request, &mut ghosts);
        let releases = ghosts.into_iter().map(|ghost| Parcel::Release { epoch: ghost.epoch });
        self.parcels.extend(releases);
        for conn in 0..self.conns.len() {
            if self.conns[conn].gateway == at {
                self.turn(conn);
            }
        }
    }

    fn fetch(&mut self, conn: usize, order: &FetchOrder) {
        let applied = self.newest_epoch.max(self.store.shard.stat(&self.bob).tail);
        if order.min_position > applied.max(self.had.last().copied().unwrap_or(0)) {
            self.fail(format!("{order:?} waits for what is not there"));
        }
        let request = FetchRequest {
            after_seq: order.after_seq,
            messages_max: order.messages_max,
            bytes_max: order.bytes_max,
            ..FetchRequest::default()
        };
        let response = self.store.fetch(&self.bob, &request);
        let page = Page { messages: response.messages, more: response.more, tail: response.tail };
        self.parcels.push(Parcel::Page { conn, id: order.id, page });
    }

    fn apply_ack(&mut self, conn: usize, id: u64, mut ack: engine::Ack) {
        let before = self.store.waiting(&self.bob);
        let epoch = ack.epoch;
        if self.bug == Some(Bug::AcksNotFenced) {
            ack.epoch = 0;
        }
        let Reply::Acked(reply) = self.store.change(&Command::Ack(ack)) else {
            panic!("no answer to an ack");
        };
        let after = self.store.waiting(&self.bob);
        let gone: Vec<u64> = before.into_iter().filter(|seq| !after.contains(seq)).collect();
        if epoch != self.newest_epoch && !gone.is_empty() {
            self.fail(format!("an ack of an older epoch removed {gone:?}"));
        }
        if gone.iter().any(|seq| !self.had.contains(seq)) {
            self.fail(format!("of {gone:?} the device has had only {:?}", self.had));
        }
        let status = match reply.status {
            Status::Ok => ItemStatus::Ok,
            Status::Fenced => ItemStatus::Fenced,
            other => panic!("an ack was answered {other:?}"),
        };
        self.parcels.push(Parcel::Acked { conn, id, status });
    }

    /// What a chat does with receipts; ids as they are made from message, device and state.
    fn store_receipts(&mut self, conn: usize, id: u64, batch: &Batch) {
        for message_id in &batch.message_ids {
            let enqueue = Enqueue {
                to_user: batch.to.0.clone(),
                to_device: u16::try_from(batch.to.1).expect("a device"),
                message_id: *message_id,
                from: self.bob.clone(),
                ttl_ms: 0,
                kind: MessageKind::Receipt,
                body: Bytes::new(),
            };
            self.store.change(&Command::Enqueue(enqueue));
        }
        self.parcels.push(Parcel::Routed { conn, id });
    }

    fn tell(&mut self, conn: usize, event: Event) {
        self.conns[conn].peer.tell(event);
        self.turn(conn);
    }

    fn now(&self) -> Now {
        Now { at: self.now, unix_ms: 1, queued: 0 }
    }

    fn input(&mut self, conn: usize, input: Input) {
        let now = self.now();
        let mut actions = Vec::new();
        if let Some(conversation) = &mut self.conns[conn].conversation {
            conversation.handle(input, &mut || None, now, &mut actions);
        }
        self.act(conn, actions);
    }

    /// What the connection's task does when something came.
    fn turn(&mut self, conn: usize) {
        let leaves = |conn: &Conn| !conn.open || conn.conversation.is_none();
        if leaves(&self.conns[conn]) {
            return;
        }
        let arrived = self.conns[conn].peer.take();
        if arrived.heard != 0 {
            self.input(conn, Input::Heard(arrived.heard));
        }
        for event in arrived.events {
            match Meaning::of(event, self.conns[conn].peer.epoch()) {
                Meaning::Input(input) => self.input(conn, input),
                Meaning::Nothing => {}
                Meaning::Replaced | Meaning::Silent | Meaning::Leave { .. } => self.close(conn),
            }
            if !self.conns[conn].open {
                return;
            }
        }
        let now = self.now();
        let mut actions = Vec::new();
        let Conn { conversation, peer, .. } = &mut self.conns[conn];
        if let Some(conversation) = conversation {
            conversation.poll(now, &mut actions);
            peer.set_high(conversation.high());
        }
        self.act(conn, actions);
        self.now += Duration::from_micros(1);
    }

    fn act(&mut self, conn: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Write(Frame::Deliver(deliver)) => {
                    self.show(conn, &deliver.message.expect("a message"));
                }
                Action::Write(_) => {}
                Action::Fetch(order) => self.parcels.push(Parcel::Fetch { conn, order }),
                Action::Ack { id, item } => {
                    let device = self.bob.clone();
                    let (epoch, up_to_seq, seqs) = (item.epoch, item.up_to_seq, item.seqs);
                    let ack = engine::Ack { device, epoch, up_to_seq, seqs };
                    self.parcels.push(Parcel::Ack { conn, id, ack });
                }
                Action::RouteReceipts { id, batch } => {
                    self.parcels.push(Parcel::Receipts { conn, id, batch });
                }
                Action::Close(Ending::Replaced) => self.close(conn),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The device reads from the connection that it uses, and from no other.
    fn show(&mut self, conn: usize, message: &Message) {
        if self.on != Some(conn) {
            return;
        }
        let last = &mut self.conns[conn].last;
        if message.seq <= *last {
            let failure = format!("seq {} was written after {last}", message.seq);
            self.fail(failure);
            return;
        }
        *last = message.seq;
        self.had.insert(message.seq);
        let n = message.message_id[0];
        if self.shown.contains(&n) {
            return;
        }
        if self.shown.last().is_some_and(|last| *last > n) {
            self.fail(format!("message {n} was shown after {:?}", self.shown));
        }
        self.shown.push(n);
    }
}
