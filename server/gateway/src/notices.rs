//! Tells other gateways that a device which was theirs has claimed here. A notice saves the device's
//! old connection from lingering; it is never needed for safety, since the old epoch is fenced.

use std::collections::HashMap;

use switchboard_api::v1::{
    DeliverRequest, GatewayInfo, SessionInfo, deliver_request::Replaced,
    delivery_service_client::DeliveryServiceClient, register_request::Kind,
};
use switchboard_sdk::Client;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};
use tracing::debug;

use crate::{
    limits::{NOTICE_TIMEOUT, NOTICES_BATCH_MAX, NOTICES_WAITING_MAX},
    route::channel,
};

/// A session that was replaced. `gone`: by a connection that is no more.
struct Notice {
    session: SessionInfo,
    gone: bool,
}

/// A handle to the task that sends notices.
#[derive(Clone)]
pub(crate) struct Notices {
    queue: mpsc::Sender<Notice>,
}

impl Notices {
    pub(crate) fn start(client: &Client, stop: CancellationToken) -> Self {
        let (queue, mut waiting) = mpsc::channel(NOTICES_WAITING_MAX);
        let gateways = client.watch_gateways(Kind::Gateway);
        tokio::spawn(async move {
            let send = async {
                let mut channels: HashMap<String, Channel> = HashMap::new();
                let mut batch = Vec::new();
                while waiting.recv_many(&mut batch, NOTICES_BATCH_MAX).await > 0 {
                    let list = gateways.borrow().clone();
                    for (address, replaced) in sort(&list, std::mem::take(&mut batch)) {
                        if let Err(status) = tell(&mut channels, &address, replaced).await {
                            channels.remove(&address);
                            debug!(address, %status, "a gateway was not told of a replaced session");
                        }
                    }
                }
            };
            let _ = stop.run_until_cancelled(send).await;
        });
        Self { queue }
    }

    /// Tells the gateway of this session, if it can be told soon.
    pub(crate) fn replaced(&self, session: SessionInfo, gone: bool) {
        // Full or ended: fencing needs no notice.
        let _ = self.queue.try_send(Notice { session, gone });
    }
}

/// By the address of the gateway whose current life holds the session; the rest need no notice.
fn sort(list: &[GatewayInfo], notices: Vec<Notice>) -> HashMap<String, Vec<Replaced>> {
    let mut sorted: HashMap<String, Vec<Replaced>> = HashMap::new();
    for Notice { session, gone } in notices {
        let holder = list.iter().find(|gateway| {
            gateway.live
                && (gateway.gateway_id, gateway.incarnation)
                    == (session.gateway_id, session.incarnation)
        });
        if let Some(gateway) = holder {
            sorted.entry(gateway.address.clone()).or_default().push(Replaced {
                device: session.device,
                connection_id: session.connection_id,
                epoch: session.epoch,
                gone,
            });
        }
    }
    sorted
}

async fn tell(
    channels: &mut HashMap<String, Channel>,
    address: &str,
    replaced: Vec<Replaced>,
) -> Result<(), Status> {
    let notice = DeliverRequest { id: 1, pushes: Vec::new(), replaced };
    let told = async {
        let channel = match channels.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let made = channel(address).await;
                let made = made.map_err(|error| Status::unavailable(error.to_string()))?;
                channels.insert(address.to_owned(), made.clone());
                made
            }
        };
        let mut gateway = DeliveryServiceClient::new(channel);
        let mut answers = gateway.deliver(tokio_stream::once(notice)).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    };
    timeout(NOTICE_TIMEOUT, told).await.map_err(|_| Status::deadline_exceeded("no answer"))?
}
