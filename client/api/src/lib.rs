//! The wire contract of Switchboard: protobuf types, gRPC stubs, validation and sharding.
//!
//! Nothing here opens a connection: see `switchboard-sdk` for a client of the store and
//! `switchboard-device` for one of the gateway.

#![forbid(unsafe_code)]

mod ahead;
pub mod frame;
pub mod limits;
pub mod own_copy;
mod shard;
pub mod validate;

pub use ahead::{Ahead, LocateStreamResponse};
pub use shard::shard_of;

/// Generated code and descriptors of the package `switchboard.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod v1 {
    tonic::include_proto!("switchboard.v1");
}

/// Generated code of the device protocol, package `switchboard.device.v1`.
pub mod device {
    /// Version 1.
    #[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
    pub mod v1 {
        tonic::include_proto!("switchboard.device.v1");
    }
}

/// The encoded `FileDescriptorSet` of both packages, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
