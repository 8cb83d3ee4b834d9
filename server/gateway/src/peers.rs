//! The connections of this gateway, by id, and the events that other tasks have for them.
//!
//! What others know of a connection is a [`Peer`]; its task alone owns the conversation. Invariants:
//! a peer is in the table from before its claim until its task ends, so that a push that follows
//! the claim at once finds it; events are bounded, and a push beyond the bound is remembered by its
//! seq, which makes a fetch.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use switchboard_api::{
    device::v1::redirect::Reason,
    v1::{DeviceRef, ItemStatus, Message},
};
use tokio::sync::{Notify, futures::Notified};

use crate::{delivery::Page, gateway::now, limits::PUSHES_WAITING_MAX, outcome::Outcome};

/// Shards of the table, so that connections do not wait for each other.
const SHARDS: usize = 64;

/// Something for a connection's task.
#[derive(Debug)]
pub(crate) enum Event {
    /// A push, with the epoch it is meant for.
    Push { epoch: u64, message: Message },
    /// A fetch was answered, or failed.
    Page { id: u64, page: Option<Page> },
    /// A chat answered.
    Routed { id: u64, outcome: Outcome },
    /// The store answered an ack.
    Acked { id: u64, status: ItemStatus },
    /// The session with this epoch has been replaced.
    Replaced { epoch: u64 },
    /// Nothing was heard of the device for too long.
    Silent,
    /// The device is sent away.
    Leave { reason: Reason, retry_after_ms: u64 },
}

/// What came since the task looked last.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    pub(crate) events: VecDeque<Event>,
    /// The highest seq that was stored and is not among the events; 0: none.
    pub(crate) heard: u64,
}

#[derive(Debug, Default)]
struct Queue {
    arrived: Arrived,
    pushes: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) connection_id: u64,
    pub(crate) device: DeviceRef,
    /// Under which the session was claimed.
    pub(crate) incarnation: u64,
    /// 0 until the claim is answered.
    epoch: AtomicU64,
    high: AtomicU64,
    /// When the connection was made, and how many milliseconds later something was heard last.
    since: Instant,
    heard_after_ms: AtomicU64,
    /// It was told to leave.
    leaves: AtomicBool,
    /// A lock, since many tasks add and one takes; held for a few instructions.
    queue: Mutex<Queue>,
    changed: Notify,
}

impl Peer {
    pub(crate) fn new(connection_id: u64, device: DeviceRef, incarnation: u64) -> Self {
        Self {
            connection_id,
            device,
            incarnation,
            epoch: AtomicU64::new(0),
            high: AtomicU64::new(0),
            since: now(),
            heard_after_ms: AtomicU64::new(0),
            leaves: AtomicBool::new(false),
            queue: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Something was heard of the device.
    pub(crate) fn set_heard(&self, now: Instant) {
        let after = now.saturating_duration_since(self.since).as_millis();
        self.heard_after_ms.store(u64::try_from(after).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When the connection was made.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// When something was heard of the device last.
    pub(crate) fn heard_at(&self) -> Instant {
        self.since + Duration::from_millis(self.heard_after_ms.load(Ordering::Relaxed))
    }

    /// The highest seq written, as of a moment ago.
    pub(crate) fn high(&self) -> u64 {
        self.high.load(Ordering::Relaxed)
    }

    pub(crate) fn was_told_to_leave(&self) -> bool {
        self.leaves.load(Ordering::Relaxed)
    }

    pub(crate) fn set_high(&self, high: u64) {
        self.high.store(high, Ordering::Relaxed);
    }

    pub(crate) fn tell(&self, event: Event) {
        if matches!(event, Event::Leave { .. }) {
            self.leaves.store(true, Ordering::Relaxed);
        }
        self.queue.lock().arrived.events.push_back(event);
        self.changed.notify_one();
    }

    /// A push for a session of this connection; whether it is for the current one, as far as known.
    pub(crate) fn push(&self, epoch: u64, message: Message) -> bool {
        let current = self.epoch();
        if current != 0 && current != epoch {
            return false;
        }
        let mut queue = self.queue.lock();
        if queue.pushes >= PUSHES_WAITING_MAX {
            queue.arrived.heard = queue.arrived.heard.max(message.seq);
        } else {
            queue.pushes += 1;
            queue.arrived.events.push_back(Event::Push { epoch, message });
        }
        drop(queue);
        self.changed.notify_one();
        true
    }

    /// Something was stored at this seq.
    pub(crate) fn heard(&self, seq: u64) {
        let mut queue = self.queue.lock();
        queue.arrived.heard = queue.arrived.heard.max(seq);
        drop(queue);
        self.changed.notify_one();
    }

    /// Everything that came; gives the queue's memory away, since most connections are idle.
    pub(crate) fn take(&self) -> Arrived {
        let mut queue = self.queue.lock();
        queue.pushes = 0;
        std::mem::take(&mut queue.arrived)
    }

    /// Resolves when something came since the last call of [`Peer::take`].
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Peers {
    shards: Vec<Mutex<HashMap<u64, Arc<Peer>>>>,
    next_id: AtomicU64,
}

impl Default for Peers {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, next_id: AtomicU64::new(1) }
    }
}

impl Peers {
    /// Adds a connection under a fresh id.
    pub(crate) fn add(&self, device: DeviceRef, incarnation: u64) -> Arc<Peer> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let peer = Arc::new(Peer::new(id, device, incarnation));
        self.shard(id).lock().insert(id, peer.clone());
        peer
    }

    pub(crate) fn remove(&self, connection_id: u64) {
        let mut shard = self.shard(connection_id).lock();
        shard.remove(&connection_id);
        if shard.capacity() > 1_024 && shard.len() < shard.capacity() / 4 {
            shard.shrink_to_fit();
        }
    }

    pub(crate) fn get(&self, connection_id: u64) -> Option<Arc<Peer>> {
        self.shard(connection_id).lock().get(&connection_id).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// All of them, one shard at a time: none is locked while `each` runs.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&Arc<Peer>)) {
        for shard in &self.shards {
            let peers: Vec<Arc<Peer>> = shard.lock().values().cloned().collect();
            peers.iter().for_each(&mut each);
        }
    }

    fn shard(&self, connection_id: u64) -> &Mutex<HashMap<u64, Arc<Peer>>> {
        let at = usize::try_from(connection_id % SHARDS as u64).unwrap_or(0);
        &self.shards[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(seq: u64) -> Message {
        Message { seq, ..Message::default() }
    }

    #[test]
    fn pushes_beyond_the_bound_are_heard_of() {
        let peers = Peers::default();
        let peer = peers.add(DeviceRef::default(), 1);
        for seq in 1..=200 {
            assert!(peer.push(5, message(seq)));
        }
        let arrived = peer.take();
        assert_eq!((arrived.events.len(), arrived.heard), (PUSHES_WAITING_MAX, 200));
        assert!(peer.take().events.is_empty());
    }

    #[test]
    fn a_push_for_another_epoch_is_refused_once_the_epoch_is_known() {
        let peers = Peers::default();
        let peer = peers.add(DeviceRef::default(), 1);
        assert!(peer.push(4, message(1)));
        peer.set_epoch(5);
        assert!(!peer.push(4, message(2)));
        assert!(peers.get(peer.connection_id).is_some());
        peers.remove(peer.connection_id);
        assert_eq!(peers.len(), 0);
    }
}
