//! The world of one run: two gateways, a chat, a device, and what is on its way between them.

mod arriving;
mod connection;
mod rest;

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use bytes::Bytes;
use switchboard_api::{
    device::v1::redirect::Reason,
    v1::{Message, SessionInfo, deliver_request},
};
use switchboard_engine::{self as engine, Command, DeviceId, Enqueue, MessageKind, Reply, Status};

use self::arriving::Parcel;
use super::store::{Store, device_ref, session_info};
use crate::{
    conversation::Conversation,
    meters::Meters,
    peers::{Event, Peer, Peers},
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

    fn fail(&mut self, failure: String) {
        self.failure.get_or_insert(failure);
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
}
