//! `DeliveryService`: chats push messages to the connections of this gateway, and other gateways
//! tell it which sessions they have replaced.

use std::sync::Arc;

use switchboard_api::v1::{
    DeliverRequest, DeliverResponse, ItemStatus, delivery_service_server::DeliveryService,
    release_request,
};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    gateway::Gateway,
    limits::DELIVER_ANSWERS_MAX,
    meters::Meters,
    peers::{Event, Peers},
};

pub(crate) struct Service {
    pub(crate) gateway: Arc<Gateway>,
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
        let gateway = self.gateway.clone();
        let (broken, stop) = (self.broken.clone(), self.stop.clone());
        tokio::spawn(async move {
            let serve = async {
                loop {
                    match requests.message().await {
                        Ok(Some(request)) => {
                            let mut ghosts = Vec::new();
                            let answer =
                                take(&gateway.peers, &gateway.meters, request, &mut ghosts);
                            ghosts.into_iter().for_each(|ghost| gateway.release(ghost));
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

/// Hands a request's pushes and notices to the connections they are for. `ghosts` are sessions that
/// the store has and no connection here: one whose release was lost, or whose claim was answered too
/// late. They are to be released, since a device that has one is taken to be connected.
pub(crate) fn take(
    peers: &Peers,
    meters: &Meters,
    request: DeliverRequest,
    ghosts: &mut Vec<release_request::Item>,
) -> DeliverResponse {
    for replaced in request.replaced {
        if let Some(peer) = peers.get(replaced.connection_id) {
            peer.tell(Event::Replaced { epoch: replaced.epoch, gone: replaced.gone });
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
                (Some(_), None) => false,
                (None, _) => {
                    ghosts.push(release_request::Item { device: push.device, epoch: push.epoch });
                    false
                }
            };
            fenced += u64::from(!taken);
            (if taken { ItemStatus::Ok } else { ItemStatus::Fenced }).into()
        })
        .collect();
    meters.pushes.increment(count - fenced);
    meters.pushes_fenced.increment(fenced);
    DeliverResponse { id: request.id, statuses }
}

#[cfg(test)]
mod tests {
    use switchboard_api::v1::{DeviceRef, Message, deliver_request::Push};

    use super::*;

    #[test]
    fn a_session_that_has_no_connection_is_released_and_one_that_was_replaced_is_left() {
        let (peers, meters, mut ghosts) = (Peers::default(), Meters::new(), Vec::new());
        let bob = DeviceRef { user: "bob".into(), device: 1 };
        let peer = peers.add(&bob, 1);
        peer.set_epoch(7);
        let push = |connection_id, epoch| Push {
            device: Some(bob.clone()),
            connection_id,
            epoch,
            message: Some(Message::default()),
        };
        let gone = peer.connection_id + 1;
        let pushes = vec![push(peer.connection_id, 7), push(peer.connection_id, 6), push(gone, 5)];
        let request = DeliverRequest { pushes, ..DeliverRequest::default() };
        let statuses: Vec<_> = take(&peers, &meters, request, &mut ghosts).statuses().collect();
        assert_eq!(statuses, [ItemStatus::Ok, ItemStatus::Fenced, ItemStatus::Fenced]);
        assert_eq!(ghosts, [release_request::Item { device: Some(bob), epoch: 5 }]);
    }
}
