//! Putting a state together from what a file says, and pointing it to where bodies have been moved.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::{Header, Message, Place, State, dedup::Dedup, meta::MetaState, user::User};

impl State {
    /// The state that a file describes, but for its users.
    pub(crate) fn restored(header: Header, dedup: Dedup, meta: MetaState) -> Self {
        let mut state = Self::new(header);
        state.dedup = Mutex::new(dedup);
        state.meta = RwLock::new(Arc::new(meta));
        state
    }

    /// Adds a user as a file describes it; false when it is there already.
    pub(crate) fn restore_user(&self, name: &Bytes, user: User) -> bool {
        self.users.insert(name, user)
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

    /// Calls `each` with every message of a bucket, and whether its user has several devices.
    pub(crate) fn each_message(&self, bucket: usize, mut each: impl FnMut(&Message, bool)) {
        self.users.read_bucket(bucket, |bucket| {
            for (_, user) in bucket.iter() {
                let is_shared = user.devices().len() > 1;
                let messages = user.devices().iter().flat_map(|device| device.mailbox.iter());
                messages.for_each(|message| each(message, is_shared));
            }
        });
    }
}
