//! tokio's watch channel, with a fixed order of waking.
//!
//! tokio spreads those who wait for a change over eight lists, at random, to keep locks apart; which
//! of two replication tasks runs first would be left to chance (and its generator can only be seeded
//! by an unstable build of tokio). Here the value stays in tokio's channel, and those who wait queue
//! up at one [`Notify`], which wakes them in the order in which they came.

use std::sync::Arc;

use futures::FutureExt;
use openraft::async_runtime::watch::{RecvError, SendError};
use openraft::async_runtime::{Watch, WatchReceiver, WatchSender};
use openraft::{OptionalSend, OptionalSync};
use tokio::sync::{Notify, watch};
use tokio::task::coop::unconstrained;

/// See the module.
#[derive(Debug)]
pub struct SteadyWatch;

/// The sending half.
pub struct Sender<T> {
    /// None while it is dropped: waiters are woken after it is gone, or they would not notice.
    inner: Option<watch::Sender<T>>,
    changes: Arc<Notify>,
}

/// The receiving half.
pub struct Receiver<T> {
    inner: watch::Receiver<T>,
    changes: Arc<Notify>,
}

impl<T> Receiver<T> {
    /// Whether nobody is left who could send.
    pub(super) fn is_closed(&self) -> bool {
        self.inner.has_changed().is_err()
    }
}

impl<T> Sender<T> {
    fn inner(&self) -> &watch::Sender<T> {
        self.inner.as_ref().expect("it is taken by the drop alone")
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), changes: self.changes.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        drop(self.inner.take());
        self.changes.notify_waiters();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), changes: self.changes.clone() }
    }
}

impl Watch for SteadyWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = watch::channel(init);
        let changes = Arc::new(Notify::new());
        let sender = Sender { inner: Some(sender), changes: changes.clone() };
        (sender, Receiver { inner: receiver, changes })
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<SteadyWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        let sent = self.inner().send(value).map_err(|error| SendError(error.0));
        self.changes.notify_waiters();
        sent
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let modified = self.inner().send_if_modified(modify);
        if modified {
            self.changes.notify_waiters();
        }
        modified
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.inner().borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver { inner: self.inner().subscribe(), changes: self.changes.clone() }
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<SteadyWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            // Before the look, so that no change falls between the look and the wait.
            let next = self.changes.notified();
            tokio::pin!(next);
            next.as_mut().enable();
            // Out of tokio's budget, or a look that it cuts short would pass for "no change".
            if let Some(seen) = unconstrained(self.inner.changed()).now_or_never() {
                return seen.map_err(|_| RecvError(()));
            }
            next.await;
        }
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.inner.borrow()
    }

    fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        self.inner.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn those_who_wait_wake_in_the_order_in_which_they_came() {
        let (sender, receiver) = SteadyWatch::channel(0);
        let (order, mut woken) = tokio::sync::mpsc::unbounded_channel();
        for waiter in 0..20 {
            let (mut receiver, order) = (receiver.clone(), order.clone());
            tokio::spawn(async move {
                receiver.changed().await.expect("a change");
                order.send(waiter).expect("somebody listens");
            });
        }
        tokio::task::yield_now().await;
        sender.send(1).expect("there are receivers");
        for waiter in 0..20 {
            assert_eq!(woken.recv().await, Some(waiter));
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_last_sender_that_goes_wakes_everybody() {
        let (sender, mut receiver) = SteadyWatch::channel(0);
        let second = sender.clone();
        let waiting = tokio::spawn(async move { receiver.changed().await });
        tokio::task::yield_now().await;
        drop(sender);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        assert_eq!(waiting.await.expect("no panic"), Err(RecvError(())));
    }
}
