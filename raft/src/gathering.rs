//! News of a commit waits a moment for entries that it can travel with.
//!
//! openraft sends an append without entries at each commit that finds nothing else to send. Under
//! load the next entry follows at once and says the same, so that half of all appends were for
//! nothing, and each costs both nodes as much as one with entries. Here such an append is held for
//! [`COMMIT_NEWS_WAIT`](crate::limits::COMMIT_NEWS_WAIT): the next append takes its place. Not in the meta
//! group, where every node waits for what it is told: which gateways have ended, for one.
//!
//! What waits longer by it is that a follower applies, never an answer: the leader knows of the
//! commit. An append that is left out needs no answer, since openraft takes that of a later one for
//! all before it. The last append of a stream is never held, which a probe is.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::stream::Stream;
use switchboard_engine::{GroupId, META_GROUP};
use tokio::time::{Instant, Sleep};

use crate::limits::COMMIT_NEWS_WAIT;

/// What may be held back: an append, or a test's stand-in.
pub(crate) trait Held {
    /// Whether it tells nothing that the next one would not.
    fn is_news_only(&self) -> bool;
}

/// The appends of a stream, without those whose news the next one tells.
pub(crate) struct Gathering<S: Stream> {
    input: S,
    holds: bool,
    has_ended: bool,
    held: Option<S::Item>,
    /// When the one that is held goes by itself.
    due: Pin<Box<Sleep>>,
}

impl<S: Stream> Gathering<S> {
    pub(crate) fn new(input: S, group: GroupId) -> Self {
        let due = Box::pin(tokio::time::sleep(COMMIT_NEWS_WAIT));
        Self { input, holds: group != META_GROUP, has_ended: false, held: None, due }
    }
}

impl<S> Stream for Gathering<S>
where
    S: Stream + Unpin,
    S::Item: Held + Unpin,
{
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        while !self.has_ended {
            match Pin::new(&mut self.input).poll_next(context) {
                Poll::Ready(Some(append)) if self.holds && append.is_news_only() => {
                    // Newer news does not wait anew, or a stream of it would never be told.
                    if self.held.replace(append).is_none() {
                        self.due.as_mut().reset(Instant::now() + COMMIT_NEWS_WAIT);
                    }
                }
                Poll::Ready(Some(append)) => {
                    self.held = None;
                    return Poll::Ready(Some(append));
                }
                Poll::Ready(None) => self.has_ended = true,
                Poll::Pending => break,
            }
        }
        if self.held.is_some() && !self.has_ended {
            ready!(self.due.as_mut().poll(context));
        }
        match self.held.take() {
            Some(append) => Poll::Ready(Some(append)),
            None if self.has_ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use futures::channel::mpsc;
    use futures::stream;

    use super::*;

    const SHARD: GroupId = switchboard_engine::group_of_shard(0);

    #[derive(Debug, PartialEq, Eq)]
    enum Append {
        Entry(u32),
        News(u32),
    }

    impl Held for Append {
        fn is_news_only(&self) -> bool {
            matches!(self, Self::News(_))
        }
    }

    use Append::{Entry, News};

    #[tokio::test(start_paused = true)]
    async fn an_entry_takes_the_place_of_news_before_it() {
        let input = [Entry(1), News(2), News(3), Entry(4), Entry(5), News(6)];
        let gathered: Vec<_> = Gathering::new(stream::iter(input), SHARD).collect().await;
        assert_eq!(gathered, [Entry(1), Entry(4), Entry(5), News(6)]);
    }

    #[tokio::test(start_paused = true)]
    async fn news_that_nothing_follows_is_told_in_time() {
        let (sender, receiver) = mpsc::unbounded();
        let mut gathered = Gathering::new(receiver, SHARD);
        for number in 0..3 {
            let begun = Instant::now();
            sender.unbounded_send(News(number)).unwrap();
            assert_eq!(gathered.next().await, Some(News(number)));
            assert_eq!(begun.elapsed(), COMMIT_NEWS_WAIT);
        }
        drop(sender);
        assert_eq!(gathered.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn news_after_news_does_not_wait_anew() {
        let (sender, receiver) = mpsc::unbounded();
        let mut gathered = Gathering::new(receiver, SHARD);
        let begun = Instant::now();
        sender.unbounded_send(News(1)).unwrap();
        let told = tokio::spawn(async move { (gathered.next().await, begun.elapsed()) });
        tokio::time::sleep(COMMIT_NEWS_WAIT / 2).await;
        sender.unbounded_send(News(2)).unwrap();
        let (told, after) = told.await.unwrap();
        assert_eq!(told, Some(News(2)));
        assert!(after < COMMIT_NEWS_WAIT * 3 / 2, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn news_of_the_meta_group_does_not_wait() {
        let (sender, receiver) = mpsc::unbounded();
        let mut gathered = Gathering::new(receiver, META_GROUP);
        let begun = Instant::now();
        sender.unbounded_send(News(1)).unwrap();
        assert_eq!(gathered.next().await, Some(News(1)));
        assert_eq!(begun.elapsed(), std::time::Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_stream_lets_news_go_at_once() {
        let begun = Instant::now();
        let gathered: Vec<_> = Gathering::new(stream::iter([News(1)]), SHARD).collect().await;
        assert_eq!((gathered, begun.elapsed()), (vec![News(1)], std::time::Duration::ZERO));
    }
}
