//! A lane: one long-lived bidirectional stream of one kind to one node, shared by all callers.
//!
//! ```text
//! callers ──submit──▶ queue ──Outbound (pulled by the transport)──▶ node
//!    ▲                  │ under way, by id                            │
//!    └──────done────────┴────────────── driver ◀── answers ───────────┘
//! ```
//!
//! The transport pulls: each time it can write, it takes all that waits as one message. So items of
//! concurrent callers gather while a write is under way, and no timer is involved.
//!
//! Invariants. The order of `submit` calls is the order on the stream, and the items of one call
//! stay together in one message. Each `done` is called exactly once. When the stream breaks,
//! everything in the lane is answered UNAVAILABLE, that which was never sent too: else later items
//! would overtake earlier ones that are sent again. A lane never resends by itself.

mod driver;
mod queue;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::Stream;
use parking_lot::Mutex;
use switchboard_api::v1::ItemStatus;
use tokio::{sync::Notify, time::Instant};
use tonic::{Status, Streaming, transport::Channel};

pub(crate) use driver::DriverOptions;
use queue::Queue;

/// A kind of pipelined call: its stream and how items go in and answers come out.
pub(crate) trait Call: Send + Sync + Sized + 'static {
    /// For log lines.
    const NAME: &'static str;
    type Item: Send + 'static;
    type Answer: Send + 'static;
    /// Only items of one class share a message.
    type Class: Copy + Eq + Send + 'static;
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// An upper bound of the encoded length.
    fn item_bytes(item: &Self::Item) -> usize;
    fn request(id: u64, class: Self::Class, items: Vec<Self::Item>) -> Self::Request;
    /// The id of the request and the answers.
    fn response(response: Self::Response) -> (u64, Answers<Self::Answer>);
    /// The answer for an item that was not answered by the node.
    fn refused(status: ItemStatus) -> Self::Answer;
    fn open(
        channel: Channel,
        outbound: Outbound<Self>,
    ) -> impl Future<Output = Result<Streaming<Self::Response>, Status>> + Send;
}

/// Answers in the order of the items.
pub(crate) struct Answers<A> {
    pub(crate) answers: Vec<A>,
    /// For reads: an upper bound of the age of what was read.
    pub(crate) staleness_ms: u64,
}

/// What becomes of the answers. Called on the lane's task: it must not block.
pub(crate) type Done<A> = Box<dyn FnOnce(Answers<A>) + Send>;

/// A handle to a lane. Its driver runs as a task until the token given to it is cancelled.
pub(crate) struct Lane<C: Call> {
    shared: Arc<Shared<C>>,
}

impl<C: Call> Clone for Lane<C> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<C: Call> Lane<C> {
    /// A lane over `channel`, and its driver as a task.
    pub(crate) fn start(channel: Channel, options: DriverOptions) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                queue: Queue::new(),
                stream: 0,
                live: false,
                closed: false,
                outbound: None,
            }),
            work: Notify::new(),
        });
        tokio::spawn(driver::run(shared.clone(), channel, options));
        Self { shared }
    }

    /// Hands over the items of one call. When the lane is full, all are answered OVERLOADED; when
    /// it is closed, UNAVAILABLE; both before this returns.
    pub(crate) fn submit(&self, class: C::Class, items: Vec<C::Item>, done: Done<C::Answer>) {
        let count = items.len();
        let mut state = self.shared.state.lock();
        let (done, status) = if state.closed {
            (done, ItemStatus::Unavailable)
        } else {
            match state.queue.push(class, items, done) {
                Ok(()) => {
                    let waker = state.outbound.take();
                    let live = state.live;
                    drop(state);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                    if !live {
                        self.shared.work.notify_one();
                    }
                    return;
                }
                Err(done) => (done, ItemStatus::Overloaded),
            }
        };
        drop(state);
        done(queue::refused::<C>(count, status));
    }
}

struct Shared<C: Call> {
    /// Guards the queue and who pulls from it. A lock, because callers, the transport and the
    /// driver all change it; held for a few moves of pointers.
    state: Mutex<State<C>>,
    /// Tells the driver, while there is no stream, that there is something to send.
    work: Notify,
}

struct State<C: Call> {
    queue: Queue<C>,
    /// Number of the current stream; an `Outbound` of an earlier one is at its end.
    stream: u64,
    /// Whether the current stream is being opened or open.
    live: bool,
    closed: bool,
    /// The transport, when it waits for something to write.
    outbound: Option<Waker>,
}

impl<C: Call> Shared<C> {
    /// Ends the current stream, if any, and answers everything UNAVAILABLE.
    fn fail_all(&self, close: bool) {
        let mut state = self.state.lock();
        state.stream += 1;
        state.live = false;
        state.closed |= close;
        let waker = state.outbound.take();
        let failed = state.queue.fail_all(ItemStatus::Unavailable);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        for (done, answers) in failed {
            done(answers);
        }
    }
}

/// What the transport pulls from: the requests of one stream.
pub(crate) struct Outbound<C: Call> {
    shared: Arc<Shared<C>>,
    stream: u64,
}

impl<C: Call> Stream for Outbound<C> {
    type Item = C::Request;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<C::Request>> {
        let mut state = self.shared.state.lock();
        if state.stream != self.stream {
            return Poll::Ready(None);
        }
        match state.queue.take(Instant::now()) {
            Some(request) => Poll::Ready(Some(request)),
            None => {
                state.outbound = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
