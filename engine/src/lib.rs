#![doc = include_str!("../README.md")]
//! # How it is built
//!
//! What goes in is a log of [`Command`]s, what comes out are [`Reply`]s; everything between is a pure
//! function, so that two replicas that apply the same log hold the same state. The engine is
//! synchronous and deterministic: it knows no network, no async runtime and no Raft, and it reads no
//! clock and no randomness while applying. Time arrives as the stamp of an entry.

#![deny(unsafe_code)]

pub mod backup;
mod bodies;
mod checkpoint;
mod clock;
mod codec;
pub mod command;
mod device;
mod format;
pub mod fs;
mod id_files;
pub mod limits;
pub mod log;
mod log_id;
#[cfg(not(feature = "planted-bugs"))]
mod planted;
#[cfg(feature = "planted-bugs")]
pub mod planted;
mod position;
mod reply;
pub mod scrub;
mod sections;
mod shard;
mod state;
mod store;

pub use bodies::BodyError;
pub use checkpoint::CheckpointMeta;
pub use clock::{Clock, ManualClock, SystemClock};
pub use codec::DecodeError;
pub use command::{
    Ack, BeginMoves, Claim, Command, EndIncarnation, EndMove, Enqueue, EntryBuilder, EntryReader,
    GatewayKind, Init, InitCluster, MessageKind, MoveEnd, MoveStep, NodeState, NoteMove, Purge,
    PushError, RaiseFormat, ReadmitNode, RegisterGateway, Release, ReplicaMove, Rules, SetNode,
    SetNodeState, SetPlacement, Sweep, Unregister,
};
pub use device::{ALL_DEVICES, DeviceId, PRIMARY_DEVICE, Session, is_valid_user};
pub use format::{FORMAT_NEWEST, FORMAT_OLDEST, Formats};
pub use log_id::{EntryPayload, GroupId, LogId, META_GROUP, group_of_shard};
pub use position::Position;
pub use reply::{
    Acked, Claimed, Enqueued, Purged, Registered, Released, Reply, Status, Stored, Swept,
    Unregistered,
};
pub use sections::SectionError;
pub use shard::{
    CheckpointError, CheckpointLoadError, ExportError, ExportHeader, FetchError, ImportError, Page,
    Restoration, Shard, ShardOpenError, ShardOptions, StoredMessage,
};
pub use state::{
    ApplyError, ClusterInfo, GatewayInfo, Located, LocatedOne, MailboxStat, MetaState, Move,
    NodeInfo, NodeRole, Placement, SessionRecord, ShardStats,
};
pub use store::{Options, Store, StoreError, StoreOpenError};
