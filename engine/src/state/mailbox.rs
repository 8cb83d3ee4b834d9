//! The queue of one device: an index of messages in order of seq.
//!
//! ```text
//!   Empty
//!   One   message                                 40 bytes, wherever the mailbox is kept
//!   Many  ──▶ array │ counts │ earliest expiry    64 bytes, and 40 each: see `queue`
//! ```
//! Most mailboxes hold nothing or one message, so what can be told from that one is not kept beside it.

mod load;
mod queue;

pub(crate) use load::Load;
use load::Loads;
pub(crate) use queue::Queue;

use super::message::Message;
use crate::{MessageKind, command::Rules, limits::MAILBOX_RECEIPTS_DIVISOR};

/// The messages that wait for one device.
#[derive(Clone, Debug, Default)]
pub(crate) enum Mailbox {
    /// No record says so.
    #[default]
    Empty,
    /// A single message.
    One(Message),
    /// More than one.
    Many(Box<Queue>),
}

const _: () = assert!(size_of::<Mailbox>() == 48);

impl Mailbox {
    /// What waits, in order.
    fn waiting(&self) -> &[Message] {
        match self {
            Self::Empty => &[],
            Self::One(message) => std::slice::from_ref(message),
            Self::Many(queue) => queue.waiting(),
        }
    }

    fn waiting_mut(&mut self) -> &mut [Message] {
        match self {
            Self::Empty => &mut [],
            Self::One(message) => std::slice::from_mut(message),
            Self::Many(queue) => queue.waiting_mut(),
        }
    }

