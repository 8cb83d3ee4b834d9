//! The configuration of a store process.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use switchboard_api::limits as contract;
use switchboard_engine::{Formats, Rules};
use switchboard_process::{
    config::{Config, Faults},
    telemetry::LogConfig,
};

use crate::limits::LOGINS_PER_CORE_S;

/// Everything a store process can be told. Keys are those of its TOML file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreConfig {
    /// The data directory; made when it is missing. There is no default.
    pub data: PathBuf,
    /// The id of this node, 1 or more, never used twice in a cluster. Default 1.
    pub node_id: u64,
    /// Make a one-node cluster of this node at its first start. Default false.
    pub single: bool,
    /// The number of shards of a new cluster: a power of two, 1 to 4,096, fixed from then on.
    /// Default 16.
    pub shards: u32,
    /// Where gRPC is served. Default 127.0.0.1:7400; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The host:port at which others reach it; empty: the address bound.
    pub advertise: String,
    /// Where health, metrics and the status page are served. Default 127.0.0.1:7401.
    pub http: SocketAddr,
    /// Serve plain text beyond loopback, and let anyone do what operators may. Default false.
    pub insecure: bool,
    /// How long a gateway or chat process is taken for alive without a renewal, in ms. Default
    /// 10,000; 1,000 to 600,000.
    pub lease_ms: u64,
    /// Logins a second that all gateways together may make while nothing waits here, as they are told by the
    /// node that leads the meta group. Default 0: 10,000 for each of its cores; at most 1,000,000.
    pub logins_per_second: u32,
    /// Bytes of log that a shard writes between checkpoints. Default 64 MiB; 1 MiB to 16 GiB.
    pub checkpoint_bytes: u64,
    /// Bytes of log beyond which whoever pins the oldest segment is checkpointed. Default 1 GiB;
    /// 16 MiB to 1 TiB.
    pub log_bytes_max: u64,
    /// Size of a log segment. Default 64 MiB; 4 MiB to 256 MiB.
    pub segment_bytes: u64,
    /// The limits of new shards.
    pub limits: LimitsConfig,
    /// What the process says on standard error.
    pub log: LogConfig,
    /// The formats that the node reads: those of this build, and no matter of configuration.
    #[serde(skip)]
    pub formats: Formats,
}

/// Limits of mailboxes, devices and dedup. They are part of the replicated state of a shard: a change
/// here is proposed to every shard at the next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsConfig {
    /// Messages in a mailbox. Default 10,000; 10 to 1,000,000.
    pub mailbox_messages_max: u32,
    /// Bytes of bodies in a mailbox. Default 64 MiB; 64 KiB to 16 GiB.
    pub mailbox_bytes_max: u64,
    /// Devices of a user, the primary included. Default and maximum 16.
    pub devices_max: u16,
    /// The default and longest time that a message waits, in ms. Default and maximum 30 days.
    pub ttl_ms_max: u64,
    /// How far back a repeated message id is recognised, in ms of log time. Default 10 minutes.
    pub dedup_horizon_ms: u64,
    /// Message ids that a shard remembers. Default 1,000,000; 1,000 to 100,000,000.
    pub dedup_ids_max: u32,
    /// What becomes of a message whose mailbox is full: false, it is refused (MAILBOX_FULL); true, the
    /// oldest messages there are dropped, though their senders were told that they are safe. Default
    /// false.
    pub mailbox_drop_oldest: bool,
    /// Commands that wait for a shard before callers are told to come back. Default 8,192.
    pub waiting_items_max: usize,
    /// Bytes that wait for a shard before callers are told to come back. Default 32 MiB.
    pub waiting_bytes_max: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::new(),
            node_id: 1,
            single: false,
            shards: contract::SHARDS_DEFAULT,
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            advertise: String::new(),
            http: SocketAddr::from(([127, 0, 0, 1], 7401)),
            insecure: false,
            lease_ms: contract::LEASE_MS,
            logins_per_second: 0,
            checkpoint_bytes: switchboard_raft::limits::CHECKPOINT_BYTES,
            log_bytes_max: switchboard_raft::limits::LOG_BYTES_MAX,
            segment_bytes: 64 << 20,
            limits: LimitsConfig::default(),
            // openraft tells every election of every group at INFO.
            log: LogConfig { filter: "info,openraft=error".to_owned(), ..LogConfig::default() },
            formats: Formats::OF_THIS_BUILD,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let rules = Rules::default();
        Self {
            mailbox_messages_max: rules.mailbox_messages_max,
            mailbox_bytes_max: rules.mailbox_bytes_max,
            devices_max: rules.devices_max,
            ttl_ms_max: rules.ttl_ms_max,
            dedup_horizon_ms: rules.dedup_horizon_ms,
            dedup_ids_max: rules.dedup_ids_max,
            mailbox_drop_oldest: rules.drop_oldest,
            waiting_items_max: switchboard_raft::limits::WAITING_ITEMS_MAX,
            waiting_bytes_max: switchboard_raft::limits::WAITING_BYTES_MAX,
        }
    }
}

