//! Whether a node could be reached lately.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{sync::Notify, time::Instant};

use crate::limits::NODE_AVOIDED_FOR;

/// Shared by everything that talks to one node. A node that could not be reached is avoided for a
/// second while there are others; then it is tried again.
pub(crate) struct Health {
    address: String,
    start: Instant,
    /// Milliseconds since `start`.
    avoided_until_ms: AtomicU64,
    /// Wakes whoever keeps the shard map: leaders may have changed.
    refresh: Arc<Notify>,
}

impl Health {
    pub(crate) fn new(address: String, refresh: Arc<Notify>) -> Self {
        Self { address, start: Instant::now(), avoided_until_ms: AtomicU64::new(0), refresh }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn up(&self) {
        self.avoided_until_ms.store(0, Ordering::Relaxed);
    }

    pub(crate) fn down(&self) {
        let until = self.now_ms() + NODE_AVOIDED_FOR.as_millis() as u64;
        self.avoided_until_ms.store(until, Ordering::Relaxed);
    }

    pub(crate) fn is_avoided(&self) -> bool {
        self.now_ms() < self.avoided_until_ms.load(Ordering::Relaxed)
    }

    /// Something about this node changed: look for a fresh shard map.
    pub(crate) fn changed(&self) {
        self.refresh.notify_one();
    }

    /// The node does not answer: it is avoided, and others may lead by now.
    pub(crate) fn silent(&self) {
        self.down();
        self.changed();
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_is_avoided_for_a_while_or_until_it_is_reached() {
        let health = Health::new("127.0.0.1:1".into(), Arc::new(Notify::new()));
        assert!(!health.is_avoided());
        health.down();
        assert!(health.is_avoided());
        health.up();
        assert!(!health.is_avoided());
        health.down();
        tokio::time::advance(NODE_AVOIDED_FOR).await;
        assert!(!health.is_avoided());
    }
}
