//! What a bucket keeps outside of its slots, under its lock: mailboxes, and names that are long.
//!
//! ```text
//!   slot ──number──▶ singles: messages side by side, no pointer and no allocation for each
//!               └──▶ queues: pointers to mailboxes of several
//! ```
//! A mailbox moves from one to the other as it grows and shrinks. The lowest bit of its number says which.

use super::{places::Places, slot::OUTSIDE_MAX};
use crate::state::{
    Message,
    mailbox::{Mailbox, Queue},
};

/// A user whose name has no room in a slot.
#[derive(Debug, Default)]
pub(super) struct Long {
    pub(super) name: Box<[u8]>,
    pub(super) mailbox: Mailbox,
}

/// Those users.
pub(super) type Longs = Places<Long, 15>;

/// The mailboxes of users whose names are short; none of them is empty.
#[derive(Debug, Default)]
pub(super) struct Mailboxes {
    singles: Places<Message, 25>,
    queues: Places<Option<Box<Queue>>, 27>,
}

/// Half of the numbers are for each kind.
const EACH_MAX: usize = OUTSIDE_MAX / 2;

impl Mailboxes {
    /// Keeps a mailbox; gives it back when there are as many as slots can name.
    pub(super) fn put(&mut self, mailbox: Mailbox) -> Result<usize, Mailbox> {
        match mailbox {
            Mailbox::One(message) => {
                let put = self.singles.put(message, EACH_MAX);
                put.map(|at| at * 2).map_err(Mailbox::One)
            }
            Mailbox::Many(queue) => match self.queues.put(Some(queue), EACH_MAX) {
                Ok(at) => Ok(at * 2 + 1),
                Err(queue) => Err(queue.map_or(Mailbox::Empty, Mailbox::Many)),
            },
            Mailbox::Empty => Err(mailbox),
        }
    }

    /// Takes a mailbox out to be looked at or changed; its place stays reserved.
    pub(super) fn take(&mut self, at: usize) -> Mailbox {
        match at % 2 {
            0 => Mailbox::One(std::mem::take(self.singles.at(at / 2))),
            _ => self.queues.at(at / 2).take().map_or(Mailbox::Empty, Mailbox::Many),
        }
    }

    /// Puts a mailbox that has been taken back, where it was or, if it has changed its kind, elsewhere.
    /// An empty one has no place.
    pub(super) fn put_back(
        &mut self,
        at: usize,
        mailbox: Mailbox,
    ) -> Result<Option<usize>, Mailbox> {
        match (at % 2, mailbox) {
            (0, Mailbox::One(message)) => *self.singles.at(at / 2) = message,
            (1, Mailbox::Many(queue)) => *self.queues.at(at / 2) = Some(queue),
            (_, Mailbox::Empty) => {
                self.remove(at);
                return Ok(None);
            }
            (_, mailbox) => {
                let new = self.put(mailbox)?;
                self.remove(at);
                return Ok(Some(new));
            }
        }
        Ok(Some(at))
    }

    /// Frees a place, and drops what is in it.
    pub(super) fn remove(&mut self, at: usize) {
        match at % 2 {
            0 => drop(self.singles.remove(at / 2)),
            _ => drop(self.queues.remove(at / 2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Place;

    fn message(seq: u64) -> Message {
        let place = Place::Old { file: 1, offset: 24 };
        Message::from_parts((seq, 0), (9, 9), 0, 0, place).expect("a message")
    }

    #[test]
    fn a_mailbox_moves_as_it_grows_and_shrinks_and_leaves_nothing_behind() {
        let mut mailboxes = Mailboxes::default();
        let first = mailboxes.put(Mailbox::One(message(1))).expect("room");
        let second = mailboxes.put(Mailbox::One(message(2))).expect("room");
        let mut mailbox = mailboxes.take(first);
        mailbox.push(message(3));
        let moved = mailboxes.put_back(first, mailbox).expect("room").expect("a place");
        assert_ne!(moved, first);
        let mut mailbox = mailboxes.take(moved);
        assert_eq!(mailbox.iter().map(|m| m.seq).collect::<Vec<_>>(), [1, 3]);
        mailbox.ack(1, &[]);
        assert_eq!(mailboxes.put_back(moved, mailbox).expect("room"), Some(first));
        assert_eq!(mailboxes.take(second).tail(), 2);
        assert_eq!(mailboxes.put_back(second, Mailbox::Empty).expect("room"), None);
        assert_eq!(mailboxes.take(first).tail(), 3);
        mailboxes.remove(first);
        assert!(mailboxes.singles.is_empty() && mailboxes.queues.is_empty());
    }
}
