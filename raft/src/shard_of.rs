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

    /// The table of `docs/protocol.md`: user, hash, and its shard of 4, 16 and 256.
    const VECTORS: &[(&[u8], u64, [u32; 3])] = &[
        (b"alice", 0x4da1_0dd6_1a01_16b0, [1, 4, 77]),
        (b"bob", 0x1403_c0c4_0f49_b8e5, [0, 1, 20]),
        (b"a", 0xe6c6_32b6_1e96_4e1f, [3, 14, 230]),
        (b"0", 0x1982_e3a7_bb24_1055, [0, 1, 25]),
        (b"user-000001", 0x25e3_c57e_ec6a_b3e9, [0, 2, 37]),
        ("zoë".as_bytes(), 0x602c_4a2a_8d3f_1ea2, [1, 6, 96]),
        (&[b'x'; 64], 0x269c_b9f6_acf8_1244, [0, 2, 38]),
        (&[0], 0xc44b_dff4_074e_ecdb, [3, 12, 196]),
        (&[0xff; 64], 0x7992_ee02_8833_0c4f, [1, 7, 121]),
    ];

    #[test]
    fn published_vectors_hold() {
        for (user, hash, shards) in VECTORS {
            assert_eq!(xxh3_64(user), *hash, "{user:?}");
            assert_eq!([4, 16, 256].map(|count| shard_of(user, count)), *shards, "{user:?}");
            assert_eq!(shard_of(user, 1), 0);
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
