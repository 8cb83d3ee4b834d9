//! A link: one connection to one node with one long-lived stream on it, made again whenever it
//! breaks.
//!
//! The transport pulls: each time it can write, it takes all that waits as one message, so small
//! calls gather while a write is under way and no timer is involved. While there is no stream every
//! call fails at once, and when one breaks everything under way fails: what it came to is unknown,
//! and whoever asked knows what to do about that.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::Stream;
use parking_lot::Mutex;
use switchboard_api::{
    limits::GRPC_MESSAGE_BYTES_MAX,
    v1::{PeerAnswers, PeerCalls, PeerHello, peer_call, peer_service_client::PeerServiceClient},
};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use super::queue::{Answer, Queue};
use crate::limits;

/// Where a link leads, and what is said first.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: String,
    pub(super) hello: PeerHello,
}

impl Target {
    /// A connection, made now or when it is first used.
    pub(super) fn endpoint(&self) -> Result<Endpoint, tonic::transport::Error> {
        Ok(Endpoint::from_shared(format!("http://{}", self.address))?
            .connect_timeout(limits::PEER_CONNECT_WAIT_MAX)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(limits::PEER_PING_INTERVAL)
            .keep_alive_timeout(limits::PEER_PING_WAIT_MAX)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(limits::HTTP2_WINDOW_BYTES)
            .initial_connection_window_size(limits::HTTP2_WINDOW_BYTES))
    }
}

/// One way to one node.
pub(super) struct Link {
    target: Target,
    shared: Arc<Shared>,
}

struct Shared {
    /// Guards the queue and who pulls from it; held for a few moves of pointers.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Calls of the open stream; none while there is no stream.
    queue: Option<Queue>,
    /// Number of the current stream; an `Outbound` of an earlier one is at its end.
    stream: u64,
    next_id: u64,
    /// The transport, when it waits for something to write.
    outbound: Option<Waker>,
}

impl Link {
    /// A link that is dialled until it is stopped.
    pub(super) fn start(address: &str, hello: PeerHello, stop: CancellationToken) -> Self {
        let target = Target { address: address.to_owned(), hello };
        let shared = Arc::new(Shared { state: Mutex::default() });
        let (driver, driven) = (target.clone(), shared.clone());
        tokio::spawn(async move {
            let _ = stop.run_until_cancelled(drive(driver, driven.clone())).await;
            // Whoever waits for an answer would wait for as long as he has patience.
            close(&driven);
        });
        Self { target, shared }
    }

    /// Where it leads.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Whether it takes calls.
    pub(super) fn is_open(&self) -> bool {
        self.shared.state.lock().queue.is_some()
    }

    /// Hands a call over, now; none when it was not taken. The answer is none when the link broke.
    pub(super) fn call(
        &self,
        call: peer_call::Call,
        urgent: bool,
    ) -> Option<impl Future<Output = Option<Answer>> + Send + use<>> {
        let mut state = self.shared.state.lock();
        let (id, receiver) = state.queue.as_mut()?.push(call, urgent)?;
        let waker = state.outbound.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        let waiting = Waiting { id, shared: self.shared.clone(), receiver };
        Some(async move {
            let mut waiting = waiting;
            (&mut waiting.receiver).await.ok()
        })
    }
}

/// A call whose answer somebody waits for; forgotten with the wait.
struct Waiting {
    id: u64,
    shared: Arc<Shared>,
    receiver: oneshot::Receiver<Answer>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(queue) = self.shared.state.lock().queue.as_mut() {
            queue.forget(self.id);
        }
    }
}

/// What the transport pulls from: the calls of one stream.
struct Outbound {
    shared: Arc<Shared>,
    stream: u64,
}

impl Stream for Outbound {
    type Item = PeerCalls;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<PeerCalls>> {
        let mut state = self.shared.state.lock();
        if state.stream != self.stream {
            return Poll::Ready(None);
        }
        match state.queue.as_mut().and_then(Queue::take) {
            Some(calls) => Poll::Ready(Some(calls)),
            None => {
                state.outbound = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

async fn drive(target: Target, shared: Arc<Shared>) {
    let Ok(endpoint) = target.endpoint() else {
        tracing::error!(address = target.address, "a member's address cannot be dialled");
        return;
    };
    let mut refused = String::new();
    loop {
        // A connection of its own: see the module above.
        let ended = match endpoint.connect().await {
            Ok(channel) => exchange(&target, &shared, channel).await,
            Err(error) => Status::unavailable(error.to_string()),
        };
        close(&shared);
        // What a node refuses to talk for does not pass by itself; said once, not at every try.
        if ended.code() == tonic::Code::FailedPrecondition && ended.message() != refused {
            refused = ended.message().to_owned();
            tracing::error!(address = target.address, %refused, "a member does not talk to us");
        }
        tracing::debug!(address = target.address, %ended, "a link ended");
        tokio::time::sleep(limits::PEER_DIAL_PAUSE).await;
    }
}

/// Opens the stream and deals out answers until it ends; why it ended.
async fn exchange(target: &Target, shared: &Arc<Shared>, channel: Channel) -> Status {
    let mut client = PeerServiceClient::new(channel)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    let opened = client.exchange(open(target, shared));
    let mut answers = match timeout(limits::PEER_CONNECT_WAIT_MAX, opened).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return status,
        Err(_) => return Status::deadline_exceeded("the node does not answer"),
    };
    deal_out(shared, &mut answers).await
}

/// Begins a stream. Calls are taken from now on: they wait behind the hello.
fn open(target: &Target, shared: &Arc<Shared>) -> Outbound {
    let mut state = shared.state.lock();
    state.stream += 1;
    state.queue = Some(Queue::new(target.hello.clone(), state.next_id));
    Outbound { shared: shared.clone(), stream: state.stream }
}

/// Ends the stream; dropping the queue tells everybody who waits.
fn close(shared: &Shared) {
    let mut state = shared.state.lock();
    state.stream += 1;
    let waker = state.outbound.take();
    let queue = state.queue.take();
    state.next_id = queue.as_ref().map_or(state.next_id, Queue::next_id);
    drop(state);
    drop(queue);
    if let Some(waker) = waker {
        waker.wake();
    }
}

async fn deal_out(shared: &Shared, answers: &mut Streaming<PeerAnswers>) -> Status {
    loop {
        let message = match answers.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Status::unavailable("closed by the node"),
            Err(status) => return status,
        };
        let mut state = shared.state.lock();
        let Some(queue) = state.queue.as_mut() else { continue };
        for answer in message.answers {
            if let Some(found) = answer.answer {
                queue.answer(answer.id, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use switchboard_api::v1::RaftCall;

    use super::*;

    #[tokio::test]
    async fn who_waits_on_a_link_that_is_stopped_is_told_at_once() {
        // It takes connections and never says a word.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, stop) = (silent.local_addr().expect("bound"), CancellationToken::new());
        let link = Link::start(&address.to_string(), PeerHello::default(), stop.clone());
        let call = || peer_call::Call::Raft(RaftCall { group: 1, request: vec![0; 9].into() });
        let answer = loop {
            match link.call(call(), false) {
                Some(answer) => break answer,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        stop.cancel();
        assert_eq!(answer.await, None);
        assert!(link.call(call(), false).is_none(), "nothing is taken any more");
    }
}
