//! What must hold when everything has arrived.

use super::{Bug, World};

impl World<'_> {
    /// Everything that is on its way arrives, and what must hold then is checked.
    pub(in crate::interleavings) fn come_to_rest(&mut self) {
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
}
