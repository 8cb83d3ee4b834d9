//! The part of a map that readers need no lock for.
//!
//! ```text
//!   heads: one a bucket ──▶ arena: blocks of slots ──▶ gateways: pairs that slots name by a number
//! ```
//! A region is read while it changes, and also for a moment after the map that it belongs to is gone: it
//! stays mapped until nobody can hold it.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{
    arena::Arena,
    gateways::Gateways,
    memory::Words,
    slot::{self, Key, SLOT_WORDS, Slot},
    table::{HEAD_WORDS, Table},
    version::try_read,
};
use crate::{SessionRecord, limits::USER_BUCKETS};

/// How often a reader tries before it asks for the lock.
const TRIES: usize = 64;
/// Keys that a batch works on at a time.
const BATCH: usize = 16;
/// Where the words of the secret stand, behind the heads.
const SECRET: usize = USER_BUCKETS * HEAD_WORDS;

/// What can be told without a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing is kept of the user, or of its primary device and its mailbox alone.
    Offline,
    /// The primary device is connected, and there is no other device.
    Online(SessionRecord),
    /// The user may be one of those that only the lock leads to.
    Ask,
}

/// Heads, slots and gateways of one map.
#[derive(Debug)]
pub(crate) struct Region {
    heads: Words,
    pub(super) arena: Arena,
    pub(super) gateways: Gateways,
}

impl Region {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { heads: Words::new(SECRET + 2)?, arena: Arena::new(), gateways: Gateways::new()? })
    }

    /// Sets what long names are hashed with, before there is any.
    pub(super) fn set_secret(&self, secret: [u64; 2]) {
        self.heads.words()[SECRET..].iter().zip(secret).for_each(|(word, value)| {
            word.store(value, Relaxed);
        });
    }

    fn secret(&self) -> [u64; 2] {
        std::array::from_fn(|at| self.heads.words()[SECRET + at].load(Relaxed))
    }

    #[inline]
    pub(super) fn key(&self, name: &[u8]) -> Key {
        Key::of(name, || self.secret())
    }

    #[inline]
    pub(super) fn table(&self, bucket: usize) -> Table<'_> {
        let (heads, _): (&[[AtomicU64; HEAD_WORDS]], _) = self.heads.words().as_chunks();
        Table { head: &heads[bucket], arena: &self.arena }
    }

    /// Looks a user up. Any thread, at any time; writes nothing.
    #[inline]
    pub(crate) fn look_up(&self, name: &[u8]) -> Answer {
        let key = self.key(name);
        self.look_up_key(&key)
    }

    #[inline]
    fn look_up_key(&self, key: &Key) -> Answer {
        let table = self.table(key.bucket);
        for _ in 0..TRIES {
            if let Some(answer) = try_read(table.version(), || self.read(table, key)) {
                return answer;
            }
            std::hint::spin_loop();
        }
        Answer::Ask
    }

    /// What the words say, true if they belong together.
    #[inline]
    fn read(&self, table: Table<'_>, key: &Key) -> Answer {
        let Some(words) = table.look(key) else {
            return if table.has_strays() { Answer::Ask } else { Answer::Offline };
        };
        let slot = Slot::unpack(slot::load(words));
        let Some((gateway, epoch, connection_id)) = slot.session else { return Answer::Offline };
        let Some((gateway_id, incarnation)) = self.gateways.life(gateway) else {
            return Answer::Ask;
        };
        let connected_at_ms = slot.time_ms;
        let session =
            SessionRecord { gateway_id, incarnation, connection_id, epoch, connected_at_ms };
        Answer::Online(session)
    }

    /// Looks several users up, in their order: the memory of all is asked for before the first is
    /// needed, so that they are waited for together.
    pub(crate) fn look_up_batch(&self, names: &[&[u8]], mut found: impl FnMut(&[u8], Answer)) {
        for names in names.chunks(BATCH) {
            let mut keys = [Key::NONE; BATCH];
            for (key, name) in keys.iter_mut().zip(names) {
                *key = self.key(name);
            }
            let keys = &keys[..names.len()];
            let touch = |sum: u64, key: &Key| sum ^ self.table(key.bucket).touch(key);
            std::hint::black_box(keys.iter().fold(0, touch));
            for (key, name) in keys.iter().zip(names) {
                found(name, self.look_up_key(key));
            }
        }
    }

    /// Gives all memory back to the system. Who reads meanwhile finds nobody; only a map that
    /// nobody is led to any more is treated so.
    pub(super) fn discard(&self) {
        self.arena.discard();
        self.gateways.discard();
        self.heads.discard();
    }
}

const _: () = assert!(HEAD_WORDS > SLOT_WORDS);
