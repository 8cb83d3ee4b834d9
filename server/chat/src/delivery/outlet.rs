//! One gateway's outlet: its queue, and the task that keeps the Deliver stream to it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::Stream;
use parking_lot::Mutex;
use switchboard_api::{
    limits::GRPC_MESSAGE_BYTES_MAX,
    v1::{
        DeliverRequest, DeliverResponse, ItemStatus, deliver_request::Push,
        delivery_service_client::DeliveryServiceClient,
    },
};
use switchboard_sdk::Backoff;
use tokio::time::{sleep, timeout};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use tracing::debug;

use super::queue::Queue;
use crate::{
    limits::{BACKOFF_BASE, BACKOFF_MAX, GATEWAY_CONNECT_MAX, GATEWAY_KEEP_ALIVE},
    meters::PushMeters,
    notifier::Notifier,
};

/// Filled by whoever has pushes, emptied by the transport, which takes all that waits each time it
/// can write.
pub(super) struct Outlet {
    /// A lock, because both ends change it; held for a few moves.
    state: Mutex<State>,
    meters: Arc<PushMeters>,
    /// `None`: nobody is woken up.
    notifier: Option<Arc<Notifier>>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// Number of the current stream; an `Outbound` of an earlier one is at its end.
    stream: u64,
    /// The transport, when it waits for something to write.
    outbound: Option<Waker>,
    closed: bool,
}

impl Outlet {
    pub(super) fn new(meters: Arc<PushMeters>, notifier: Option<Arc<Notifier>>) -> Arc<Self> {
        let state = State { queue: Queue::new(notifier.is_some()), ..State::default() };
        Arc::new(Self { state: Mutex::new(state), meters, notifier })
    }

    /// Never blocks; a push that finds no room is dropped and counted.
    pub(super) fn push(&self, push: Push) {
        let mut state = self.state.lock();
        if state.closed || !state.queue.push(push) {
            drop(state);
            self.meters.dropped.increment(1);
            return;
        }
        let waker = state.outbound.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Drops what waits, and everything from now on.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.stream += 1;
        let (dropped, waker) = (state.queue.clear(), state.outbound.take());
        drop(state);
        self.meters.dropped.increment(dropped as u64);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Keeps a stream to `address` for ever, from before the first push on, so that the gateway
    /// notices at once when this process goes.
    pub(super) async fn keep(self: &Arc<Self>, address: &str) {
        let endpoint = match Endpoint::from_shared(format!("http://{address}")) {
            Ok(endpoint) => endpoint
                .connect_timeout(GATEWAY_CONNECT_MAX)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(GATEWAY_KEEP_ALIVE)
                .keep_alive_timeout(GATEWAY_KEEP_ALIVE)
                .keep_alive_while_idle(true),
            Err(error) => {
                tracing::warn!(address, %error, "a gateway has an address that is none");
                return std::future::pending().await;
            }
        };
        let channel = endpoint.connect_lazy();
        let mut backoff = Backoff::new(BACKOFF_BASE, BACKOFF_MAX);
        loop {
            match self.open(channel.clone()).await {
                Ok(inbound) => {
                    backoff.reset();
                    let end = self.serve(inbound).await;
                    debug!(address, %end, "the stream to a gateway ended");
                }
                Err(status) => debug!(address, %status, "no stream to a gateway"),
            }
            self.state.lock().queue.broke();
            sleep(backoff.next()).await;
        }
    }

    async fn open(
        self: &Arc<Self>,
        channel: Channel,
    ) -> Result<Streaming<DeliverResponse>, Status> {
        let stream = {
            let mut state = self.state.lock();
            state.stream += 1;
            state.stream
        };
        let outbound = Outbound { outlet: self.clone(), stream };
        let mut client =
            DeliveryServiceClient::new(channel).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        let opened = timeout(2 * GATEWAY_CONNECT_MAX, client.deliver(outbound)).await;
        Ok(opened
            .map_err(|_| Status::deadline_exceeded("the gateway does not answer"))??
            .into_inner())
    }

    async fn serve(&self, mut inbound: Streaming<DeliverResponse>) -> Status {
        loop {
            match inbound.message().await {
                Ok(Some(response)) => {
                    let fenced = response.statuses().filter(|s| *s == ItemStatus::Fenced).count();
                    self.meters.fenced.increment(fenced as u64);
                    let mut state = self.state.lock();
                    let asleep = state.queue.answered(&response);
                    let waker =
                        if state.queue.has_waiting() { state.outbound.take() } else { None };
                    drop(state);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                    if let Some(notifier) = &self.notifier {
                        notifier.note_later(asleep);
                    }
                }
                Ok(None) => return Status::unavailable("closed by the gateway"),
                Err(status) => return status,
            }
        }
    }
}

/// What the transport pulls from: the requests of one stream.
struct Outbound {
    outlet: Arc<Outlet>,
    stream: u64,
}

impl Stream for Outbound {
    type Item = DeliverRequest;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<DeliverRequest>> {
        let mut state = self.outlet.state.lock();
        if state.stream != self.stream {
            return Poll::Ready(None);
        }
        match state.queue.take() {
            Some(request) => {
                drop(state);
                self.outlet.meters.sent.increment(request.pushes.len() as u64);
                Poll::Ready(Some(request))
            }
            None => {
                state.outbound = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