    /// Makes room for messages that are about to be pushed, if there are several already.
    pub(crate) fn reserve(&mut self, messages: usize) {
        if let Self::Many(queue) = self {
            queue.reserve(messages);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn loads(&self) -> Loads {
        match self {
            Self::Empty => Loads::default(),
            Self::One(message) => Loads::of_one(message),
            Self::Many(queue) => queue.loads(),
        }
    }

    /// All that waits, expired or not.
    pub(crate) fn load(&self) -> Load {
        self.loads().all()
    }

    pub(crate) fn tail(&self) -> u64 {
        self.waiting().last().map_or(0, |m| m.seq)
    }

    /// The highest seq that has not expired.
    pub(crate) fn live_tail(&self, now_ms: u64) -> u64 {
        self.iter().rev().find(|m| !m.is_expired(now_ms)).map_or(0, |m| m.seq)
    }

    /// A lower bound of the earliest expiry, so that whoever touches the mailbox knows whether to look.
    pub(crate) fn next_expiry_ms(&self) -> u64 {
        match self {
            Self::Empty => u64::MAX,
            Self::One(message) => message.expires_at_ms(),
            Self::Many(queue) => queue.next_expiry_ms(),
        }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Message> {
        self.waiting().iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Message> {
        self.waiting_mut().iter_mut()
    }

    /// The messages after `seq`, in order.
    pub(crate) fn after(&self, seq: u64) -> impl Iterator<Item = &Message> {
        let waiting = self.waiting();
        waiting[waiting.partition_point(|m| m.seq <= seq)..].iter()
    }

    pub(crate) fn get(&self, seq: u64) -> Option<&Message> {
        self.after(seq.checked_sub(1)?).next().filter(|m| m.seq == seq)
    }

    /// Nothing at or below this seq waits. 0 when the mailbox is empty: it has no record then.
    pub(crate) fn ack_floor(&self) -> u64 {
        self.waiting().first().map_or(0, |m| m.seq.saturating_sub(1))
    }

    /// Whether one more message of this kind and size is within the limits.
    pub(crate) fn has_room(&self, kind: MessageKind, body_len: usize, rules: &Rules) -> bool {
        let share = match kind {
            MessageKind::Content => 1,
            MessageKind::Receipt => MAILBOX_RECEIPTS_DIVISOR,
        };
        let load = self.loads().of_kind(kind);
        load.messages < u64::from(rules.mailbox_messages_max / share)
            && load.bytes.saturating_add(body_len as u64)
                <= rules.mailbox_bytes_max / u64::from(share)
    }

    /// Drops the oldest messages of content until one more with such a body is within the limits, and
    /// returns how many; none, if it could not be in an empty mailbox either. Receipts stay: they have a
    /// share of their own, and are not the oldest of what they take no room from.
    pub(crate) fn drop_oldest(&mut self, body_len: usize, rules: &Rules) -> u32 {
        if body_len as u64 > rules.mailbox_bytes_max {
            return 0;
        }
        let mut dropped = 0;
        while !self.has_room(MessageKind::Content, body_len, rules) {
            let oldest = self.iter().position(|m| m.kind() == MessageKind::Content);
            let Some(oldest) = oldest else { break };
            self.drop_at(oldest);
            dropped += 1;
        }
        dropped
    }

    /// Drops one message. What is before it moves, not what is behind: the oldest is near the front.
    fn drop_at(&mut self, place: usize) {
        if let Some(until) = self.waiting_mut().get_mut(..=place) {
            until.rotate_right(1);
            self.drop_first(1);
        }
    }

    /// Appends; the caller sees to it that seqs ascend.
    pub(crate) fn push(&mut self, message: Message) {
        debug_assert!(self.tail() < message.seq);
        match self {
            Self::Empty => *self = Self::One(message),
            Self::One(first) => *self = Self::Many(Box::new(Queue::of_two(*first, message))),
            Self::Many(queue) => queue.push(message),
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
        self.drop_first(self.waiting().partition_point(|m| m.seq <= up_to_seq));
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

    fn drop_first(&mut self, messages: usize) {
        if messages == 0 {
            return;
        }
        match self.waiting().get(messages..).unwrap_or(&[]) {
            [] => *self = Self::Empty,
            [last] => *self = Self::One(*last),
            _ => {
                if let Self::Many(queue) = self {
                    queue.drop_first(messages);
                }
            }
        }
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
                prop_assert_eq!(matches!(mailbox, Mailbox::One(_)), model.len() == 1);
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
    fn the_oldest_of_content_give_their_place_and_receipts_stay() {
        let rules = Rules {
            mailbox_messages_max: 10,
            mailbox_bytes_max: 100,
            drop_oldest: true,
            ..Rules::default()
        };
        let mut mailbox = Mailbox::default();
        // Odd seqs are receipts.
        (1..=19).for_each(|seq| mailbox.push(message(seq, 5, 9)));
        let content = |mailbox: &Mailbox| {
            let content = mailbox.iter().filter(|m| m.kind() == MessageKind::Content);
            content.map(|m| m.seq).collect::<Vec<_>>()
        };
        assert_eq!(content(&mailbox), (2..=18).step_by(2).collect::<Vec<_>>());
        assert_eq!(mailbox.drop_oldest(5, &rules), 0, "nine of ten: there is room");
        mailbox.push(message(20, 5, 9));
        assert_eq!(mailbox.drop_oldest(5, &rules), 1);
        assert_eq!(content(&mailbox), (4..=20).step_by(2).collect::<Vec<_>>());
        // By bytes: 45 wait, 80 are to come.
        assert_eq!(mailbox.drop_oldest(80, &rules), 5);
        assert_eq!(content(&mailbox), [14, 16, 18, 20]);
        assert_eq!(mailbox.drop_oldest(101, &rules), 0, "no room for it in any mailbox");
        assert_eq!(mailbox.len(), 14);
        assert!(mailbox.iter().zip(mailbox.iter().skip(1)).all(|(a, b)| a.seq < b.seq));
        assert_eq!(mailbox.load().bytes, 14 * 5);
        assert_eq!(mailbox.drop_oldest(100, &rules), 4);
        assert_eq!(mailbox.len(), 10);
    }

    #[test]
    fn a_long_queue_gives_its_memory_back_as_it_is_taken() {
        let mut mailbox = Mailbox::default();
        (1..=10_000).for_each(|seq| mailbox.push(message(seq, 0, 9)));
        let capacity = |mailbox: &Mailbox| match mailbox {
            Mailbox::Many(queue) => queue.capacity(),
            _ => 0,
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
