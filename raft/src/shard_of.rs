//! Which shard a user belongs to: the top bits of XXH3-64 (seed 0) of the user's bytes.
//!
//! The same function is published as `switchboard_api::shard_of`; both are held to the vectors in
//! `docs/protocol.md`. The *top* bits are taken so that doubling the shards splits each in two.

use xxhash_rust::xxh3::xxh3_64;

/// The shard, counted from 0, of `user` among `shards`, which must be a power of two.
///
/// Shard `s` is group `s + 1`.
///
/// # Panics
/// In debug builds if `shards` is not a power of two.
#[must_use]
pub fn shard_of(user: &[u8], shards: u32) -> u32 {
    debug_assert!(shards.is_power_of_two(), "the number of shards is a power of two");
    let bits = shards.trailing_zeros();
    // A shift by 64 is an overflow, and one shard holds everybody.
    if bits == 0 { 0 } else { (xxh3_64(user) >> (64 - bits)) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with the reference implementation's XXH3_64bits; published in docs/protocol.md.
    #[test]
    fn published_vectors() {
        assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(shard_of(b"", 16), 0x2);
        assert_eq!(shard_of(b"", 256), 0x2d);
        assert_eq!(shard_of(b"alice", 1), 0);
        for user in [&b"alice"[..], b"bob", b"carol", &[0xff; 64]] {
            assert_eq!(shard_of(user, 16), (xxh3_64(user) >> 60) as u32);
            assert_eq!(shard_of(user, 16), shard_of(user, 32) / 2);
        }
    }

    #[test]
    fn every_shard_is_used() {
        let mut counts = [0u32; 16];
        for n in 0..16_000u32 {
            counts[shard_of(format!("user-{n}").as_bytes(), 16) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
