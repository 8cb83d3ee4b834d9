//! Putting a state together from what a file says, and pointing it to where bodies have been moved.

use std::sync::Arc;

use bytes::Bytes;

use super::{Filling, Message, Place, State, dedup::Dedup, meta::MetaState, user::User};

impl State {
    /// Begins to add users as a file has them, bucket by bucket.
    pub(crate) fn fill(&self) -> Filling<'_> {
        self.users.fill()
    }

    /// Adds a user as a file describes it; false when it is there already. By any number of threads.
    pub(crate) fn restore_user(&self, name: &[u8], user: User) -> bool {
        self.users.insert(name, user)
    }

    /// Adds what a file describes besides header and users.
    pub(crate) fn complete(&mut self, dedup: Dedup, meta: MetaState) {
        *self.dedup.get_mut() = dedup;
        *self.meta.get_mut() = Arc::new(meta);
    }

    /// Gives a restored state its new generation, members and cluster. What has been applied stays, so
    /// that its log goes on from there.
    pub(crate) fn begin_again(&self, generation: u8, membership: Bytes, cluster_id: [u8; 16]) {
        let mut header = self.header.write();
        header.generation = generation;
        header.membership = header.applied.map(|at| (at, membership));
        let mut meta = self.meta.write();
        let mut next = Arc::unwrap_or_clone(Arc::clone(&meta));
        next.begin_again(cluster_id, header.last_position());
        *meta = Arc::new(next);
    }

    /// Points messages of one bucket to where their records have been moved.
    pub(crate) fn relocate(&self, bucket: usize, moved: impl Fn(&Message) -> Option<Place>) {
        let messages = |user: &User| user.devices().iter().any(|d| !d.mailbox.is_empty());
        self.users.write_bucket(bucket, messages, |_, user| {
            let devices = user.devices_mut().iter_mut();
            for message in devices.flat_map(|device| device.mailbox.iter_mut()) {
                if let Some(place) = moved(message) {
                    message.set_place(place);
                }
            }
        });
    }
}
