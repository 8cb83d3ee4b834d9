//! What the tests of a node share: a simulated disk, commands, and looks into a shard.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::sync::Arc;

use bytes::Bytes;
use switchboard_engine::command::{Ack, Claim, Enqueue};
use switchboard_engine::fs::sim::SimFiles;
use switchboard_engine::{Command, DeviceId, LogId, ManualClock, MessageKind, Reply, Status};
use switchboard_raft::{Group, Node, NodeOptions};

/// The time at which every test begins.
pub const START_MS: u64 = 1_700_000_000_000;

/// A disk whose accidents follow from `seed`.
pub fn sim(seed: u64) -> SimFiles {
    SimFiles::new(seed)
}

pub fn options(disk: &SimFiles) -> NodeOptions {
    let mut options = NodeOptions::new("/data", 1, "127.0.0.1:7400");
    options.files = Arc::new(disk.clone());
    options.clock = Arc::new(ManualClock::at_unix_ms(START_MS));
    // The simulated disk is memory.
    options.log.segment_bytes = switchboard_raft::limits::SEGMENT_BYTES_MIN;
    options
}

pub async fn open(disk: &SimFiles) -> Node {
    Node::open(options(disk)).await.expect("opens")
}

pub fn claim(user: &str, connection_id: u64) -> Command {
    Command::Claim(Claim {
        device: device(user),
        gateway_id: 1,
        incarnation: 1,
        connection_id,
        push_token: Bytes::new(),
    })
}

pub fn enqueue(user: &str, number: u64, body: &str) -> Command {
    let mut message_id = [0; 16];
    message_id[..8].copy_from_slice(&number.to_le_bytes());
    Command::Enqueue(Enqueue {
        to_user: Bytes::copy_from_slice(user.as_bytes()),
        to_device: 1,
        message_id,
        from: DeviceId::new("sender", 1),
        ttl_ms: 0,
        kind: MessageKind::Content,
        body: Bytes::copy_from_slice(body.as_bytes()),
    })
}

pub fn ack(user: &str, up_to_seq: u64) -> Command {
    Command::Ack(Ack { device: device(user), epoch: 0, up_to_seq, seqs: Vec::new() })
}

pub fn device(user: &str) -> DeviceId {
    DeviceId::new(user.as_bytes().to_vec(), 1)
}

pub fn status(reply: &Reply) -> Status {
    match reply {
        Reply::Done(status) | Reply::Ended(status) => *status,
        Reply::Claimed(reply) => reply.status,
        Reply::Released(reply) => reply.status,
        Reply::Unregistered(reply) => reply.status,
        Reply::Swept(_) => Status::Ok,
        Reply::Enqueued(reply) => reply.status,
        Reply::Acked(reply) => reply.status,
        Reply::Purged(reply) => reply.status,
        Reply::Registered(reply) => reply.status,
    }
}

/// The hash of a group's contents. The entry that a new leader begins its term with is in no
/// content, so the log id is left out.
pub fn contents(group: &Group) -> u128 {
    let (_, hash): (LogId, u128) = group.shard().state_hash();
    hash
}

fn page(group: &Group, user: &str) -> Vec<(u64, String)> {
    let page = group.shard().fetch(&device(user), 0, 1_000, 1 << 20).expect("readable");
    page.messages
        .iter()
        .map(|message| (message.seq, String::from_utf8_lossy(&message.body).into_owned()))
        .collect()
}

/// The seqs that wait in a user's mailbox.
pub fn seqs(group: &Group, user: &str) -> Vec<u64> {
    page(group, user).into_iter().map(|(seq, _)| seq).collect()
}

/// The bodies that wait in a user's mailbox.
pub fn bodies(group: &Group, user: &str) -> Vec<String> {
    page(group, user).into_iter().map(|(_, body)| body).collect()
}
