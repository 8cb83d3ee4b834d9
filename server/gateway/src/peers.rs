//! The connections of this gateway, by id, and the events that other tasks have for them.
//!
//! What others know of a connection is a [`Peer`]; its task alone owns the conversation. Invariants:
//! a peer is in the table from before its claim until its task ends, so that a push that follows
//! the claim at once finds it; events are bounded, and a push beyond the bound is remembered by its
//! seq, which makes a fetch.
//!
//! A gateway holds a peer for every idle connection, so it is kept small: two lines of the processor's cache.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use switchboard_api::{
    device::v1::redirect::Reason,
    v1::{DeviceRef, ItemStatus, Message, release_request},
};
use tokio::sync::{Notify, futures::Notified};

use crate::{delivery::Page, gateway::now, limits::PUSHES_WAITING_MAX, outcome::Outcome};

/// Shards of the table, so that connections do not wait for each other.
const SHARDS: usize = 64;

/// Milliseconds on the clock of a table. They wrap after seven weeks, so only what is near can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(NonZeroU32);

impl Moment {
    fn after(elapsed: Duration) -> Self {
        let wrapped = (elapsed.as_millis() % (1 << 32)) as u32;
        Self(NonZeroU32::new(wrapped).unwrap_or(NonZeroU32::MIN))
    }

    /// Nothing if that is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let apart = self.0.get().wrapping_sub(earlier.0.get()) as i32;
        Duration::from_millis(u64::try_from(apart).unwrap_or(0))
    }
}

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
    /// The session with this epoch has been replaced. `gone`: by a connection that is no more.
    Replaced { epoch: u64, gone: bool },
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
    user: Box<[u8]>,
    device: u32,
    /// Under which the session was claimed.
    pub(crate) incarnation: u64,
    /// 0 until the claim is answered.
    epoch: AtomicU64,
    high: AtomicU64,
    /// A [`Moment`]: when something was heard of the device last.
    heard_at: AtomicU32,
    /// It was told to leave.
    leaves: AtomicBool,
    /// None while nothing has come. A lock, since many tasks add and one takes; held for a few instructions.
    queue: Mutex<Option<Box<Queue>>>,
    changed: Notify,
}

impl Peer {
    fn new(connection_id: u64, device: &DeviceRef, incarnation: u64, now: Moment) -> Self {
        Self {
            connection_id,
            user: device.user.as_ref().into(),
            device: device.device,
            incarnation,
            epoch: AtomicU64::new(0),
            high: AtomicU64::new(0),
            heard_at: AtomicU32::new(now.0.get()),
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

    /// Its session, as it is released.
    pub(crate) fn session(&self) -> release_request::Item {
        release_request::Item { device: Some(self.device()), epoch: self.epoch() }
    }

    /// A copy of the device's name.
    pub(crate) fn device(&self) -> DeviceRef {
        DeviceRef { user: Bytes::copy_from_slice(&self.user), device: self.device }
    }

    pub(crate) fn is_of(&self, device: &DeviceRef) -> bool {
        self.device == device.device && *self.user == device.user[..]
    }

    /// Something was heard of the device.
    pub(crate) fn set_heard(&self, now: Moment) {
        self.heard_at.store(now.0.get(), Ordering::Relaxed);
    }

    /// For how long nothing was heard of the device.
    pub(crate) fn silent_for(&self, now: Moment) -> Duration {
        let heard_at = NonZeroU32::new(self.heard_at.load(Ordering::Relaxed));
        now.since(Moment(heard_at.unwrap_or(NonZeroU32::MIN)))
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
        self.queue.lock().get_or_insert_default().arrived.events.push_back(event);
        self.changed.notify_one();
    }

    /// A push for a session of this connection; whether it is for the current one, as far as known.
    pub(crate) fn push(&self, epoch: u64, message: Message) -> bool {
        let current = self.epoch();
        if current != 0 && current != epoch {
            return false;
        }
        let mut waiting = self.queue.lock();
        let queue = waiting.get_or_insert_default();
        if queue.pushes >= PUSHES_WAITING_MAX {
            queue.arrived.heard = queue.arrived.heard.max(message.seq);
        } else {
            queue.pushes += 1;
            queue.arrived.events.push_back(Event::Push { epoch, message });
        }
        drop(waiting);
        self.changed.notify_one();
        true
    }

    /// Something was stored at this seq.
    pub(crate) fn heard(&self, seq: u64) {
        let mut waiting = self.queue.lock();
        let queue = waiting.get_or_insert_default();
        queue.arrived.heard = queue.arrived.heard.max(seq);
        drop(waiting);
        self.changed.notify_one();
    }

    /// Everything that came; gives the queue's memory away, since most connections are idle.
    pub(crate) fn take(&self) -> Arrived {
        let queue = self.queue.lock().take();
        queue.map(|queue| queue.arrived).unwrap_or_default()
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
    /// When its clock began.
    began: Instant,
}

impl Default for Peers {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, next_id: AtomicU64::new(1), began: now() }
    }
}

impl Peers {
    /// Adds a connection under a fresh id.
    pub(crate) fn add(&self, device: &DeviceRef, incarnation: u64) -> Arc<Peer> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let peer = Arc::new(Peer::new(id, device, incarnation, self.moment()));
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

    /// The time on its clock.
    pub(crate) fn moment(&self) -> Moment {
        Moment::after(now().saturating_duration_since(self.began))
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
    fn an_idle_connection_is_two_cache_lines_to_others() {
        // With the two counts of an `Arc`.
        assert!(size_of::<Peer>() + 16 <= 128, "{}", size_of::<Peer>());
    }

    #[test]
    fn moments_are_compared_across_the_end_of_their_clock() {
        let at = |ms: u64| Moment::after(Duration::from_millis(ms));
        assert_eq!(at(1_500).since(at(500)), Duration::from_secs(1));
        assert_eq!(at(500).since(at(1_500)), Duration::ZERO);
        assert_eq!(at((1 << 32) + 500).since(at((1 << 32) - 500)), Duration::from_secs(1));
        assert_eq!(at((1 << 32) - 500).since(at((1 << 32) + 500)), Duration::ZERO);
        assert_eq!(at(0), at(1), "no moment is zero");
    }

    #[test]
    fn a_peer_is_of_its_device_only() {
        let peers = Peers::default();
        let device = DeviceRef { user: "bob".into(), device: 7 };
        let peer = peers.add(&device, 1);
        assert!(peer.is_of(&device) && peer.device() == device);
        assert!(!peer.is_of(&DeviceRef { device: 8, ..device.clone() }));
        assert!(!peer.is_of(&DeviceRef { user: "bobby".into(), ..device }));
    }

    #[test]
    fn pushes_beyond_the_bound_are_heard_of() {
        let peers = Peers::default();
        let peer = peers.add(&DeviceRef::default(), 1);
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
        let peer = peers.add(&DeviceRef::default(), 1);
        assert!(peer.push(4, message(1)));
        peer.set_epoch(5);
        assert!(!peer.push(4, message(2)));
        assert!(peers.get(peer.connection_id).is_some());
        peers.remove(peer.connection_id);
        assert_eq!(peers.len(), 0);
    }
}
