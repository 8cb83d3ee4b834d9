//! Several messages for one device, in an array.
//!
//! ```text
//!   array    taken, not closed yet │ waiting, ascending by seq │ room
//!                                  └── start
//! ```
//! The array grows to sizes that allocators have, so that no room in it is paid for and unused; those
//! sizes are a quarter to an eighth apart. Messages taken from the front leave a gap, which is closed when
//! it has become half of the array, so taking one costs the same however long the queue is.
//!
//! `next_expiry_ms` may be too low after removals; that costs a look, never a wrong count.

use super::load::Loads;
use crate::state::message::Message;

/// An array this small is not made smaller.
const SHRINK_MIN: usize = 8;

/// The messages of a mailbox that has more than one.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    messages: Vec<Message>,
    /// Those before it have been taken.
    start: u32,
    loads: Loads,
    next_expiry_ms: u64,
}

const _: () = assert!(size_of::<Queue>() == 64);

impl Queue {
    pub(super) fn of_two(first: Message, second: Message) -> Self {
        let mut queue = Self {
            messages: Vec::with_capacity(2),
            start: 0,
            loads: Loads::default(),
            next_expiry_ms: u64::MAX,
        };
        queue.push(first);
        queue.push(second);
        queue
    }

    pub(super) fn loads(&self) -> Loads {
        self.loads
    }

    pub(super) fn next_expiry_ms(&self) -> u64 {
        self.next_expiry_ms
    }

    pub(super) fn waiting(&self) -> &[Message] {
        self.messages.get(self.start as usize..).unwrap_or(&[])
    }

    pub(super) fn waiting_mut(&mut self) -> &mut [Message] {
        self.messages.get_mut(self.start as usize..).unwrap_or(&mut [])
    }

    pub(super) fn reserve(&mut self, messages: usize) {
        self.messages.reserve_exact(messages);
    }

    pub(super) fn push(&mut self, message: Message) {
        self.loads.add(&message);
        self.next_expiry_ms = self.next_expiry_ms.min(message.expires_at_ms());
        let len = self.messages.len();
        if len == self.messages.capacity() {
            self.messages.reserve_exact(room_for(len + 1) - len);
        }
        self.messages.push(message);
    }

    /// Takes so many of those that wait; some are left.
    pub(super) fn drop_first(&mut self, messages: usize) {
        let to = (self.start as usize + messages).min(self.messages.len());
        for taken in &self.messages[self.start as usize..to] {
            self.loads.subtract(taken);
        }
        // As many as a mailbox may hold, and a gap as long at most, have 32 bits.
        self.start = u32::try_from(to).unwrap_or(u32::MAX);
        self.close_gap();
    }

    /// Closes the gap at the front once it is half of what there is.
    fn close_gap(&mut self) {
        let (start, len) = (self.start as usize, self.messages.len());
        if start * 2 < len {
            return;
        }
        self.messages.drain(..start);
        self.start = 0;
        let len = self.messages.len();
        if self.messages.capacity() > SHRINK_MIN && len * 2 < self.messages.capacity() {
            self.messages.shrink_to(room_for(len + 1));
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.messages.capacity()
    }
}

/// As many messages, or a few more, as fill a size that allocators have: four between two powers of two.
fn room_for(messages: usize) -> usize {
    let bytes = messages * size_of::<Message>();
    bytes.next_multiple_of(bytes.next_power_of_two() / 8) / size_of::<Message>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_a_size_of_the_allocator_holds() {
        for (messages, room) in [(3, 3), (5, 5), (10, 11), (12, 12), (13, 16), (1_000, 1_024)] {
            assert_eq!(room_for(messages), room);
        }
        for messages in 2..20_000 {
            let room = room_for(messages);
            assert!(room >= messages && room * 4 <= messages * 5, "{room} for {messages}");
        }
    }
}
