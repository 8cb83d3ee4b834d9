//! What a node is opened with.

use std::path::PathBuf;
use std::sync::Arc;

use switchboard_engine::command::Rules;
use switchboard_engine::fs::{Files, RealFiles};
use switchboard_engine::log::LogOptions;
use switchboard_engine::{Clock, Formats, ShardOptions, SystemClock};

use crate::error::NodeOpenError;
use crate::limits;
use crate::network::{NoPeers, Transport};
use crate::types::NodeId;

/// What a node is opened with.
#[derive(Clone)]
#[non_exhaustive]
pub struct NodeOptions {
    /// Where everything lives; made if it is missing.
    pub data_dir: PathBuf,
    /// The id of this node, never used twice in a cluster.
    pub node_id: NodeId,
    /// Where other nodes and clients reach its gRPC service.
    pub address: String,
    /// The clocks; the system's by default.
    pub clock: Arc<dyn Clock>,
    /// The disk; the system's by default.
    pub files: Arc<dyn Files>,
    /// The way to other nodes; by default there are none.
    pub transport: Arc<dyn Transport>,
    /// The limits that new shards start with.
    pub rules: Rules,
    /// Options of the log.
    pub log: LogOptions,
    /// Options of each group's state.
    pub shard: ShardOptions,
    /// Commands that may wait for a group's proposer.
    pub waiting_items_max: usize,
    /// Bytes that may wait for a group's proposer.
    pub waiting_bytes_max: usize,
    /// Bytes of log that a group writes between checkpoints.
    pub checkpoint_bytes: u64,
    /// Bytes of log beyond which whoever pins the oldest segment is checkpointed.
    pub log_bytes_max: u64,
    /// The formats that this node reads; by default what this build does.
    pub formats: Formats,
}

impl NodeOptions {
    /// The defaults, for a node of this id and address on the system's disk.
    pub fn new(data_dir: impl Into<PathBuf>, node_id: NodeId, address: impl Into<String>) -> Self {
        Self {
            data_dir: data_dir.into(),
            node_id,
            address: address.into(),
            clock: Arc::new(SystemClock::new()),
            files: Arc::new(RealFiles),
            transport: Arc::new(NoPeers),
            rules: Rules::default(),
            log: LogOptions::default(),
            shard: ShardOptions::default(),
            waiting_items_max: limits::WAITING_ITEMS_MAX,
            waiting_bytes_max: limits::WAITING_BYTES_MAX,
            checkpoint_bytes: limits::CHECKPOINT_BYTES,
            log_bytes_max: limits::LOG_BYTES_MAX,
            formats: Formats::OF_THIS_BUILD,
        }
    }
}

impl std::fmt::Debug for NodeOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeOptions")
            .field("data_dir", &self.data_dir)
            .field("node_id", &self.node_id)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Refuses options under which a full entry would not fit the log: it takes a quarter of a segment.
pub(crate) fn check(options: &NodeOptions) -> Result<(), NodeOpenError> {
    let bytes_min = limits::SEGMENT_BYTES_MIN;
    if options.log.segment_bytes < bytes_min {
        let why = format!("segments of a node have at least {bytes_min} bytes");
        return Err(NodeOpenError::Options { option: "log.segment_bytes", why });
    }
    Ok(())
}
