//! The queue of one device: an index of messages in order of seq, behind one pointer.
//!
//! ```text
//!   Mailbox ──▶ nothing                                        empty: no memory
//!           └─▶ first message │ nothing                        one: 48 bytes
//!           └─▶ first message │ ──▶ the others │ counts        more: and 40 bytes each
//! ```
//! Most mailboxes hold nothing or one message, so what can be told from that one is not kept beside it.
//! The others stand in an array that grows by a quarter; those taken from its front leave a gap, which is
//! closed when it has become half of the array, so taking one costs the same however long the queue is.
//!
//! `next_expiry_ms` is a lower bound of the earliest expiry, so that whoever touches the mailbox knows
//! whether to look. It may be too low after removals; that costs a look, never a wrong count.

use super::message::Message;
use crate::{MessageKind, command::Rules, limits::MAILBOX_RECEIPTS_DIVISOR};

/// How much of one kind waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Load {
    fn of(message: &Message) -> Self {
        Self { messages: 1, bytes: message.body_len() as u64 }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, bytes: self.bytes + other.bytes }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// What waits, kind by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Loads {
    content: Load,
    receipts: Load,
}

impl Loads {
    fn of_kind(&mut self, kind: MessageKind) -> &mut Load {
        match kind {
            MessageKind::Content => &mut self.content,
            MessageKind::Receipt => &mut self.receipts,
        }
    }

    fn add(&mut self, message: &Message) {
        let load = self.of_kind(message.kind());
        *load = load.plus(Load::of(message));
    }

    fn subtract(&mut self, message: &Message) {
        let load = self.of_kind(message.kind());
        *load = load.minus(Load::of(message));
    }
}

/// The messages that wait for one device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mailbox {
    queue: Option<Box<Queue>>,
}

#[derive(Clone, Debug)]
struct Queue {
    first: Message,
    /// There when there is more than one message.
    others: Option<Box<Others>>,
}

#[derive(Clone, Debug)]
struct Others {
    /// From `start` on those after the first.
    messages: Vec<Message>,
    start: usize,
    /// Of all messages, the first included.
    loads: Loads,
    /// Of all messages, the first included.
    next_expiry_ms: u64,
}

const _: () = {
    assert!(size_of::<Mailbox>() == 8);
    assert!(size_of::<Queue>() == 48);
};

impl Others {
    fn waiting(&self) -> &[Message] {
        self.messages.get(self.start..).unwrap_or(&[])
    }

    fn push(&mut self, message: Message) {
        self.loads.add(&message);
        self.next_expiry_ms = self.next_expiry_ms.min(message.expires_at_ms());
        if self.messages.len() == self.messages.capacity() {
            self.messages.reserve_exact((self.messages.len() / 4).max(1));
        }
        self.messages.push(message);
    }

    /// Closes the gap at the front once it is half of what there is.
    fn close_gap(&mut self) {
        if self.start * 2 < self.messages.len() {
            return;
        }
        self.messages.drain(..self.start);
        self.start = 0;
        if self.messages.capacity() > 8 && self.messages.len() * 2 < self.messages.capacity() {
            self.messages.shrink_to(self.messages.len() + self.messages.len() / 4);
        }
    }
}

impl Queue {
    fn of_one(first: Message) -> Self {
        Self { first, others: None }
    }

    fn waiting(&self) -> &[Message] {
        self.others.as_ref().map_or(&[], |others| others.waiting())
    }

    fn loads(&self) -> Loads {
        self.others.as_ref().map_or_else(
            || {
                let mut loads = Loads::default();
                loads.add(&self.first);
                loads
            },
            |others| others.loads,
        )
    }

    fn push(&mut self, message: Message) {
        let (loads, next_expiry_ms) = (self.loads(), self.first.expires_at_ms());
        let others = self.others.get_or_insert_with(|| {
            Box::new(Others { messages: Vec::new(), start: 0, loads, next_expiry_ms })
        });
        others.push(message);
    }

    /// Takes the first message; false when it was the only one, which then is still there.
    fn pop(&mut self) -> bool {
        let Some(others) = &mut self.others else { return false };
        others.loads.subtract(&self.first);
        let Some(next) = others.waiting().first().copied() else { return false };
        self.first = next;
        others.start += 1;
        others.close_gap();
        if others.waiting().is_empty() {
            self.others = None;
        }
        true
    }
}

