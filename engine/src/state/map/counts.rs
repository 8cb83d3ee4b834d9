//! What all users of a shard come to, kept up to date by each change, so that whoever asks looks at no
//! bucket: a look at a thousand of them, in each of sixteen shards, takes milliseconds of cache misses, which
//! everything else on that thread waits for.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::state::{mailbox::Load, user::Totals};

/// Sums that several writers add to. Each number is right once the writers rest; one read beside them may
/// be ahead of another.
#[derive(Debug, Default)]
pub(super) struct Counts {
    users: AtomicU64,
    sessions: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    /// A bucket came to something else.
    pub(super) fn change(&self, before: Totals, after: Totals) {
        let add = |count: &AtomicU64, before: u64, after: u64| {
            if before != after {
                // Wrapping: what was taken away is added as its complement.
                count.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
            }
        };
        add(&self.users, before.users, after.users);
        add(&self.sessions, before.sessions, after.sessions);
        add(&self.messages, before.waiting.messages, after.waiting.messages);
        add(&self.bytes, before.waiting.bytes, after.waiting.bytes);
    }

    pub(super) fn totals(&self) -> Totals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let waiting = Load { messages: read(&self.messages), bytes: read(&self.bytes) };
        Totals { users: read(&self.users), sessions: read(&self.sessions), waiting }
    }
}
