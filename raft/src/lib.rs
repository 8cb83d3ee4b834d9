//! Replication: openraft groups on the engine's log.
//!
//! A [`Node`] has one log and many [`Group`]s, each a Raft replica of one shard (group 0 is the meta
//! group). Commands go in by [`Group::propose`], reads go to [`Group::shard`] after a
//! [`Group::barrier`]. openraft is seen in this crate only; what leaves it are engine types.
//!
//! This crate knows no gRPC and no protobuf: a [`Transport`] carries requests between nodes.
//!
//! ```text
//!                    Node
//!   ┌─────────────────┼──────────────────┐
//!  Group 0  …       Group n          ticker, checkpointer
//!   │ Proposer ─▶ openraft ─▶ LogStore ─▶ Log ─▶ disk
//!   │                │
//!   └── Shard ◀── StateMachine
//! ```

#![forbid(unsafe_code)]

mod admission;
mod barrier;
mod blocking;
mod checkpointer;
mod clocks;
#[cfg(test)]
mod cluster_tests;
mod codec;
mod error;
mod founding;
mod freshness;
mod gathering;
mod group;
mod health;
mod initialize;
pub mod limits;
mod log_store;
mod log_time;
mod membership;
#[cfg(test)]
mod membership_tests;
mod network;
mod newcomer;
mod node;
mod opener;
mod options;
mod peer;
mod placing;
pub mod planted;
mod proposer;
#[cfg(test)]
mod readmission_tests;
mod readmitting;
mod restoring;
pub mod settings;
mod shard_of;
#[cfg(feature = "simulation")]
pub mod simulation;
mod snapshot;
mod state_machine;
mod status;
#[cfg(test)]
mod storage_suite;
mod ticker;
mod transfer;
mod types;
mod wire;

pub use barrier::Consistency;
pub use error::{
    BarrierError, FoundError, GroupOpenError, InitializeError, MembershipError, NodeFailure,
    NodeOpenError, OverloadReason, Overloaded, ProposeError, TransferError, WaitError,
};
pub use founding::Member;
pub use group::Group;
pub use membership::CatchUp;
pub use network::{NoPeers, PeerRequest, PeerResponse, Transport, TransportError};
pub use node::Node;
pub use options::NodeOptions;
pub use peer::ReceiveError;
pub use proposer::{Proposed, ProposerStats};
pub use restoring::{
    RestoreError, RestoreOptions, Restored, Verified, VerifyError, restore, verify,
};
pub use shard_of::shard_of;
pub use snapshot::{PartialSnapshot, SnapshotFile};
pub use state_machine::Applied;
pub use status::{GroupStatus, Role, Staleness};
pub use types::{NodeId, RaftVote};
pub use wire::{WireError, decode_vote, encode_vote};
