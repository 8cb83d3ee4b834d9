//! The form of one user in the table: six words, 48 bytes.
//!
//! ```text
//!   0  order 32 │ gateway 24 │ 0 2 │ has a session 1 │ length of the name 5
//!   1  name, bytes 0 to 7   ┐ of a name longer than 16 bytes: its hash, and the name itself
//!   2  name, bytes 8 to 15  ┘ stands outside (length 17)
//!   3  epoch 64
//!   4  time 44 │ outside 20
//!   5  connection 64
//! ```
//! *order* is the part of the hash that users of a bucket are sorted by. *gateway* is the number under
//! which the map keeps the pair of gateway and incarnation. *time* is that of the claim, or of the end of
//! the last session. *outside* says where the bucket keeps what has no room here, plus 1: a mailbox, or a
//! long name with one; 0 is neither. A slot whose first word is 0 is free.
//!
//! Only users whose primary device is their only one, and who have no push token, are kept like this.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use siphasher::sip128::SipHasher13;
use xxhash_rust::xxh3::xxh3_64;

use crate::limits::{SHARDS_MAX, USER_BUCKETS};

/// Words of a slot.
pub(super) const SLOT_WORDS: usize = 6;
/// Numbers of pairs of gateway and incarnation.
pub(super) const GATEWAY_BITS: u32 = 24;
/// Things that a bucket can keep outside.
pub(super) const OUTSIDE_MAX: usize = (1 << OUTSIDE_BITS) - 2;

const OUTSIDE_BITS: u32 = 20;
/// Latest time that a slot can hold, in the year 2527.
pub(super) const TIME_MS_MAX: u64 = u64::MAX >> OUTSIDE_BITS;
const NAME_BYTES: usize = 16;
const LONG: u64 = NAME_BYTES as u64 + 1;
const LENGTH_MASK: u64 = 31;
const SESSION: u64 = 1 << 5;
const GATEWAY_SHIFT: u32 = 8;
const ORDER_SHIFT: u32 = 32;
const ORDER_MASK: u64 = !0 << ORDER_SHIFT;
/// The bits of the first word that a name decides on.
pub(super) const IDENTITY: u64 = ORDER_MASK | LENGTH_MASK;

const _: () = {
    assert!(LONG <= LENGTH_MASK);
    assert!(GATEWAY_SHIFT + GATEWAY_BITS == ORDER_SHIFT);
    assert!(SHARDS_MAX.ilog2() + USER_BUCKETS.ilog2() + u32::BITS <= u64::BITS);
};

/// A user's name as the table looks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) bucket: usize,
    /// Order and length, in the places that they have in the first word.
    pub(super) identity: u64,
    pub(super) name: [u64; 2],
}

impl Key {
    /// No user's: of no length.
    pub(super) const NONE: Self = Self { bucket: 0, identity: 0, name: [0; 2] };

    /// `secret` is asked for when the name is long: nobody may choose names of one hash.
    #[inline]
    pub(super) fn of(name: &[u8], secret: impl FnOnce() -> [u64; 2]) -> Self {
        // The top bits of the hash choose the shard, up to as many as the most shards need. Those
        // after them choose the bucket, so a bucket holds a contiguous range of what is left.
        let left = xxh3_64(name).rotate_left(SHARDS_MAX.ilog2());
        let bucket = (left >> (u64::BITS - USER_BUCKETS.ilog2())) as usize;
        let order = (left << USER_BUCKETS.ilog2()) & ORDER_MASK;
        let (length, words) = match words_of(name) {
            Some(words) => (name.len() as u64, words),
            None => (LONG, hash_of(name, secret())),
        };
        Self { bucket, identity: order | length, name: words }
    }

    pub(super) fn is_long(&self) -> bool {
        self.identity & LENGTH_MASK == LONG
    }

    pub(super) fn order(&self) -> u32 {
        order_of(self.identity)
    }
}

/// The name in two words, filled up with zeros; `None` if it is longer, or empty.
#[inline]
fn words_of(name: &[u8]) -> Option<[u64; 2]> {
    // By far the most usual length has a way of its own, without a copy of unknown length.
    if let Ok(name) = <&[u8; NAME_BYTES]>::try_from(name) {
        let (words, _) = name.as_chunks::<8>();
        return Some([u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]);
    }
    let mut bytes = [0; NAME_BYTES];
    bytes.get_mut(..name.len()).filter(|bytes| !bytes.is_empty())?.copy_from_slice(name);
    let whole = u128::from_le_bytes(bytes);
    Some([whole as u64, (whole >> u64::BITS) as u64])
}