impl StoreConfig {
    /// What `logins_per_second` comes to on this machine.
    pub(crate) fn logins_per_s(&self) -> u32 {
        if self.logins_per_second > 0 {
            return self.logins_per_second;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        LOGINS_PER_CORE_S.saturating_mul(u32::try_from(cores).unwrap_or(1))
    }
}

impl LimitsConfig {
    /// The part that is replicated.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            mailbox_messages_max: self.mailbox_messages_max,
            mailbox_bytes_max: self.mailbox_bytes_max,
            devices_max: self.devices_max,
            ttl_ms_max: self.ttl_ms_max,
            dedup_horizon_ms: self.dedup_horizon_ms,
            dedup_ids_max: self.dedup_ids_max,
            drop_oldest: self.mailbox_drop_oldest,
            ..Rules::default()
        }
    }

    fn validate(&self, faults: &mut Faults) {
        let key = |name: &str| format!("limits.{name}");
        faults.check_range(&key("mailbox_messages_max"), self.mailbox_messages_max, 10, 1_000_000);
        let (min, max) = (contract::BODY_BYTES_MAX as u64, 16 << 30);
        faults.check_range(&key("mailbox_bytes_max"), self.mailbox_bytes_max, min, max);
        let devices_max = contract::DEVICES_PER_USER_MAX as u16;
        faults.check_range(&key("devices_max"), self.devices_max, 1, devices_max);
        faults.check_range(&key("ttl_ms_max"), self.ttl_ms_max, 1_000, contract::TTL_MS_MAX);
        let day_ms = 24 * 60 * 60 * 1000;
        faults.check_range(&key("dedup_horizon_ms"), self.dedup_horizon_ms, 1_000, day_ms);
        faults.check_range(&key("dedup_ids_max"), self.dedup_ids_max, 1_000, 100_000_000);
        let items_min = contract::ITEMS_PER_BATCH_MAX;
        faults.check_range(&key("waiting_items_max"), self.waiting_items_max, items_min, 1 << 20);
        let bytes_min = contract::REQUEST_BYTES_MAX;
        faults.check_range(&key("waiting_bytes_max"), self.waiting_bytes_max, bytes_min, 1 << 30);
    }
}

impl Config for StoreConfig {
    fn validate(&self, faults: &mut Faults) {
        let has_data = !self.data.as_os_str().is_empty();
        faults.check(has_data, "data", "is missing: name the data directory (--data DIR)");
        faults.check_range("node_id", self.node_id, 1, u64::from(u32::MAX));
        faults.check_range("shards", self.shards, 1, contract::SHARDS_MAX);
        faults.check(
            self.shards.is_power_of_two(),
            "shards",
            &format!("is {}; it must be a power of two", self.shards),
        );
        faults.check_plain_text("listen", self.listen, self.insecure);
        faults.check_plain_text("http", self.http, self.insecure);
        faults.check_range("lease_ms", self.lease_ms, contract::LEASE_MS_MIN, 600_000);
        faults.check_range("logins_per_second", self.logins_per_second, 0, 1_000_000);
        faults.check_range("checkpoint_bytes", self.checkpoint_bytes, 1 << 20, 16 << 30);
        faults.check_range("log_bytes_max", self.log_bytes_max, 16 << 20, 1 << 40);
        faults.check_range(
            "segment_bytes",
            self.segment_bytes,
            switchboard_raft::limits::SEGMENT_BYTES_MIN,
            256 << 20,
        );
        self.limits.validate(faults);
        self.log.validate("log", faults);
    }
}
