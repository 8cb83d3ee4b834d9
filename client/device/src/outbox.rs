//! Messages of this device that no gateway has accepted yet, in the order of sending.
//!
//! ```text
//!   front ─▶ [ in flight on this connection … | next: to be written …          ]
//!                     0 .. next                      next ..
//! ```
//! Invariants: `next ≤ entries.len()`; what is written goes out from the front without a gap, so
//! that a gateway sees each recipient's messages in order also after a resend. An entry leaves only
//! when it was accepted or refused for good. A persistent outbox keeps the same order and removes
//! on the same two occasions; `next` belongs to the connection and is never stored.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{
    error::SendError,
    event::Accepted,
    limits::{ANSWER_TIMEOUT, IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MAX, OUTBOX_MAX},
};

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Unique per sender; a resend repeats it. See [`crate::new_message_id`].
    pub message_id: [u8; 16],
    /// 1 to 64 bytes.
    pub to_user: Bytes,
    /// 0: all devices of the user.
    pub to_device: u16,
    /// Milliseconds until it expires unread; 0: the default.
    pub ttl_ms: u64,
    /// At most 64 KiB, opaque to the servers.
    pub body: Bytes,
}

/// What a sender waits on; nobody need wait.
pub(crate) type Waiter = oneshot::Sender<Result<Accepted, SendError>>;

#[derive(Debug)]
struct Entry {
    outgoing: Outgoing,
    waiter: Waiter,
    /// The user's other devices get a copy.
    to_own_devices: bool,
    /// Written at least once, on any connection.
    written: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    entries: VecDeque<Entry>,
    next: usize,
    in_flight_bytes: usize,
    /// How many fewer than [`IN_FLIGHT_MAX`] may be in flight. A refusal halves what may be, an
    /// acceptance adds one: else a device over its rate would write everything again and again.
    narrowed: usize,
    /// A gateway asked to wait.
    hold_until: Option<Instant>,
    /// When the answer to what is in flight is overdue.
    overdue_at: Option<Instant>,
    /// Entries written again.
    pub(crate) resends: u64,
}

