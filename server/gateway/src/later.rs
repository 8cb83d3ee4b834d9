//! Events that can wait a moment, because no device waits for them.
//!
//! Each wake-up of a connection costs about as much as a frame. An acknowledgement that the store has
//! taken changes nothing that a device sees, so its connection is not woken for it: it finds the event
//! when it is woken for another one, or, if it is not, after [`EVENTS_LATER_WAIT`].

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    limits::EVENTS_LATER_WAIT,
    peers::{Event, Peer},
};

/// Connections with events that can wait.
#[derive(Debug, Default)]
pub(crate) struct Later {
    /// A lock, since many tasks add and one takes; held to add one.
    waiting: Mutex<Vec<Arc<Peer>>>,
    some: Notify,
}

impl Later {
    /// Wakes connections until `stop`.
    pub(crate) fn start(stop: CancellationToken) -> Arc<Self> {
        let later = Arc::new(Self::default());
        let waking = later.clone();
        tokio::spawn(async move { stop.run_until_cancelled(waking.run()).await });
        later
    }

    /// Adds an event for a connection, which hears of it a moment later.
    pub(crate) fn tell(&self, peer: &Arc<Peer>, event: Event) {
        if !peer.add_for_later(event) {
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
            sleep(EVENTS_LATER_WAIT).await;
            let waiting = std::mem::take(&mut *self.waiting.lock());
            waiting.iter().for_each(|peer| peer.wake_if_waiting());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use switchboard_api::v1::{DeviceRef, ItemStatus};
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::peers::Peers;

    fn acked(id: u64) -> Event {
        Event::Acked { id, status: ItemStatus::Ok }
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_can_wait_is_heard_of_a_moment_later() {
        let later = Later::start(CancellationToken::new());
        let peer = Peers::default().add(DeviceRef::default(), 1);
        for round in 0..3 {
            let started = Instant::now();
            later.tell(&peer, acked(round));
            later.tell(&peer, acked(round));
            peer.changed().await;
            assert_eq!(started.elapsed(), EVENTS_LATER_WAIT);
            assert_eq!(peer.take().events.len(), 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_found_meanwhile_wakes_nobody() {
        let later = Later::start(CancellationToken::new());
        let peer = Peers::default().add(DeviceRef::default(), 1);
        later.tell(&peer, acked(1));
        assert_eq!(peer.take().events.len(), 1);
        assert!(timeout(Duration::from_secs(1), peer.changed()).await.is_err());
    }
}