#[cold]
fn hash_of(name: &[u8], [a, b]: [u64; 2]) -> [u64; 2] {
    let hash = SipHasher13::new_with_keys(a, b).hash(name);
    [hash.h1, hash.h2]
}

#[inline]
pub(super) fn order_of(first_word: u64) -> u32 {
    (first_word >> ORDER_SHIFT) as u32
}

/// What a slot says, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) identity: u64,
    pub(super) name: [u64; 2],
    /// Number of gateway and incarnation, epoch, and connection.
    pub(super) session: Option<(u32, u64, u64)>,
    pub(super) time_ms: u64,
    pub(super) outside: Option<usize>,
}

impl Slot {
    /// The caller has seen to it that everything fits its bits.
    pub(super) fn pack(&self) -> [u64; SLOT_WORDS] {
        let (gateway, epoch, connection) = self.session.unwrap_or_default();
        let has_session = if self.session.is_some() { SESSION } else { 0 };
        let outside = self.outside.map_or(0, |at| at as u64 + 1);
        [
            self.identity | u64::from(gateway) << GATEWAY_SHIFT | has_session,
            self.name[0],
            self.name[1],
            epoch,
            self.time_ms << OUTSIDE_BITS | outside,
            connection,
        ]
    }

    #[inline]
    pub(super) fn unpack(words: [u64; SLOT_WORDS]) -> Self {
        let [first, low, high, epoch, time, connection] = words;
        let gateway = (first >> GATEWAY_SHIFT) as u32 & ((1 << GATEWAY_BITS) - 1);
        Self {
            identity: first & IDENTITY,
            name: [low, high],
            session: (first & SESSION != 0).then_some((gateway, epoch, connection)),
            time_ms: time >> OUTSIDE_BITS,
            outside: ((time & ((1 << OUTSIDE_BITS) - 1)) as usize).checked_sub(1),
        }
    }

    pub(super) fn is_long(&self) -> bool {
        self.identity & LENGTH_MASK == LONG
    }

    /// The name, if it has room here, and how long it is.
    pub(super) fn short_name(&self) -> Option<([u8; NAME_BYTES], usize)> {
        let length = (self.identity & LENGTH_MASK) as usize;
        let whole = u128::from(self.name[1]) << u64::BITS | u128::from(self.name[0]);
        (length <= NAME_BYTES).then_some((whole.to_le_bytes(), length))
    }
}

#[inline]
pub(super) fn load(words: &[AtomicU64; SLOT_WORDS]) -> [u64; SLOT_WORDS] {
    std::array::from_fn(|at| words[at].load(Relaxed))
}

pub(super) fn store(words: &[AtomicU64; SLOT_WORDS], values: [u64; SLOT_WORDS]) {
    words.iter().zip(values).for_each(|(word, value)| word.store(value, Relaxed));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(
            name in proptest::collection::vec(any::<u8>(), 1..=64),
            session in proptest::option::of((0..1_u32 << GATEWAY_BITS, any::<u64>(), any::<u64>())),
            time_ms in 0..=TIME_MS_MAX,
            outside in proptest::option::of(0..OUTSIDE_MAX),
        ) {
            let key = Key::of(&name, || [1, 2]);
            let slot = Slot { identity: key.identity, name: key.name, session, time_ms, outside };
            prop_assert_ne!(slot.pack()[0], 0);
            prop_assert_eq!(Slot::unpack(slot.pack()), slot);
            let short = slot.short_name().map(|(bytes, length)| bytes[..length].to_vec());
            prop_assert_eq!(short, (name.len() <= 16).then_some(name));
        }
    }

    #[test]
    fn names_that_differ_in_zeros_at_their_end_differ() {
        let key = |name: &[u8]| Key::of(name, || [1, 2]);
        assert_ne!(key(b"a").identity & LENGTH_MASK, key(b"a\0").identity & LENGTH_MASK);
        assert_ne!(key(&[0; 17]).name, key(&[0; 18]).name);
    }
}
