//! `ChatService`: each Route stream becomes a task.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use switchboard_api::v1::{RouteRequest, RouteResponse, chat_service_server::ChatService};
use switchboard_process::Shutdown;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    limits::{STREAM_RESPONSES_MAX, STREAMS_MAX},
    route::{router::Router, stream},
};

pub(crate) struct Service {
    router: Arc<Router>,
    shutdown: Shutdown,
    streams: Arc<AtomicUsize>,
}

impl Service {
    pub(crate) fn new(router: Arc<Router>, shutdown: Shutdown) -> Self {
        Self { router, shutdown, streams: Arc::default() }
    }
}

/// Counts an open stream for as long as it lives.
struct Counted {
    streams: Arc<AtomicUsize>,
    router: Arc<Router>,
}

impl Counted {
    /// `None` when there are too many.
    fn new(service: &Service) -> Option<Self> {
        let (streams, router) = (service.streams.clone(), service.router.clone());
        router.meters.streams.increment(1);
        let before = streams.fetch_add(1, Ordering::Relaxed);
        let counted = Self { streams, router };
        (before < STREAMS_MAX).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
        self.router.meters.streams.decrement(1);
    }
}

#[tonic::async_trait]
impl ChatService for Service {
    type RouteStream = ReceiverStream<Result<RouteResponse, Status>>;

    async fn route(
        &self,
        request: Request<Streaming<RouteRequest>>,
    ) -> Result<Response<Self::RouteStream>, Status> {
        if self.router.draining.is_cancelled() {
            return Err(Status::unavailable("shutting down"));
        }
        let counted = Counted::new(self)
            .ok_or_else(|| Status::resource_exhausted("too many Route streams"))?;
        let (outbound, responses) = mpsc::channel(STREAM_RESPONSES_MAX);
        let router = self.router.clone();
        self.shutdown.spawn(async move {
            stream::run(router, request.into_inner(), outbound).await;
            drop(counted);
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}
