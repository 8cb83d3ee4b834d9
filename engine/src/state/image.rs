//! The state as of one entry, shared with the living state until that changes.

use std::sync::Arc;

use super::{Header, State, dedup::Dedup, map::Bucket, meta::MetaState};

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
