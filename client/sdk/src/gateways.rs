//! The live gateways and chats, watched on behalf of all who want to know.

use std::sync::Arc;

use parking_lot::Mutex;
use switchboard_api::v1::{GatewayInfo, WatchGatewaysRequest, register_request::Kind};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tonic::Status;
use tracing::debug;

use crate::{core::Core, node::Node};

type Gateways = Arc<Vec<GatewayInfo>>;

/// One stream per kind, opened at the first watch.
pub(crate) struct GatewayWatches {
    core: Arc<Core>,
    /// A lock, so that two first watchers open one stream.
    watches: Mutex<Vec<(Kind, watch::Receiver<Gateways>)>>,
}

impl GatewayWatches {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, watches: Mutex::new(Vec::new()) }
    }

    pub(crate) fn watch(&self, kind: Kind) -> watch::Receiver<Gateways> {
        let mut watches = self.watches.lock();
        if let Some((_, receiver)) = watches.iter().find(|(known, _)| *known == kind) {
            return receiver.clone();
        }
        let (sender, receiver) = watch::channel(Gateways::default());
        let core = self.core.clone();
        tokio::spawn(async move {
            let stop = core.stop.clone();
            let _ = stop.run_until_cancelled(keep(&core, kind, &sender)).await;
        });
        watches.push((kind, receiver.clone()));
        receiver
    }
}

async fn keep(core: &Core, kind: Kind, sender: &watch::Sender<Gateways>) {
    let mut backoff = core.backoff();
    for attempt in 0.. {
        let node = core.routes().any(attempt).clone();
        match follow(core, &node, kind, sender).await {
            Ok(seen) if seen => backoff.reset(),
            Ok(_) => {}
            Err(status) => {
                debug!(node = node.health.address(), ?kind, %status, "the watch of gateways ended");
            }
        }
        sleep(backoff.next()).await;
    }
}

/// Until the stream ends; whether anything came. What was known stays known meanwhile.
async fn follow(
    core: &Core,
    node: &Node,
    kind: Kind,
    sender: &watch::Sender<Gateways>,
) -> Result<bool, Status> {
    let mut client = node.gateways();
    let opened = client.watch(WatchGatewaysRequest { kind: kind.into() });
    let mut stream = timeout(core.options.stall_timeout, opened)
        .await
        .map_err(|_| Status::deadline_exceeded("the node does not answer"))??
        .into_inner();
    let mut seen = false;
    while let Some(response) = stream.message().await? {
        seen = true;
        sender.send_replace(Arc::new(response.gateways));
    }
    Ok(seen)
}
