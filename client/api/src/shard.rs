//! Which shard a user belongs to. Fixed by the contract: clients in other languages compute the
//! same, and a change would strand every mailbox.

use xxhash_rust::xxh3::xxh3_64;

/// The shard of a user: the top `log2(shards)` bits of XXH3-64 (seed 0) of the user's bytes.
///
/// `shards` is a power of two, as the shard map says. With any other number the answer is that for
/// the next power of two below it (and shard 0 for 0), so that bad input cannot panic.
///
/// ```
/// assert_eq!(switchboard_api::shard_of(b"alice", 1), 0);
/// assert!(switchboard_api::shard_of(b"alice", 16) < 16);
/// ```
#[must_use]
pub fn shard_of(user: &[u8], shards: u32) -> u32 {
    let bits = shards.checked_ilog2().unwrap_or(0);
    if bits == 0 {
        return 0;
    }
    // At most 31 bits remain, so the cast loses nothing.
    (xxh3_64(user) >> (64 - bits)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (user, XXH3-64, shard of 16, shard of 256), published in `docs/protocol.md`.
    /// The hashes were checked against the reference implementation.
    const VECTORS: &[(&[u8], u64, u32, u32)] = &[
        (b"a", 0xe6c6_32b6_1e96_4e1f, 14, 230),
        (b"alice", 0x4da1_0dd6_1a01_16b0, 4, 77),
        (b"bob", 0x1403_c0c4_0f49_b8e5, 1, 20),
        (b"carol", 0xe2fd_b994_ad3f_cba4, 14, 226),
        (b"user-0000000042", 0x1acd_a7e0_fbc2_1576, 1, 26),
        ("zoë".as_bytes(), 0x602c_4a2a_8d3f_1ea2, 6, 96),
        (&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], 0x8355_e3a6_f617_70db, 8, 131),
        (&[b'x'; 64], 0x269c_b9f6_acf8_1244, 2, 38),
    ];

    #[test]
    fn published_vectors_hold() {
        for (user, hash, of_16, of_256) in VECTORS {
            assert_eq!(xxh3_64(user), *hash, "{user:?}");
            assert_eq!(shard_of(user, 16), *of_16, "{user:?}");
            assert_eq!(shard_of(user, 256), *of_256, "{user:?}");
        }
    }

    #[test]
    fn one_shard_takes_all_and_no_number_panics() {
        for shards in [0, 1] {
            assert_eq!(shard_of(b"alice", shards), 0);
        }
        for shards in [2, 3, 16, 4096, 1 << 31, u32::MAX] {
            assert!(shard_of(b"alice", shards) < shards);
        }
    }

    #[test]
    fn doubling_the_shards_splits_each_in_two() {
        for n in 0..1000_u32 {
            let user = n.to_be_bytes();
            assert_eq!(shard_of(&user, 32) / 2, shard_of(&user, 16));
        }
    }
}
