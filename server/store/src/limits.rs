//! Bounds of the store's service, apart from those of the contract (`switchboard_api::limits`).

use std::time::Duration;

use switchboard_api::limits;

/// Requests of one stream that are under way at a time; reading stops beyond.
pub const STREAM_REQUESTS_MAX: usize = 256;
/// Answers that wait for a slow reader of a stream before its requests stop being read.
pub const STREAM_ANSWERS_MAX: usize = 64;
/// Session events kept for watchers that fall behind or resume.
pub const SESSION_EVENTS_MAX: usize = 64 * 1024;
/// Events sent to a watcher before others get a turn.
pub const WATCH_BATCH_MAX: usize = 256;
/// Items of one enqueue stream that are under way at a time; reading stops beyond, so that a stream
/// is slowed down rather than refused.
pub const STREAM_ITEMS_MAX: usize = 4 * limits::ITEMS_PER_BATCH_MAX;
/// Watches of sessions and lists that are open at a time.
pub const WATCHES_MAX: usize = 4_096;
/// Sessions that one sweep command removes: it is applied between other commands.
pub const SWEEP_SESSIONS_MAX: u32 = 128;
/// Pause between two sweep commands: sweeping only frees memory, and must not be felt.
pub const SWEEP_PAUSE: Duration = Duration::from_millis(5);
/// How often a node looks for sessions to sweep in shards whose leader it has become.
pub const SWEEP_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How often a leader compares its shards' limits with its configuration.
pub const RULES_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the leases are looked at.
pub const LEASE_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often a watched shard map is compared with the last one sent.
pub const SHARD_MAP_LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How often it is looked whether the log has failed.
pub const LOG_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Pause before a shard whose changes are followed is looked for again.
pub const EVENTS_RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How often gauges are brought up to date.
pub const GAUGE_INTERVAL: Duration = Duration::from_secs(5);
/// How often the leaders of shards that are not here are asked for.
pub const LEADERS_LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// The same while any shard moves.
pub const LEADERS_LOOK_WHILE_MOVING: Duration = Duration::from_millis(20);
/// The pause before they are asked again because something was sent to the wrong node.
pub const LEADERS_ASK_PAUSE: Duration = Duration::from_millis(10);
/// How long an answer to that may take.
pub const LEADERS_WAIT_MAX: Duration = Duration::from_millis(500);
/// How long a node may take to say how it is before it is taken to be down.
pub const STATUS_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often the mover looks at each move.
pub const MOVE_LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Moves under way at once in the whole cluster: each reads a shard on one node and writes it on another.
pub const MOVES_AT_ONCE_MAX: usize = 4;
/// Entries that a replica may lack when it gets a vote: about what is under way.
pub const CATCH_UP_ENTRIES_MAX: u64 = 64;
/// How many entries a replica may lack to be handed the leadership of a shard that moves: what is under way.
pub const HAND_OVER_ENTRIES_MAX: u64 = switchboard_raft::limits::BALANCE_ENTRIES_BEHIND_MAX;
/// How long a move may make no progress before it is said to be stalled.
pub const MOVE_STALLED_AFTER: Duration = Duration::from_secs(10);
/// How long something that is known may be in the way of a move before it is said to be stalled.
pub const MOVE_BLOCKED_AFTER: Duration = Duration::from_secs(2);
/// Voters of the meta group; further nodes get its entries without a vote.
pub const META_VOTERS_MAX: usize = 5;
/// What a retryable refusal suggests.
pub const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long calls may finish after a shutdown was asked for.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether the last task of a store that stopped is gone.
pub const FREE_LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Logins a second that all gateways together may make while no proposal waits, for each core of the node that
/// leads the meta group, unless its configuration says otherwise: some 30 us of the store each, so that most
/// of its cores is left for everybody else.
pub const LOGINS_PER_CORE_S: u32 = 10_000;
/// The same while as many proposals wait as may: some devices get in, whatever happens.
pub const RECONNECT_BUDGET_MIN_PER_S: u32 = 500;
/// Streams of one HTTP/2 connection.
pub const HTTP2_STREAMS_MAX: u32 = 4_096;
/// How often a silent connection is asked whether its peer is still there.
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);
/// Flow-control window of a stream and of a connection, in bytes.
pub const HTTP2_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// How long a connection to another node, and the opening of its stream, may take.
pub const PEER_CONNECT_WAIT_MAX: Duration = Duration::from_secs(2);
/// Pause between two times that the others are asked for the members of the cluster.
pub const BOOK_ASK_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two tries to reach another node. Short: a node that restarted is missed.
pub const PEER_DIAL_PAUSE: Duration = Duration::from_millis(100);
/// How often a silent connection to another node is asked whether its peer is still there.
pub const PEER_PING_INTERVAL: Duration = Duration::from_secs(1);
/// How long the answer may take before the connection is given up.
pub const PEER_PING_WAIT_MAX: Duration = Duration::from_secs(2);
/// Calls to one node that are not answered yet, on one link. Beyond it a call fails at once.
pub const LINK_CALLS_MAX: usize = 8_192;
/// Bytes of calls that wait on one link to be sent.
pub const LINK_BYTES_MAX: usize = 64 << 20;
/// A message between nodes takes further calls until it has so many bytes.
pub const PEER_MESSAGE_BYTES: usize = 1 << 20;
/// How long a request that was passed on may take.
pub const FORWARD_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a claim waits for the news of its gateway's registration.
pub const REGISTRATION_WAIT_MAX: Duration = Duration::from_secs(1);
/// Bytes of a snapshot in one message.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;
/// Chunks of a snapshot that are read or received ahead of their use.
pub const SNAPSHOT_CHUNKS_AHEAD_MAX: usize = 4;
/// How fast a snapshot is sent: the log and the entries share disk and network with it.
pub const SNAPSHOT_BYTES_PER_S: u64 = 64 << 20;
/// Bytes of a backup in one message.
pub const BACKUP_CHUNK_BYTES: usize = 256 << 10;
/// Messages of a backup that are read ahead of who takes them.
pub const BACKUP_CHUNKS_AHEAD_MAX: usize = 4;
/// How long who takes a backup may leave it lying: while a shard is read it is not checkpointed.
pub const BACKUP_STALL_MAX: Duration = Duration::from_secs(30);
/// How long a backup or a plan waits for a group's leader, and for this node to have what the leader has.
pub const READ_POINT_WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause between two tries to reach a group's leader.
pub const READ_POINT_PAUSE: Duration = Duration::from_millis(50);
/// Backups and verifications of a node at once: each reads all that there is.
pub const BACKUPS_MAX: usize = 1;
/// Probes of a node at once: two would measure each other.
pub const PROBES_MAX: usize = 1;
/// Syncs of a probe, unless it names a number.
pub const PROBE_SYNCS: u32 = 100;
/// Syncs of a probe that names one.
pub const PROBE_SYNCS_MAX: u32 = 1_000;
/// Calls of a probe to each other node.
pub const PROBE_CALLS: u32 = 50;
/// Pause before each sync and after each call of a probe: nobody is to feel it.
pub const PROBE_PAUSE: Duration = Duration::from_millis(20);
/// How often replicas are asked before it is said that no common index was seen.
pub const COMPARE_TRIES_MAX: u32 = 50;
/// Pause between two such questions.
pub const COMPARE_PAUSE: Duration = Duration::from_millis(50);
/// How often it is looked whether every group has a leader, before a member calls itself ready.
pub const READY_LOOK_INTERVAL: Duration = Duration::from_millis(20);

// A message ends with the call that makes it too large, and a call is an append or a request.
const _: () =
    assert!(PEER_MESSAGE_BYTES + 2 * limits::REQUEST_BYTES_MAX < limits::GRPC_MESSAGE_BYTES_MAX);
const _: () = assert!(LEADERS_ASK_PAUSE.as_millis() < LEADERS_LOOK_INTERVAL.as_millis());
const _: () = assert!(RECONNECT_BUDGET_MIN_PER_S <= LOGINS_PER_CORE_S);
const _: () = assert!(LINK_BYTES_MAX >= 2 * limits::REQUEST_BYTES_MAX);
const _: () = assert!(limits::REQUEST_BYTES_MAX < limits::GRPC_MESSAGE_BYTES_MAX);
const _: () = assert!(HTTP2_WINDOW_BYTES as usize >= limits::REQUEST_BYTES_MAX);
const _: () = assert!(LEASE_LOOK_INTERVAL.as_millis() * 4 <= limits::LEASE_MS_MIN as u128);
