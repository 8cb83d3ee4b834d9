//! Positions: the numbers that order everything in a shard.
//!
//! An `epoch` (of a session) and a `seq` (of a message) are both the position of the command that
//! made them. A position is not a counter that is kept somewhere: it follows from where the command
//! stands in the log, so it costs no memory and two replicas cannot disagree about it.
//!
//! ```text
//!  63   62        56 55                               16 15            0
//! ┌───┬─────────────┬───────────────────────────────────┬───────────────┐
//! │ 0 │ generation 7│             log index 40          │    place 16   │
//! └───┴─────────────┴───────────────────────────────────┴───────────────┘
//! ```
//!
//! The top bit is always 0, so that a position fits a signed 64-bit integer. The generation is
//! replicated state of the shard; whatever starts a shard's log anew raises it, so positions never go
//! backwards.

use std::fmt;

use crate::limits::{GENERATION_MAX, LOG_INDEX_MAX};

/// Where a command stands: generation, log index, place in the entry. `0` means none.
///
/// ```
/// use switchboard_engine::Position;
/// let position = Position::new(1, 42, 7).expect("in range");
/// assert_eq!((position.generation(), position.index(), position.place()), (1, 42, 7));
/// assert!(position < Position::new(1, 43, 0).expect("in range"));
/// assert!(position < Position::new(2, 0, 0).expect("in range"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// No position: "no session", "the mailbox was empty", "from the start".
    pub const NONE: Self = Self(0);

    const PLACE_BITS: u32 = 16;
    const INDEX_BITS: u32 = 40;

    /// Composes a position; `None` when the generation or the index is out of range.
    pub const fn new(generation: u8, index: u64, place: u16) -> Option<Self> {
        if generation > GENERATION_MAX || index > LOG_INDEX_MAX {
            return None;
        }
        let high = (generation as u64) << (Self::PLACE_BITS + Self::INDEX_BITS);
        Some(Self(high | (index << Self::PLACE_BITS) | place as u64))
    }

    /// Takes a number from the wire or a file; `None` when its top bit is set.
    pub const fn try_from_u64(value: u64) -> Option<Self> {
        if value >> 63 == 0 { Some(Self(value)) } else { None }
    }

    /// Takes a number from a client, where more than any position means "to the very end".
    pub const fn clamped(value: u64) -> Self {
        if value >> 63 == 0 { Self(value) } else { Self(u64::MAX >> 1) }
    }

    /// The generation of the log that it belongs to, 0 to 127.
    pub const fn generation(self) -> u8 {
        (self.0 >> (Self::PLACE_BITS + Self::INDEX_BITS)) as u8
    }

    /// The log index of the entry, below 2^40.
    pub const fn index(self) -> u64 {
        (self.0 >> Self::PLACE_BITS) & LOG_INDEX_MAX
    }

    /// The place of the command in its entry, from 0.
    pub const fn place(self) -> u16 {
        self.0 as u16
    }

    /// The number that travels: at most 2^63 - 1.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether this is [`Position::NONE`].
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.generation(), self.index(), self.place())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_does_not_fit() {
        assert_eq!(Position::new(GENERATION_MAX + 1, 0, 0), None);
        assert_eq!(Position::new(0, LOG_INDEX_MAX + 1, 0), None);
        assert_eq!(Position::try_from_u64(1 << 63), None);
        let top = Position::new(GENERATION_MAX, LOG_INDEX_MAX, u16::MAX).map(Position::get);
        assert_eq!(top, Some(i64::MAX as u64));
        assert_eq!(Position::clamped(u64::MAX).get(), i64::MAX as u64);
    }

    proptest! {
        #[test]
        fn orders_like_its_parts(
            a in (0..=GENERATION_MAX, 0..=LOG_INDEX_MAX, any::<u16>()),
            b in (0..=GENERATION_MAX, 0..=LOG_INDEX_MAX, any::<u16>()),
        ) {
            let of = |(g, i, p)| Position::new(g, i, p).expect("in range");
            prop_assert_eq!(of(a).cmp(&of(b)), a.cmp(&b));
            prop_assert_eq!((of(a).generation(), of(a).index(), of(a).place()), a);
            prop_assert_eq!(Position::try_from_u64(of(a).get()), Some(of(a)));
        }
    }
}
