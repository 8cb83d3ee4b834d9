//! Every bound of the engine, and the relations between them, checked when it is compiled.
//!
//! Bounds that replicas must agree on and that an operator may change are not here but in
//! [`Rules`](crate::command::Rules), which is replicated; here stand their defaults and their ranges.

/// Bytes of a user id.
pub const USER_BYTES_MAX: usize = 64;
/// Bytes of a message id, exactly.
pub const MESSAGE_ID_BYTES: usize = 16;
/// Bytes of a message's body.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a push token.
pub const PUSH_TOKEN_BYTES_MAX: usize = 512;
/// Bytes of the reason given for a purge.
pub const REASON_BYTES_MAX: usize = 256;
/// Bytes of the name of a gateway or chat process.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of a host:port.
pub const ADDRESS_BYTES_MAX: usize = 256;

/// Highest generation of a position.
pub const GENERATION_MAX: u8 = 127;
/// Highest log index of a position.
pub const LOG_INDEX_MAX: u64 = (1 << 40) - 1;
/// Commands in one entry.
pub const ENTRY_COMMANDS_MAX: usize = 65_535;
/// Encoded bytes of one entry.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// Seqs named one by one in a single ack.
pub const ACK_SEQS_MAX: usize = 1_024;

/// A message record: kind, id, sender and body (see [`crate::command::mailbox`]).
pub const RECORD_HEAD_BYTES_MAX: usize = 1 + MESSAGE_ID_BYTES + 3 + 1 + USER_BYTES_MAX;
/// The same with its body.
pub const RECORD_BYTES_MAX: usize = RECORD_HEAD_BYTES_MAX + BODY_BYTES_MAX;
/// The largest encoded command: an enqueue with a full body, or an ack with all its seqs.
pub const COMMAND_BYTES_MAX: usize = RECORD_BYTES_MAX + 1 + 3 + 1 + USER_BYTES_MAX + 10 + 3;

/// Messages of content in one mailbox, by default.
pub const MAILBOX_MESSAGES_MAX: u32 = 10_000;
/// Bytes of their bodies, by default.
pub const MAILBOX_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Receipts have this share of both limits for themselves.
pub const MAILBOX_RECEIPTS_DIVISOR: u32 = 10;
/// Devices of one user, the primary included.
pub const DEVICES_MAX: u16 = 16;
/// A device without a session for so long gives its place to a new one that needs it: 60 days.
pub const DEVICE_IDLE_MS: u64 = 60 * DAY_MS;
/// Longest time to live, and the default: 30 days.
pub const TTL_MS_MAX: u64 = 30 * DAY_MS;
/// Log time for which a message id is remembered: 10 minutes.
pub const DEDUP_HORIZON_MS: u64 = 10 * 60 * 1000;
/// Message ids remembered by a shard.
pub const DEDUP_IDS_MAX: u32 = 1_000_000;
/// Slices of the dedup table; a whole slice is forgotten at once.
pub const DEDUP_SLICES: u32 = 8;
/// Ids kept side by side in one block, which snapshots share once it is full.
pub const DEDUP_BLOCK_IDS: usize = 4_096;
/// Forgotten ids that one entry takes out of the dedup table at most,
pub const DEDUP_SWEEP_ENTRY: u64 = 256;
/// and each id that it adds: more than one, so that the table catches up.
pub const DEDUP_SWEEP_ID: u64 = 2;
/// Id files of one group: with more, the next checkpoint writes what is remembered into one.
pub const ID_FILES_MAX: usize = 64;
/// Ids in one section of an id file.
pub const ID_FILE_SECTION_IDS: usize = 32_768;

