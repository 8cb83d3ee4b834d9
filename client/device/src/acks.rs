//! What to acknowledge: seqs received on this connection and settled by the application.
//!
//! Frames of a connection come in the order of seq, from the first message that waits. So once
//! everything received up to a seq is settled, one `up_to_seq` covers it. What settles out of that
//! order, or was received on an earlier connection, is named one by one.
//!
//! Invariant: a seq that is `open` (handed out or about to be, not settled) is never covered.

use std::collections::BTreeSet;

use switchboard_api::device::v1::Ack;

use crate::limits::ACK_SEQS_MAX;

#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// Received, on any connection, and not yet settled.
    open: BTreeSet<u64>,
    /// Highest seq received on this connection.
    high: u64,
    /// Highest `up_to_seq` written on this connection.
    written: u64,
    /// Settled, above `written`, to be named.
    named: BTreeSet<u64>,
    /// Something was settled, or came again although it was: the gateway has not heard.
    due: bool,
}

impl Acks {
    /// A connection ended or begins.
    pub(crate) fn reset(&mut self) {
        self.high = 0;
        self.written = 0;
        self.named.clear();
        self.due = false;
    }

    /// A message came that the application has not seen.
    pub(crate) fn received(&mut self, seq: u64) {
        self.high = self.high.max(seq);
        self.open.insert(seq);
    }

    /// A message came that was handed out before.
    pub(crate) fn repeated(&mut self, seq: u64) {
        self.high = self.high.max(seq);
        self.due |= !self.open.contains(&seq);
    }

    /// The application has it.
    pub(crate) fn settled(&mut self, seq: u64) {
        if self.open.remove(&seq) {
            self.due = true;
            if seq > self.covered() {
                self.named.insert(seq);
            }
        }
    }

    /// The frame to write, if any is due.
    pub(crate) fn take(&mut self) -> Option<Ack> {
        if !self.due {
            return None;
        }
        self.written = self.written.max(self.covered());
        let written = self.written;
        self.named.retain(|seq| *seq > written);
        let seqs: Vec<u64> = self.named.iter().copied().take(ACK_SEQS_MAX).collect();
        for seq in &seqs {
            self.named.remove(seq);
        }
        self.due = !self.named.is_empty();
        Some(Ack { up_to_seq: self.written, seqs })
    }

    /// Everything up to this seq was received on this connection, and is settled.
    fn covered(&self) -> u64 {
        self.open.first().map_or(self.high, |first| self.high.min(first.saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_in_order_is_one_cumulative_frame() {
        let mut acks = Acks::default();
        for seq in [10, 20, 30] {
            acks.received(seq);
            acks.settled(seq);
        }
        assert_eq!(acks.take(), Some(Ack { up_to_seq: 30, seqs: vec![] }));
        assert_eq!(acks.take(), None);
    }

    #[test]
    fn an_open_seq_is_never_covered() {
        let mut acks = Acks::default();
        for seq in [10, 20, 30] {
            acks.received(seq);
        }
        assert_eq!(acks.take(), None);
        acks.settled(30);
        assert_eq!(acks.take(), Some(Ack { up_to_seq: 9, seqs: vec![30] }));
        acks.settled(10);
        assert_eq!(acks.take(), Some(Ack { up_to_seq: 19, seqs: vec![] }));
        acks.settled(20);
        assert_eq!(acks.take(), Some(Ack { up_to_seq: 30, seqs: vec![] }));
    }

    #[test]
    fn a_repeat_of_what_was_settled_is_acknowledged_again() {
        let mut acks = Acks::default();
        acks.received(10);
        acks.settled(10);
        assert!(acks.take().is_some());
        acks.repeated(10);
        assert_eq!(acks.take(), Some(Ack { up_to_seq: 10, seqs: vec![] }));
        acks.reset();
        acks.repeated(10);
        assert_eq!(acks.take(), Some(Ack { up_to_seq: 10, seqs: vec![] }));
    }

    #[test]
    fn what_an_earlier_connection_brought_is_named() {
        let mut acks = Acks::default();
        acks.received(10);
        acks.reset();
        acks.settled(10);
        assert_eq!(acks.take(), Some(Ack { up_to_seq: 0, seqs: vec![10] }));
    }
}
