//! A bounded queue of one kind of wake-up, and what sends from it.

use std::{future::Future, sync::Arc};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::limits::WAKE_UPS_QUEUED_MAX;

/// Takes wake-ups without waiting.
pub(crate) struct Queue<T> {
    sender: mpsc::Sender<T>,
}

impl<T: Send + 'static> Queue<T> {
    /// Sends up to `batch_max` with one call of `send`, while fewer than `under_way_max` are under
    /// way. Ends when the queue is dropped, after what is in it.
    pub(crate) fn start<F>(
        tasks: &TaskTracker,
        under_way_max: usize,
        batch_max: usize,
        send: impl Fn(Vec<T>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, mut queue) = mpsc::channel(WAKE_UPS_QUEUED_MAX);
        let sending = tasks.clone();
        tasks.spawn(async move {
            let under_way = Arc::new(Semaphore::new(under_way_max));
            // Gathered once there is a request to spare: the slower the server, the larger a batch.
            while let Ok(permit) = under_way.clone().acquire_owned().await {
                let mut batch = Vec::new();
                if queue.recv_many(&mut batch, batch_max).await == 0 {
                    return;
                }
                let sent = send(batch);
                sending.spawn(async move {
                    sent.await;
                    drop(permit);
                });
            }
        });
        Self { sender }
    }

    /// False when the queue is full.
    pub(crate) fn push(&self, item: T) -> bool {
        self.sender.try_send(item).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const UNDER_WAY_MAX: usize = 16;

    #[tokio::test]
    async fn what_waits_goes_together_what_finds_no_room_is_told_and_the_end_comes_after_the_last()
    {
        let (tasks, gate) = (TaskTracker::new(), Arc::new(Semaphore::new(0)));
        let (calls, items) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (opened, called, counted) = (gate.clone(), calls.clone(), items.clone());
        let queue = Queue::start(&tasks, UNDER_WAY_MAX, 100, move |batch: Vec<usize>| {
            let (opened, called, counted) = (opened.clone(), called.clone(), counted.clone());
            async move {
                called.fetch_add(1, Ordering::Relaxed);
                counted.fetch_add(batch.len(), Ordering::Relaxed);
                let _ = opened.acquire().await;
            }
        });
        // Each of these takes a slot of its own, until none is left.
        for n in 0..UNDER_WAY_MAX {
            assert!(queue.push(n));
            while calls.load(Ordering::Relaxed) <= n {
                tokio::task::yield_now().await;
            }
        }
        let taken = (0..=WAKE_UPS_QUEUED_MAX).filter(|n| queue.push(*n)).count();
        assert_eq!(taken, WAKE_UPS_QUEUED_MAX);
        gate.close();
        drop(queue);
        tasks.close();
        tasks.wait().await;
        assert_eq!(items.load(Ordering::Relaxed), UNDER_WAY_MAX + WAKE_UPS_QUEUED_MAX);
        let batches = calls.load(Ordering::Relaxed) - UNDER_WAY_MAX;
        assert_eq!(batches, WAKE_UPS_QUEUED_MAX.div_ceil(100));
    }
}
