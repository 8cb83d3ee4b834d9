//! Gathers single items of many connections into batches: until there are enough, or a little time
//! has passed. Several batches may be under way; each item is answered exactly once.

use std::{future::Future, sync::Arc};

use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::limits::{BATCH_ITEMS_MAX, BATCH_QUEUE_MAX, BATCH_WAIT, BATCHES_UNDER_WAY_MAX};

type Done<R> = Box<dyn FnOnce(R) + Send>;

/// An item could not be taken: the queue is full or the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// A handle; clones share the queue.
pub(crate) struct Batcher<I, R> {
    queue: mpsc::Sender<(I, Done<R>)>,
}

impl<I, R> Batcher<I, R>
where
    I: Send + 'static,
    R: Send + 'static,
{
    /// `call` must answer with one result per item; where it does not, `missing` is the answer.
    pub(crate) fn start<C, F>(call: C, missing: fn() -> R, stop: CancellationToken) -> Self
    where
        C: Fn(Vec<I>) -> F + Send + Sync + 'static,
        F: Future<Output = Vec<R>> + Send + 'static,
    {
        let (queue, items) = mpsc::channel(BATCH_QUEUE_MAX);
        tokio::spawn(async move {
            let _ = stop.run_until_cancelled(gather(items, Arc::new(call), missing)).await;
        });
        Self { queue }
    }

    /// Adds an item; `done` is called with its answer, and must not block.
    pub(crate) fn submit(
        &self,
        item: I,
        done: impl FnOnce(R) + Send + 'static,
    ) -> Result<(), Full> {
        self.queue.try_send((item, Box::new(done))).map_err(|_| Full)
    }
}

async fn gather<I, R, C, F>(
    mut items: mpsc::Receiver<(I, Done<R>)>,
    call: Arc<C>,
    missing: fn() -> R,
) where
    I: Send + 'static,
    R: Send + 'static,
    C: Fn(Vec<I>) -> F + Send + Sync + 'static,
    F: Future<Output = Vec<R>> + Send + 'static,
{
    let under_way = Arc::new(Semaphore::new(BATCHES_UNDER_WAY_MAX));
    while let Some(first) = items.recv().await {
        let mut batch = vec![first];
        let until = Instant::now() + BATCH_WAIT;
        while batch.len() < BATCH_ITEMS_MAX {
            let room = BATCH_ITEMS_MAX - batch.len();
            match timeout_at(until, items.recv_many(&mut batch, room)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let Ok(permit) = under_way.clone().acquire_owned().await else { return };
        let call = call.clone();
        tokio::spawn(async move {
            let (items, done): (Vec<I>, Vec<Done<R>>) = batch.into_iter().unzip();
            let mut answers = call(items).await.into_iter();
            for done in done {
                done(answers.next().unwrap_or_else(missing));
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn items_of_a_moment_share_a_batch_and_each_gets_its_answer() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let batcher = Batcher::start(
            move |items: Vec<u32>| {
                counted.fetch_add(1, Ordering::Relaxed);
                // The last answer is missing.
                async move { items.iter().take(items.len() - 1).map(|item| item * 2).collect() }
            },
            || 0,
            CancellationToken::new(),
        );
        let mut waiting = Vec::new();
        for item in 1..=100_u32 {
            let (done, answer) = oneshot::channel();
            batcher.submit(item, |result| done.send(result).unwrap()).unwrap();
            waiting.push((item, answer));
        }
        for (item, answer) in waiting {
            assert_eq!(answer.await.unwrap(), if item == 100 { 0 } else { item * 2 });
        }
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}
