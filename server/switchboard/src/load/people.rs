//! Who the load is about: users by number, and ids of messages that no earlier run has used.

use bytes::{Bytes, BytesMut};

/// Bytes of a user's name.
const NAME_BYTES: usize = 16;
/// Bytes of a message id.
const ID_BYTES: usize = 16;

/// A fixed number of users, each as likely as another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct People {
    users: u64,
}

impl People {
    /// This many users, at least one.
    pub(crate) fn new(users: u64) -> People {
        People { users: users.max(1) }
    }

    /// Names for the `call`-th batch: chosen as if by chance, and the same in every run.
    ///
    /// They share one allocation, which is what a server that reads them from a request has too.
    pub(crate) fn batch(&self, call: u64, items: usize) -> impl Iterator<Item = Bytes> + use<> {
        let users = self.users;
        let numbers = (0..items as u64).map(move |item| {
            let chance = scatter(call.wrapping_mul(1 << 20).wrapping_add(item));
            // The high half of the product is even over the users, without a division.
            ((u128::from(chance) * u128::from(users)) >> 64) as u64
        });
        names(numbers)
    }

    /// The names of all users, in batches of at most so many.
    pub(crate) fn all(&self, items_max: usize) -> impl Iterator<Item = Vec<Bytes>> + use<> {
        let users = self.users;
        (0..users)
            .step_by(items_max.max(1))
            .map(move |first| names(first..users.min(first + items_max as u64)).collect())
    }
}

/// The name of a user by its number.
pub(crate) fn name(number: u64) -> Bytes {
    names(std::iter::once(number)).next().unwrap_or_default()
}

/// Which of so many the `call`-th call is about: as if by chance, and the same in every run.
pub(crate) fn pick(call: u64, of: usize) -> usize {
    // The high half of the product is even, without a division.
    ((u128::from(scatter(call)) * of as u128) >> 64) as usize
}

fn names(numbers: impl Iterator<Item = u64>) -> impl Iterator<Item = Bytes> {
    let mut buffer = BytesMut::with_capacity(numbers.size_hint().0 * NAME_BYTES);
    numbers.map(move |number| {
        let mut name = *b"bench-0000000000";
        let mut rest = number;
        for digit in name[6..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        buffer.extend_from_slice(&name);
        buffer.split().freeze()
    })
}

/// What the ids of messages of a run begin with. They are UUIDs of version 7: others may be those of
/// copies, which nobody may send to himself.
pub(crate) fn run() -> u64 {
    rand::random::<u64>() & !0xf000 | 0x7000
}

/// Ids for the messages of the `call`-th batch of a run.
pub(crate) fn message_ids(run: u64, call: u64, items: usize) -> impl Iterator<Item = Bytes> {
    let mut buffer = BytesMut::with_capacity(items * ID_BYTES);
    (0..items as u64).map(move |item| {
        buffer.extend_from_slice(&run.to_be_bytes());
        buffer.extend_from_slice(&call.wrapping_mul(1 << 20).wrapping_add(item).to_be_bytes());
        buffer.split().freeze()
    })
}

/// A permutation of 64-bit numbers without visible order (the finalizer of SplitMix64, Steele et
/// al., "Fast splittable pseudorandom number generators", 2014).
fn scatter(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn users_of_a_batch_are_among_all() {
        let people = People::new(10);
        let all: HashSet<Bytes> = people.all(3).flatten().collect();
        assert_eq!(all.len(), 10);
        assert!(all.contains(&Bytes::from_static(b"bench-0000000009")));
        assert!(people.batch(7, 500).all(|user| all.contains(&user)));
        assert_eq!(people.batch(7, 500).collect::<HashSet<_>>().len(), 10, "each gets its share");
    }

    #[test]
    fn ids_of_messages_do_not_repeat() {
        let ids: HashSet<Bytes> = (0..50).flat_map(|call| message_ids(1, call, 64)).collect();
        assert_eq!(ids.len(), 50 * 64);
        assert!(ids.iter().all(|id| id.len() == ID_BYTES));
    }
}