impl Outbox {
    /// Adds a message at the end. Fails, with the waiter, when the outbox is full.
    pub(crate) fn push(
        &mut self,
        outgoing: Outgoing,
        to_own_devices: bool,
        waiter: Waiter,
    ) -> Result<(), Waiter> {
        if self.entries.len() >= OUTBOX_MAX {
            return Err(waiter);
        }
        self.entries.push_back(Entry { outgoing, waiter, to_own_devices, written: false });
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A connection ended or begins: all goes out again.
    pub(crate) fn rewind(&mut self) {
        self.next = 0;
        self.in_flight_bytes = 0;
        self.hold_until = None;
        self.overdue_at = None;
    }

    /// The next message to write, if one may be written now, and whether the user's other devices
    /// get a copy.
    pub(crate) fn next_to_write(&mut self, now: Instant) -> Option<(&Outgoing, bool)> {
        if self.hold_until.is_some_and(|until| now < until) {
            return None;
        }
        self.hold_until = None;
        if self.next >= self.window() {
            return None;
        }
        let next = self.next;
        let entry = self.entries.get_mut(next)?;
        let bytes = self.in_flight_bytes.saturating_add(entry.outgoing.body.len());
        if next > 0 && bytes > IN_FLIGHT_BYTES_MAX {
            return None;
        }
        self.in_flight_bytes = bytes;
        self.next = next + 1;
        self.overdue_at.get_or_insert(now + ANSWER_TIMEOUT);
        if std::mem::replace(&mut entry.written, true) {
            self.resends += 1;
        }
        Some((&entry.outgoing, entry.to_own_devices))
    }

    /// A gateway answered for this message for good: takes it out. `None` if it is not here, as
    /// when an earlier copy was answered already.
    pub(crate) fn resolve(&mut self, message_id: &[u8], now: Instant) -> Option<Waiter> {
        let at = self.find(message_id)?;
        let entry = self.entries.remove(at)?;
        if at < self.next {
            self.next -= 1;
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(entry.outgoing.body.len());
        }
        self.overdue_at = (self.next > 0).then(|| now + ANSWER_TIMEOUT);
        self.narrowed = self.narrowed.saturating_sub(1);
        Some(entry.waiter)
    }

    /// A gateway could not take this message now: it and all after it go out again later, so that
    /// their order holds.
    pub(crate) fn postpone(&mut self, message_id: &[u8], now: Instant, pause: Duration) {
        let Some(at) = self.find(message_id) else { return };
        if at < self.next {
            // Its followers are refused with it, but count once.
            self.narrowed = IN_FLIGHT_MAX - (self.window() / 2).max(1);
        }
        self.rewind_to(at);
        let until = now + pause;
        self.hold_until = Some(self.hold_until.map_or(until, |before| before.max(until)));
    }

    /// Writes again from the front if an answer is overdue.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.overdue_at.is_some_and(|at| at <= now) {
            self.rewind_to(0);
        }
    }

    /// When to look again although nothing happened.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let held = self.hold_until.filter(|_| self.next < self.entries.len());
        [held, self.overdue_at].into_iter().flatten().min()
    }

    /// Ends every wait; for a device that shuts down.
    pub(crate) fn close(&mut self) {
        for entry in self.entries.drain(..) {
            // Nobody waiting is no fault.
            let _ = entry.waiter.send(Err(SendError::Closed));
        }
        self.rewind();
    }

    fn window(&self) -> usize {
        IN_FLIGHT_MAX.saturating_sub(self.narrowed).max(1)
    }

    fn rewind_to(&mut self, at: usize) {
        while self.next > at {
            self.next -= 1;
            let bytes = self.entries.get(self.next).map_or(0, |e| e.outgoing.body.len());
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        }
        if self.next == 0 {
            self.overdue_at = None;
        }
    }

    /// Answers come roughly in the order of sending, so the front is near.
    fn find(&self, message_id: &[u8]) -> Option<usize> {
        self.entries.iter().position(|entry| entry.outgoing.message_id == message_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(messages: u8) -> Outbox {
        let mut outbox = Outbox::default();
        for n in 0..messages {
            let outgoing = Outgoing {
                message_id: [n; 16],
                to_user: Bytes::from_static(b"bob"),
                to_device: 0,
                ttl_ms: 0,
                body: Bytes::from_static(b"hello"),
            };
            outbox.push(outgoing, false, oneshot::channel().0).unwrap();
        }
        outbox
    }

    fn write_all(outbox: &mut Outbox, now: Instant) -> Vec<u8> {
        std::iter::from_fn(|| outbox.next_to_write(now).map(|(o, _)| o.message_id[0])).collect()
    }

    #[test]
    fn all_goes_out_again_in_order_after_a_reconnect() {
        let now = Instant::now();
        let mut outbox = outbox(4);
        assert_eq!(write_all(&mut outbox, now), [0, 1, 2, 3]);
        assert!(outbox.resolve(&[1; 16], now).is_some());
        outbox.rewind();
        assert_eq!(write_all(&mut outbox, now), [0, 2, 3]);
        assert_eq!(outbox.resends, 3);
    }

    #[test]
    fn a_postponed_message_takes_its_followers_along() {
        let now = Instant::now();
        let mut outbox = outbox(4);
        write_all(&mut outbox, now);
        outbox.postpone(&[2; 16], now, Duration::from_secs(1));
        assert_eq!(write_all(&mut outbox, now), Vec::<u8>::new());
        // An answer for one that is no longer in flight still counts.
        assert!(outbox.resolve(&[3; 16], now).is_some());
        assert_eq!(outbox.wake_at(), Some(now + Duration::from_secs(1)));
        assert_eq!(write_all(&mut outbox, now + Duration::from_secs(1)), [2]);
    }

    #[test]
    fn what_is_in_flight_is_bounded() {
        let now = Instant::now();
        let mut outbox = outbox(200);
        assert_eq!(write_all(&mut outbox, now).len(), IN_FLIGHT_MAX);
        outbox.resolve(&[5; 16], now);
        assert_eq!(write_all(&mut outbox, now).len(), 1);
    }

    #[test]
    fn a_device_over_its_rate_writes_little_again() {
        let mut now = Instant::now();
        let mut outbox = outbox(200);
        let pause = Duration::from_millis(10);
        let mut accepted = 0;
        // A gateway that takes one message and refuses the rest, each time.
        while outbox.len() > 0 {
            let written = write_all(&mut outbox, now);
            for (place, id) in written.iter().enumerate() {
                if place == 0 {
                    assert!(outbox.resolve(&[*id; 16], now).is_some());
                    accepted += 1;
                } else {
                    outbox.postpone(&[*id; 16], now, pause);
                }
            }
            now += pause;
        }
        assert_eq!(accepted, 200);
        assert!(outbox.resends < 3 * 200, "{} resends", outbox.resends);
    }

    #[test]
    fn a_refusal_narrows_what_is_in_flight_and_acceptances_widen_it_again() {
        let mut now = Instant::now();
        let mut outbox = outbox(255);
        let first = write_all(&mut outbox, now);
        for id in &first {
            outbox.postpone(&[*id; 16], now, Duration::from_millis(1));
        }
        now += Duration::from_millis(1);
        assert_eq!(write_all(&mut outbox, now).len(), IN_FLIGHT_MAX / 2);
        for id in 0..64 {
            outbox.resolve(&[id; 16], now);
        }
        assert_eq!(write_all(&mut outbox, now).len(), IN_FLIGHT_MAX);
    }

    #[test]
    fn an_overdue_answer_makes_it_write_again() {
        let now = Instant::now();
        let mut outbox = outbox(2);
        write_all(&mut outbox, now);
        outbox.expire(now);
        assert_eq!(write_all(&mut outbox, now), Vec::<u8>::new());
        let later = now + ANSWER_TIMEOUT;
        outbox.expire(later);
        assert_eq!(write_all(&mut outbox, later), [0, 1]);
    }
}
