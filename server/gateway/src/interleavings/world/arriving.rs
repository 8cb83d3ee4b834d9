//! What is on its way between the processes, and what it does where it arrives.

use bytes::Bytes;
use switchboard_api::v1::{DeliverRequest, FetchRequest, ItemStatus, SessionInfo, deliver_request};
use switchboard_engine::{
    self as engine, Claim, Command, Enqueue, MessageKind, Release, Reply, Status,
};

use super::{
    super::store::{device_ref, session_info},
    Bug, Conn, WINDOW, World,
};
use crate::{
    conversation::Conversation,
    delivery::{Claimed, FetchOrder, Page},
    outcome::Outcome,
    peers::Event,
    receipts::Batch,
    service,
};

#[derive(Debug)]
pub(super) enum Parcel {
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

impl World<'_> {
    pub(super) fn arrive(&mut self, parcel: Parcel) {
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
}
