//! The device's connections: what a gateway's task does with one, and what the device sees of it.

use std::time::Duration;

use switchboard_api::{
    device::v1::{Ack, client_frame, server_frame::Frame},
    v1::Message,
};
use switchboard_engine as engine;

use super::{super::store::device_ref, Conn, World, arriving::Parcel};
use crate::{
    conversation::{Action, Ending, Input, Meaning, Now},
    peers::Event,
};

impl World<'_> {
    pub(super) fn connect(&mut self, at: usize) {
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

    pub(super) fn close(&mut self, conn: usize) {
        let Conn { gateway, peer, open, .. } = &mut self.conns[conn];
        *open = false;
        self.gateways[*gateway].peers.remove(peer.connection_id);
        if self.on == Some(conn) {
            self.on = None;
        }
    }

    /// The device acknowledges what it has had on its connection.
    pub(super) fn ack(&mut self) {
        let Some(conn) = self.on else { return };
        let last = self.conns[conn].last;
        if last > 0 {
            let ack = client_frame::Frame::Ack(Ack { up_to_seq: last, seqs: Vec::new() });
            self.input(conn, Input::Frame(ack));
            self.turn(conn);
        }
    }

    pub(super) fn tell(&mut self, conn: usize, event: Event) {
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
    pub(super) fn turn(&mut self, conn: usize) {
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
                Action::Close(Ending::Fenced) => self.close(conn),
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
