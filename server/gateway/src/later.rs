//! When a connection is woken for what came for it.
//!
//! Waking a connection, and each write to its socket, costs more than most of the frames that are written. So
//! events gather: under load as long as a small part of what a message takes anyway, and always if no device
//! waits for them. A message that takes a millisecond is handed on at once; one that takes half a second waits a
//! few hundredths of that for others to share its write. As with a group commit, batches grow with the load.
//!
//! ```text
//!   push, answer ─▶ latency low?  ── yes ─▶ wake the connection
//!                         └─ no ──▶ list ──── a part of the latency later ──▶ wake all that are listed
//!   acknowledged ───────────────────▶ (no device waits for it)
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use switchboard_api::v1::Message;
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    limits::{EVENTS_LATER_WAIT, GATHER_MAX, GATHER_MIN, GATHER_PART},
    peers::{Event, Peer},
};

/// The weight of a new latency in the mean, as its divisor.
const SMOOTHING: u32 = 8;

/// Connections with events, and how long these gather.
#[derive(Debug, Default)]
pub(crate) struct Later {
    /// A lock, since many tasks add and one takes; held to add one.
    waiting: Mutex<Vec<Arc<Peer>>>,
    some: Notify,
    /// Mean of how long sends took lately, microseconds.
    latency_us: AtomicU32,
}

impl Later {
    /// Wakes connections until `stop`.
    pub(crate) fn start(stop: CancellationToken) -> Arc<Self> {
        let later = Arc::new(Self::default());
        let waking = later.clone();
        tokio::spawn(async move { stop.run_until_cancelled(waking.run()).await });
        later
    }

    /// A send was answered after so long.
    pub(crate) fn note(&self, latency: Duration) {
        let latency = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        let mean = self.latency_us.load(Ordering::Relaxed);
        // Notes of several streams may overwrite each other: it is a mean of many.
        let mean = mean - mean / SMOOTHING + latency / SMOOTHING;
        self.latency_us.store(mean, Ordering::Relaxed);
    }

    /// How long events gather that devices wait for; none while messages are quick.
    fn gathers(&self) -> Option<Duration> {
        let latency = Duration::from_micros(self.latency_us.load(Ordering::Relaxed).into());
        let part = latency / GATHER_PART;
        (part >= GATHER_MIN).then(|| part.min(GATHER_MAX))
    }

    /// Adds an event that the device waits for.
    pub(crate) fn tell(&self, peer: &Arc<Peer>, event: Event) {
        match self.gathers() {
            None => peer.tell(event),
            Some(_) => self.tell_idly(peer, event),
        }
    }

    /// Adds an event that no device waits for.
    pub(crate) fn tell_idly(&self, peer: &Arc<Peer>, event: Event) {
        peer.add(event);
        self.list(peer);
    }

    /// Hands a push over; whether it is for the current session, as far as known.
    pub(crate) fn push(&self, peer: &Arc<Peer>, epoch: u64, message: Message) -> bool {
        let taken = peer.add_push(epoch, message);
        if taken {
            match self.gathers() {
                None => peer.wake(),
                Some(_) => self.list(peer),
            }
        }
        taken
    }

    fn list(&self, peer: &Arc<Peer>) {
        if !peer.is_newly_listed() {
            return;
        }
        let mut waiting = self.waiting.lock();
        waiting.push(peer.clone());
        let is_first = waiting.len() == 1;
        drop(waiting);
        if is_first {
            self.some.notify_one();
        }
    }

    async fn run(&self) {
        loop {
            self.some.notified().await;
            sleep(self.gathers().unwrap_or(EVENTS_LATER_WAIT)).await;
            let waiting = std::mem::take(&mut *self.waiting.lock());
            waiting.iter().for_each(|peer| peer.wake_if_waiting());
        }
    }
}

#[cfg(test)]
mod tests {
    use switchboard_api::v1::{DeviceRef, ItemStatus};
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::peers::Peers;

    fn acked(id: u64) -> Event {
        Event::Acked { id, status: ItemStatus::Ok }
    }

    fn made() -> (Arc<Later>, Arc<Peer>) {
        let later = Later::start(CancellationToken::new());
        (later, Peers::default().add(DeviceRef::default(), 1))
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_no_device_waits_for_is_heard_of_a_moment_later() {
        let (later, peer) = made();
        for round in 0..3 {
            let started = Instant::now();
            later.tell_idly(&peer, acked(round));
            later.tell_idly(&peer, acked(round));
            peer.changed().await;
            assert_eq!(started.elapsed(), EVENTS_LATER_WAIT);
            assert_eq!(peer.take().events.len(), 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_found_meanwhile_wakes_nobody() {
        let (later, peer) = made();
        later.tell_idly(&peer, acked(1));
        assert_eq!(peer.take().events.len(), 1);
        assert!(timeout(Duration::from_secs(1), peer.changed()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn while_messages_are_quick_nothing_waits() {
        let (later, peer) = made();
        (0..100).for_each(|_| later.note(Duration::from_millis(2)));
        let started = Instant::now();
        later.tell(&peer, acked(1));
        assert!(later.push(&peer, 0, Message::default()));
        peer.changed().await;
        assert_eq!((peer.take().events.len(), started.elapsed()), (2, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_anyway_gathers_for_a_part_of_that_and_no_longer_than_a_bound() {
        let (later, peer) = made();
        for (latency_ms, gathered) in
            [(160, Duration::from_millis(160) / GATHER_PART), (5_000, GATHER_MAX)]
        {
            (0..100).for_each(|_| later.note(Duration::from_millis(latency_ms)));
            let started = Instant::now();
            later.tell(&peer, acked(1));
            assert!(later.push(&peer, 0, Message::default()));
            peer.changed().await;
            let waited = started.elapsed();
            assert!(waited <= gathered + Duration::from_millis(1), "{waited:?}");
            assert!(waited >= gathered.mul_f64(0.9), "{waited:?}");
            assert_eq!(peer.take().events.len(), 2);
        }
    }
}