/// Buckets of a shard's users. The bucket of a user is replicated behaviour (it paces expiry and
/// sweeps), so changing it is a change of format.
pub const USER_BUCKETS: usize = 1_024;
/// Chunks of 24 MiB in which the sessions of one shard lie: some 200 million. Users beyond them are kept
/// as those are who do not fit a slot.
pub const USER_CHUNKS_MAX: usize = 512;
/// Pairs of gateway and incarnation that sessions of one shard have at a time, before further ones are
/// kept as those are who do not fit a slot.
pub const SESSION_GATEWAYS_MAX: usize = 1 << 20;
/// Imports into a shard after which its look-ups take a lock, until it is opened again.
pub const IMPORTS_MAX: usize = 64;
/// Log time in which every bucket is visited once to drop what has expired: 32.768 s.
pub const EXPIRY_ROUND_MS: u64 = USER_BUCKETS as u64 * EXPIRY_SLOT_MS;
/// Log time given to one bucket of that round.
pub const EXPIRY_SLOT_MS: u64 = 32;
/// Sessions that one sweep removes at most, but for the rest of the bucket it is in.
pub const SWEEP_SESSIONS_MAX: u32 = 10_000;

/// Messages in one page of a fetch.
pub const FETCH_MESSAGES_MAX: usize = 1_024;
/// Bytes of bodies in one page of a fetch.
pub const FETCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of log after which the embedded store takes a checkpoint, by default.
pub const STORE_CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;

/// Shards of a cluster: a power of two up to this.
pub const SHARDS_MAX: u32 = 4_096;
/// Nodes known to the meta group.
pub const NODES_MAX: usize = 256;
/// Bytes of a zone's name.
pub const ZONE_BYTES_MAX: usize = 64;
/// Bytes of the reason why a move does not go on.
pub const STALLED_BYTES_MAX: usize = 256;
/// Gateway and chat processes known to the meta group, ended ones included.
pub const GATEWAYS_MAX: usize = 16_384;

/// Latest expiry of a message, in the year 6429: memory has 47 bits for it.
pub const EXPIRY_MS_MAX: u64 = (1 << 47) - 1;
/// One day in milliseconds; old bodies are filed by the day they expire on.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Largest section of a checkpoint or export: a user with every mailbox full fits.
pub const SECTION_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Users are gathered into sections of about this size.
pub const USERS_SECTION_BYTES: usize = 1024 * 1024;
/// An old file takes no more records beyond this size.
pub const OLD_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Threads that load one checkpoint.
pub const LOAD_THREADS_MAX: usize = 8;
/// Old files of one group.
pub const OLD_FILES_MAX: usize = 100_000;
/// Old files are written in pieces of about this size.
pub const OLD_WRITE_BYTES: usize = 1024 * 1024;
/// Old files smaller than this are gathered into new ones by the next checkpoint, once there are
/// more than [`OLD_FILES_SMALL_MAX`] of them.
pub const OLD_FILE_SMALL_BYTES: u64 = 1024 * 1024;
/// Small old files that are left alone.
pub const OLD_FILES_SMALL_MAX: usize = 64;
/// Bytes of entries that a replay reads at a time.
pub const REPLAY_READ_BYTES: usize = 4 * 1024 * 1024;

const _: () = {
    assert!(COMMAND_BYTES_MAX + crate::command::ENTRY_HEAD_BYTES <= ENTRY_BYTES_MAX);
    assert!(ENTRY_COMMANDS_MAX <= u16::MAX as usize);
    assert!(ACK_SEQS_MAX * 10 + 256 <= COMMAND_BYTES_MAX);
    // The index of a message keeps its ttl and its offset within an entry in 32 bits.
    assert!(TTL_MS_MAX <= u32::MAX as u64);
    assert!(ENTRY_BYTES_MAX <= u32::MAX as usize);
    assert!(TTL_MS_MAX < DEVICE_IDLE_MS);
    assert!(USER_BUCKETS.is_power_of_two() && EXPIRY_SLOT_MS.is_power_of_two());
    assert!(BODY_BYTES_MAX <= FETCH_BYTES_MAX);
    assert!(SHARDS_MAX.is_power_of_two());
    assert!(DEDUP_IDS_MAX >= DEDUP_SLICES);
    assert!(DEDUP_SWEEP_ID > 1);
    assert!(ID_FILE_SECTION_IDS * 32 <= SECTION_BYTES_MAX);
};
