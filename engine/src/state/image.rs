//! The state as of one entry, shared with the living state until that changes.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::{
    Header, Message, Place, State, dedup::Dedup, map::Bucket, meta::MetaState, user::User,
};
use crate::limits::USER_BUCKETS;

/// The whole state of a group as of one entry.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) header: Header,
    pub(crate) buckets: Vec<Arc<Bucket>>,
    pub(crate) dedup: Dedup,
    pub(crate) meta: Arc<MetaState>,
}

impl State {
    /// Takes an image. The caller keeps `apply` out meanwhile, so that it shows one entry.
    pub(crate) fn image(&self) -> Image {
        Image {
            header: self.header(),
            buckets: self.users.share(),
            dedup: self.dedup.lock().clone(),
            meta: Arc::clone(&self.meta.read()),
        }
    }
}

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

    /// Points messages to where their records have been moved, bucket by bucket.
    pub(crate) fn relocate(&self, moved: impl Fn(&Message) -> Option<Place>) {
        for bucket in 0..USER_BUCKETS {
            let concerned = |b: &Bucket| {
                let users = b.iter().flat_map(|(_, user)| user.devices());
                users.flat_map(|device| device.mailbox.iter()).any(|m| moved(m).is_some())
            };
            // Looked at first, because a write copies what an image shares.
            if self.users.read_bucket(bucket, concerned) != Some(true) {
                continue;
            }
            self.users.write_bucket(bucket, |_, user| {
                let devices = user.devices_mut().iter_mut();
                for message in devices.flat_map(|device| device.mailbox.iter_mut()) {
                    if let Some(place) = moved(message) {
                        message.set_place(place);
                    }
                }
            });
        }
    }
}
