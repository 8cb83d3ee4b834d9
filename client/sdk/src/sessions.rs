//! Watching sessions come and go.

use std::sync::Arc;

use switchboard_api::v1::{WatchRequest, WatchResponse};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tracing::debug;

use crate::{Error, core::Core, error, limits::WATCH_EVENTS_MAX, node::Node};

/// A watch of sessions; ends when it is dropped.
///
/// It resumes by itself after a broken stream. When the store cannot resume, because the watcher
/// fell too far behind or another node answers, an event `COMPACTED` says so: locate again, then go
/// on.
#[derive(Debug)]
pub struct SessionWatch {
    events: mpsc::Receiver<Result<WatchResponse, Error>>,
    _stop: DropGuard,
}

impl SessionWatch {
    pub(crate) fn start(core: Arc<Core>, request: WatchRequest) -> Self {
        let (sender, events) = mpsc::channel(WATCH_EVENTS_MAX);
        let stop = core.stop.child_token();
        tokio::spawn(keep(core, request, sender, stop.clone()));
        Self { events, _stop: stop.drop_guard() }
    }

    /// The next event; `None` after an error or when the client has ended.
    ///
    /// # Errors
    /// `Rejected` when the store refuses the watch.
    pub async fn next(&mut self) -> Option<Result<WatchResponse, Error>> {
        self.events.recv().await
    }
}

async fn keep(
    core: Arc<Core>,
    request: WatchRequest,
    sender: mpsc::Sender<Result<WatchResponse, Error>>,
    stop: CancellationToken,
) {
    let follow_for_ever = async {
        let mut request = request;
        let mut backoff = core.backoff();
        loop {
            // Versions belong to one node: stay with the first that is reached while it can be.
            let routes = core.routes();
            let node = match request.users.first() {
                Some(user) => routes.for_user(user, 0).clone(),
                None => routes.any(0).clone(),
            };
            let before = request.resume_version;
            match follow(&core, &node, &mut request, &sender).await {
                Ok(()) => {}
                Err(status) => {
                    let error = error::from_status(&status);
                    if error.is_rejected() {
                        let _ = sender.send(Err(error)).await;
                        return;
                    }
                    debug!(node = node.health.address(), %status, "the watch of sessions ended");
                }
            }
            if request.resume_version > before {
                backoff.reset();
            }
            sleep(backoff.next()).await;
        }
    };
    tokio::select! {
        () = follow_for_ever => {}
        () = stop.cancelled() => {}
    }
}

async fn follow(
    core: &Core,
    node: &Node,
    request: &mut WatchRequest,
    sender: &mpsc::Sender<Result<WatchResponse, Error>>,
) -> Result<(), Status> {
    let mut client = node.sessions();
    let opened = client.watch(request.clone());
    let mut stream = timeout(core.options.stall_timeout, opened)
        .await
        .map_err(|_| Status::deadline_exceeded("the node does not answer"))??
        .into_inner();
    while let Some(event) = stream.message().await? {
        request.resume_version = event.version;
        if sender.send(Ok(event)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
