//! A hash of everything that replicas must agree on.
//!
//! Users are hashed one by one and their hashes added up, so the order of a hash map does not matter.
//! Places of bodies and memory layout are left out; the log id is given beside the hash, not in it.

use bytes::{BufMut, BytesMut};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    Snapshot,
    dedup::encode_dedup,
    encode::{encode_meta, encode_user},
};
use crate::limits::USER_BUCKETS;

impl Snapshot {
    /// The hash of the contents.
    pub(crate) fn hash(&self) -> u128 {
        let mut scratch = BytesMut::new();
        let mut sum = 0_u128;
        for bucket in 0..USER_BUCKETS {
            self.visit(bucket, |name, user| {
                scratch.clear();
                encode_user(&mut scratch, name, user, None);
                sum = sum.wrapping_add(xxh3_128(&scratch));
            });
        }
        scratch.clear();
        scratch.put_u128_le(sum);
        self.header.encode_content(&mut scratch);
        encode_dedup(&mut scratch, &self.dedup);
        encode_meta(&mut scratch, &self.meta);
        xxh3_128(&scratch)
    }
}
