//! Dropping what has expired, a bucket at a time, paced by log time.
//!
//! Whoever touches a mailbox drops its expired messages first, and reads filter them, so counts are
//! exact without any timer. What nobody touches is found by a round over all buckets: log time is cut
//! into slots of 32 ms, each slot stands for one bucket, and an entry visits the buckets of the slots
//! that its stamp has passed. Which buckets those are follows from the two stamps alone.

use super::{State, user::User};
use crate::limits::{EXPIRY_SLOT_MS, USER_BUCKETS};

impl State {
    /// Visits the buckets of the slots after `before_ms` up to `now_ms`.
    pub(super) fn drop_expired(&self, before_ms: u64, now_ms: u64) {
        let (from, to) = (before_ms / EXPIRY_SLOT_MS, now_ms / EXPIRY_SLOT_MS);
        let buckets = USER_BUCKETS as u64;
        for slot in to.saturating_sub(buckets).max(from)..to {
            let index = usize::try_from((slot + 1) % buckets).unwrap_or(0);
            let is_due = self.users.read_bucket(index, |b| b.next_expiry_ms() <= now_ms);
            if is_due == Some(true) {
                let concerned = |user: &User| user.next_expiry_ms() <= now_ms;
                self.users.write_bucket(index, concerned, |_, user| {
                    for device in user.devices_mut() {
                        device.mailbox.drop_expired(now_ms);
                    }
                });
            }
        }
    }

    /// Lower bound of the earliest expiry of anything that is kept.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        let due = |index| self.users.read_bucket(index, |b| b.next_expiry_ms());
        (0..USER_BUCKETS).filter_map(due).min().filter(|due| *due != u64::MAX)
    }
}
