//! What the services of one store process share.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use prost::Message;
use switchboard_api::{
    v1::{self, DeviceRef, ItemStatus},
    validate,
};
use switchboard_engine::{Clock, Reply};
use switchboard_process::Shutdown;
use switchboard_raft::{Group, Node, shard_of};
use tokio::sync::{Semaphore, watch};
use tonic::{Request, Status};

use crate::{
    batch::Answer, errors, events::SessionEvents, leaders::Leaders, leases::Leases, mover::Mover,
    peers::Peers,
};

/// One store node, as the gRPC services see it.
pub(crate) struct Service {
    pub(crate) node: Node,
    pub(crate) peers: Arc<Peers>,
    /// Held while a cluster is made, and while its members or its placement are changed.
    pub(crate) founding: tokio::sync::Mutex<()>,
    /// The number of shards of a cluster that is made here without naming one.
    pub(crate) shards_default: u32,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) leaders: Leaders,
    /// Logins a second that all gateways together may make while nothing waits.
    pub(crate) logins_per_s: u32,
    /// The shard map as of the last look at it.
    pub(crate) map: watch::Sender<v1::ShardMapResponse>,
    pub(crate) mover: Mover,
    pub(crate) leases: Leases,
    pub(crate) events: SessionEvents,
    /// One permit an open watch.
    pub(crate) watches: Arc<Semaphore>,
    /// One permit a backup or verification.
    pub(crate) backups: Arc<Semaphore>,
    /// One permit a probe.
    pub(crate) probes: Semaphore,
    /// The data directory.
    pub(crate) data: PathBuf,
    pub(crate) shutdown: Shutdown,
    /// Anyone may do what operators may.
    pub(crate) insecure: bool,
    pub(crate) started: tokio::time::Instant,
}

impl Service {
    /// The group that holds a user, if it has a replica here.
    pub(crate) fn group_of(&self, user: &[u8]) -> Result<Arc<Group>, Status> {
        self.node.shard_for(user).ok_or_else(|| match self.node.shard_count() {
            Some(count) => errors::no_leader(shard_of(user, count)),
            None => errors::not_initialized(),
        })
    }

    /// Until processes and operators have certificates, whoever is on this machine is an operator.
    pub(crate) fn is_operator<T>(&self, request: &Request<T>) -> bool {
        self.insecure || request.remote_addr().is_some_and(is_loopback)
    }

    /// Takes the place of one watch, for as long as the permit lives.
    pub(crate) fn watch_permit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Status> {
        let permit = Arc::clone(&self.watches).try_acquire_owned();
        permit.map_err(|_| errors::too_many_watchers(crate::limits::WATCHES_MAX))
    }
}

/// Checks a batch as a whole: how many items, how many bytes.
pub(crate) fn check_batch(request: &impl Message, items: usize) -> Result<(), Status> {
    validate::items(items)
        .and_then(|()| validate::request_bytes(request.encoded_len()))
        .map_err(|fault| errors::invalid(&fault))
}

/// The status of an item that has no reply of its kind.
pub(crate) fn failed(answer: &Answer) -> ItemStatus {
    match answer {
        Err(status) => *status,
        Ok(Reply::Done(status)) => errors::item(*status),
        Ok(_) => ItemStatus::Unavailable,
    }
}

/// The user of an item; one without a device is refused wherever it is looked at.
pub(crate) fn user_of(device: &Option<DeviceRef>) -> &[u8] {
    device.as_ref().map_or(&[], |device| &device.user)
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_an_operator() {
        for (address, expected) in [
            ("127.0.0.1:1", true),
            ("127.8.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", false),
            ("0.0.0.0:1", false),
        ] {
            assert_eq!(is_loopback(address.parse().unwrap()), expected, "{address}");
        }
    }
}
