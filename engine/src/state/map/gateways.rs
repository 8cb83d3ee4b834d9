//! Short numbers for pairs of gateway and incarnation.
//!
//! All sessions of one life of a gateway share a pair of 12 bytes, which slots name by a number of 24
//! bits. A number is used again when no session has it any more; a reader that still holds it finds
//! another pair then, and by the version of its slot that the slot has changed (see `version`).

use std::{
    collections::HashMap,
    io,
    sync::atomic::{AtomicU64, Ordering, Ordering::Relaxed, fence},
};

use foldhash::fast::FixedState;
use parking_lot::Mutex;

use super::{memory::Words, slot::GATEWAY_BITS};
use crate::limits::SESSION_GATEWAYS_MAX;

const _: () = assert!(SESSION_GATEWAYS_MAX <= 1 << GATEWAY_BITS);

/// Gateway and incarnation.
pub(super) type Life = (u32, u64);

/// The pairs that sessions of this map have.
#[derive(Debug)]
pub(super) struct Gateways {
    /// Two words a number, for readers.
    words: Words,
    /// A lock, held by whoever writes a bucket when the pair of a session changes.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    numbers: HashMap<Life, u32, FixedState>,
    /// How many sessions have a number.
    uses: Vec<u32>,
    free: Vec<u32>,
}

impl Gateways {
    pub(super) fn new() -> io::Result<Self> {
        let words = Words::new(2 * SESSION_GATEWAYS_MAX)?;
        Ok(Self { words, known: Mutex::default() })
    }

    /// The pair behind a number; what it is worth the version of the slot tells.
    #[inline]
    pub(super) fn life(&self, number: u32) -> Option<Life> {
        let at = 2 * number as usize;
        let [gateway, incarnation] = self.words.words().get(at..)?.first_chunk::<2>()?;
        Some((gateway.load(Relaxed) as u32, incarnation.load(Relaxed)))
    }

    /// The number of a pair, for one more session. `None` when all are in use.
    pub(super) fn take(&self, life: Life) -> Option<u32> {
        let known = &mut *self.known.lock();
        if let Some(number) = known.numbers.get(&life) {
            known.uses[*number as usize] += 1;
            return Some(*number);
        }
        let number = match known.free.pop() {
            Some(number) => number,
            None if known.uses.len() < SESSION_GATEWAYS_MAX => {
                known.uses.push(0);
                u32::try_from(known.uses.len() - 1).ok()?
            }
            None => return None,
        };
        known.uses[number as usize] = 1;
        known.numbers.insert(life, number);
        // Who reads the new pair sees that the last slot with the old one has changed.
        fence(Ordering::Release);
        let words: &[AtomicU64] = &self.words.words()[2 * number as usize..];
        words[0].store(u64::from(life.0), Relaxed);
        words[1].store(life.1, Relaxed);
        Some(number)
    }

    /// So many sessions more have a number that one has already.
    pub(super) fn take_more(&self, number: u32, sessions: u32) {
        if let Some(uses) = self.known.lock().uses.get_mut(number as usize) {
            *uses += sessions;
        }
    }

    /// One session less has this number.
    pub(super) fn give(&self, number: u32) {
        let Some(life) = self.life(number) else { return };
        let known = &mut *self.known.lock();
        let uses = &mut known.uses[number as usize];
        *uses -= 1;
        if *uses == 0 {
            known.numbers.remove(&life);
            known.free.push(number);
        }
    }

    pub(super) fn discard(&self) {
        self.words.discard();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_keeps_its_number_while_a_session_has_it() {
        let gateways = Gateways::new().expect("memory");
        let (first, second) = (gateways.take((1, 5)), gateways.take((1, 6)));
        assert_ne!(first, second);
        let first = first.expect("a number");
        assert_eq!((gateways.take((1, 5)), gateways.life(first)), (Some(first), Some((1, 5))));
        gateways.give(first);
        assert_eq!(gateways.take((9, 9)), Some(2), "it is still in use");
        gateways.give(first);
        assert_eq!(gateways.take((7, 7)), Some(first));
        assert_eq!(gateways.life(first), Some((7, 7)));
    }
}