impl Mailbox {
    /// Makes room for messages that are about to be pushed, if there is one already.
    pub(crate) fn reserve(&mut self, messages: usize) {
        if let Some(others) = self.queue.as_mut().and_then(|queue| queue.others.as_mut()) {
            others.messages.reserve_exact(messages);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| 1 + queue.waiting().len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_none()
    }

    fn loads(&self) -> Loads {
        self.queue.as_ref().map_or_else(Loads::default, |queue| queue.loads())
    }

    /// All that waits, expired or not.
    pub(crate) fn load(&self) -> Load {
        let loads = self.loads();
        loads.content.plus(loads.receipts)
    }

    pub(crate) fn tail(&self) -> u64 {
        self.iter().next_back().map_or(0, |m| m.seq)
    }

    /// The highest seq that has not expired.
    pub(crate) fn live_tail(&self, now_ms: u64) -> u64 {
        self.iter().rev().find(|m| !m.is_expired(now_ms)).map_or(0, |m| m.seq)
    }

    pub(crate) fn next_expiry_ms(&self) -> u64 {
        let Some(queue) = &self.queue else { return u64::MAX };
        queue.others.as_ref().map_or(queue.first.expires_at_ms(), |others| others.next_expiry_ms)
    }

    /// The first message, if any, and those after it.
    fn parts(&self) -> (&[Message], &[Message]) {
        let Some(queue) = &self.queue else { return (&[], &[]) };
        (std::slice::from_ref(&queue.first), queue.waiting())
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Message> {
        let (first, others) = self.parts();
        first.iter().chain(others)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Message> {
        let (first, others) = match &mut self.queue {
            None => (None, &mut [][..]),
            Some(queue) => {
                let others = queue.others.as_mut();
                let others = others.and_then(|o| o.messages.get_mut(o.start..));
                (Some(&mut queue.first), others.unwrap_or_default())
            }
        };
        first.into_iter().chain(others)
    }

    /// The messages after `seq`, in order.
    pub(crate) fn after(&self, seq: u64) -> impl Iterator<Item = &Message> {
        let after = |part: &'_ [Message]| part.partition_point(|m| m.seq <= seq);
        let (first, others) = self.parts();
        let (first, others) = (&first[after(first)..], &others[after(others)..]);
        first.iter().chain(others)
    }

    pub(crate) fn get(&self, seq: u64) -> Option<&Message> {
        self.after(seq.checked_sub(1)?).next().filter(|m| m.seq == seq)
    }

    /// Nothing at or below this seq waits. 0 when the mailbox is empty: it has no record then.
    pub(crate) fn ack_floor(&self) -> u64 {
        self.queue.as_ref().map_or(0, |queue| queue.first.seq.saturating_sub(1))
    }

    /// Whether one more message of this kind and size is within the limits.
    pub(crate) fn has_room(&self, kind: MessageKind, body_len: usize, rules: &Rules) -> bool {
        let share = match kind {
            MessageKind::Content => 1,
            MessageKind::Receipt => MAILBOX_RECEIPTS_DIVISOR,
        };
        let load = *self.loads().of_kind(kind);
        load.messages < u64::from(rules.mailbox_messages_max / share)
            && load.bytes.saturating_add(body_len as u64)
                <= rules.mailbox_bytes_max / u64::from(share)
    }

    /// Appends; the caller sees to it that seqs ascend.
    pub(crate) fn push(&mut self, message: Message) {
        debug_assert!(self.tail() < message.seq);
        match &mut self.queue {
            None => self.queue = Some(Box::new(Queue::of_one(message))),
            Some(queue) => queue.push(message),
        }
    }

    /// Drops what has expired.
    pub(crate) fn drop_expired(&mut self, now_ms: u64) {
        if self.next_expiry_ms() > now_ms {
            return;
        }
        self.retain(|m| !m.is_expired(now_ms));
    }

    /// Drops messages up to `up_to_seq` and those in `seqs`; returns how many. `seqs` need not be
    /// sorted, and may name what is not there.
    pub(crate) fn ack(&mut self, up_to_seq: u64, seqs: &[u64]) -> u32 {
        let before = self.len();
        while let Some(queue) = self.queue.as_mut().filter(|q| q.first.seq <= up_to_seq) {
            if !queue.pop() {
                self.queue = None;
            }
        }
        let mut named: Vec<u64> = seqs.iter().copied().filter(|seq| *seq > up_to_seq).collect();
        if !named.is_empty() && !self.is_empty() {
            named.sort_unstable();
            self.retain(|m| named.binary_search(&m.seq).is_err());
        }
        u32::try_from(before - self.len()).unwrap_or(u32::MAX)
    }

    /// Drops everything; returns what that was.
    pub(crate) fn clear(&mut self) -> Load {
        std::mem::take(self).load()
    }

    fn retain(&mut self, keep: impl Fn(&Message) -> bool) {
        let mut kept = Self::default();
        self.iter().filter(|message| keep(message)).for_each(|message| kept.push(*message));
        *self = kept;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::state::Place;

    fn message(seq: u64, body_len: u32, expires_at_ms: u64) -> Message {
        let shape = body_len | ((seq % 2) as u32) << 24;
        let place = Place::Old { file: 1, offset: 0 };
        Message::from_parts((seq, 0), (expires_at_ms, 0), 0, shape, place).expect("in range")
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u32, u64),
        Ack(u64),
        Name(Vec<u64>),
        Expire(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_u32..100, 0_u64..1_000).prop_map(|(len, expires)| Step::Push(len, expires)),
            2 => (0_u64..40).prop_map(Step::Ack),
            1 => proptest::collection::vec(0_u64..40, 0..4).prop_map(Step::Name),
            1 => (0_u64..300).prop_map(Step::Expire),
        ]
    }

    fn take(mailbox: &mut Mailbox, model: &mut VecDeque<Message>, seq: u64, step: Step) {
        let front = model.front().map_or(0, |m| m.seq);
        match step {
            Step::Push(len, expires_at_ms) => {
                model.push_back(message(seq, len, expires_at_ms));
                mailbox.push(message(seq, len, expires_at_ms));
            }
            Step::Ack(ahead) => {
                let before = model.len();
                model.retain(|m| m.seq > front + ahead);
                assert_eq!(mailbox.ack(front + ahead, &[]) as usize, before - model.len());
            }
            Step::Name(ahead) => {
                let seqs: Vec<u64> = ahead.iter().map(|ahead| front + ahead).collect();
                model.retain(|m| !seqs.contains(&m.seq));
                mailbox.ack(0, &seqs);
            }
            Step::Expire(now_ms) => {
                model.retain(|m| !m.is_expired(now_ms));
                mailbox.drop_expired(now_ms);
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_a_queue_with_exact_counts(steps in proptest::collection::vec(step(), 0..200)) {
            let (mut mailbox, mut model) = (Mailbox::default(), VecDeque::new());
            for (at, step) in steps.into_iter().enumerate() {
                take(&mut mailbox, &mut model, at as u64 + 1, step);
                prop_assert!(mailbox.iter().eq(&model));
                prop_assert!(mailbox.iter_mut().map(|m| *m).eq(model.iter().copied()));
                prop_assert_eq!((mailbox.len(), mailbox.is_empty()), (model.len(), model.is_empty()));
                let mut loads = Loads::default();
                model.iter().for_each(|m| loads.add(m));
                prop_assert_eq!(mailbox.loads(), loads);
                let earliest = model.iter().map(Message::expires_at_ms).min();
                prop_assert!(mailbox.next_expiry_ms() <= earliest.unwrap_or(u64::MAX));
                prop_assert_eq!(mailbox.tail(), model.back().map_or(0, |m| m.seq));
                let middle = mailbox.tail().saturating_sub(3);
                prop_assert!(mailbox.after(middle).eq(model.iter().filter(|m| m.seq > middle)));
                prop_assert_eq!(mailbox.get(middle), model.iter().find(|m| m.seq == middle));
            }
        }
    }

    #[test]
    fn a_long_queue_gives_its_memory_back_as_it_is_taken() {
        let mut mailbox = Mailbox::default();
        (1..=10_000).for_each(|seq| mailbox.push(message(seq, 0, 9)));
        let capacity = |mailbox: &Mailbox| {
            let queue = mailbox.queue.as_ref().expect("messages");
            queue.others.as_ref().map_or(0, |others| others.messages.capacity())
        };
        assert!(capacity(&mailbox) < 12_500);
        for seq in 1..10_000 {
            mailbox.ack(seq, &[]);
            assert!(capacity(&mailbox) <= mailbox.len() * 4 + 8, "{} left", mailbox.len());
        }
        mailbox.ack(10_000, &[]);
        assert!(mailbox.is_empty());
    }
}
