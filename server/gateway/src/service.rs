//! `DeliveryService`: chats push messages to the connections of this gateway, and other gateways
//! tell it which sessions they have replaced.

use std::sync::Arc;

use switchboard_api::v1::{
    DeliverRequest, DeliverResponse, ItemStatus, delivery_service_server::DeliveryService,
};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    limits::DELIVER_ANSWERS_MAX,
    meters::Meters,
    peers::{Event, Peers},
};

pub(crate) struct Service {
    pub(crate) peers: Arc<Peers>,
    pub(crate) meters: Arc<Meters>,
    /// A stream broke: its chat may have stored messages and not pushed them.
    pub(crate) broken: Arc<Notify>,
    pub(crate) stop: CancellationToken,
}

#[tonic::async_trait]
impl DeliveryService for Service {
    type DeliverStream = ReceiverStream<Result<DeliverResponse, Status>>;

    async fn deliver(
        &self,
        request: Request<Streaming<DeliverRequest>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let mut requests = request.into_inner();
        let (answers, outbound) = mpsc::channel(DELIVER_ANSWERS_MAX);
        let (peers, meters) = (self.peers.clone(), self.meters.clone());
        let (broken, stop) = (self.broken.clone(), self.stop.clone());
        tokio::spawn(async move {
            let serve = async {
                loop {
                    match requests.message().await {
                        Ok(Some(request)) => {
                            let answer = take(&peers, &meters, request);
                            if answers.send(Ok(answer)).await.is_err() {
                                return true;
                            }
                        }
                        Ok(None) => return false,
                        Err(_) => return true,
                    }
                }
            };
            if stop.run_until_cancelled(serve).await == Some(true) {
                broken.notify_one();
            }
        });
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

/// Hands a request's pushes and notices to the connections they are for.
pub(crate) fn take(peers: &Peers, meters: &Meters, request: DeliverRequest) -> DeliverResponse {
    for replaced in request.replaced {
        if let Some(peer) = peers.get(replaced.connection_id) {
            peer.tell(Event::Replaced { epoch: replaced.epoch });
        }
    }
    let mut fenced = 0;
    let count = request.pushes.len() as u64;
    let statuses = request
        .pushes
        .into_iter()
        .map(|push| {
            let peer = peers
                .get(push.connection_id)
                .filter(|peer| push.device.as_ref().is_some_and(|device| peer.is_of(device)));
            let taken = match (peer, push.message) {
                (Some(peer), Some(message)) => peer.push(push.epoch, message),
                _ => false,
            };
            fenced += u64::from(!taken);
            (if taken { ItemStatus::Ok } else { ItemStatus::Fenced }).into()
        })
        .collect();
    meters.pushes.increment(count - fenced);
    meters.pushes_fenced.increment(fenced);
    DeliverResponse { id: request.id, statuses }
}
