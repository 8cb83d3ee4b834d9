//! A gateway for tests of chat: it takes pushes, and it sends messages of one conversation each in
//! order, again after failures, over a Route stream that it opens anew when it breaks.

#![allow(dead_code, reason = "each test uses a part")]

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

use bytes::Bytes;
use futures::StreamExt as _;
use switchboard_api::v1::{
    DeliverRequest, DeliverResponse, DeviceRef, ItemStatus, RouteRequest, RouteResponse,
    chat_service_client::ChatServiceClient,
    deliver_request::Push,
    delivery_service_server::{DeliveryService, DeliveryServiceServer},
    route_request::Send,
};
use tokio::{net::TcpListener, runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

/// The `DeliveryService` of a gateway; pushes come out of `pushes`.
pub(crate) struct Deliveries {
    pub(crate) address: SocketAddr,
    pub(crate) pushes: mpsc::UnboundedReceiver<Push>,
    sender: mpsc::UnboundedSender<Push>,
    runtime: Option<Runtime>,
}

struct Service(mpsc::UnboundedSender<Push>);

#[tonic::async_trait]
impl DeliveryService for Service {
    type DeliverStream = futures::stream::BoxStream<'static, Result<DeliverResponse, Status>>;

    async fn deliver(
        &self,
        request: Request<Streaming<DeliverRequest>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let pushes = self.0.clone();
        let answers = request.into_inner().map(move |request| {
            let DeliverRequest { id, pushes: taken, .. } = request?;
            let statuses = vec![ItemStatus::Ok.into(); taken.len()];
            for push in taken {
                let _ = pushes.send(push);
            }
            Ok(DeliverResponse { id, statuses })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

impl Deliveries {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let (sender, pushes) = mpsc::unbounded_channel();
        let mut deliveries = Self { address, pushes, sender, runtime: None };
        deliveries.restart();
        deliveries
    }

    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    pub(crate) fn restart(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (address, service) = (self.address, Service(self.sender.clone()));
        runtime.spawn(async move {
            let listener = loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                }
            };
            let server = Server::builder().add_service(DeliveryServiceServer::new(service));
            server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        });
        self.runtime = Some(runtime);
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One Route stream.
pub(crate) struct Route {
    pub(crate) requests: mpsc::Sender<RouteRequest>,
    pub(crate) responses: Streaming<RouteResponse>,
}

impl Route {
    pub(crate) async fn open(chat: SocketAddr) -> Result<Self, Status> {
        let mut client = ChatServiceClient::connect(format!("http://{chat}"))
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let (requests, outbound) = mpsc::channel(16);
        let responses = client.route(ReceiverStream::new(outbound)).await?.into_inner();
        Ok(Self { requests, responses })
    }

    /// Opens one as soon as chat takes it.
    pub(crate) async fn open_at_last(chat: SocketAddr) -> Self {
        loop {
            match Self::open(chat).await {
                Ok(route) => return route,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    }

    pub(crate) async fn send(&self, request: RouteRequest) {
        self.requests.send(request).await.unwrap();
    }

    /// The results of the next response.
    pub(crate) async fn results(&mut self) -> Vec<(u64, ItemStatus)> {
        let response = self.responses.message().await.unwrap().expect("the stream goes on");
        response.results.iter().map(|result| (result.id, result.status())).collect()
    }
}

pub(crate) fn device(user: &str) -> Option<DeviceRef> {
    Some(DeviceRef { user: Bytes::copy_from_slice(user.as_bytes()), device: 1 })
}

/// Message `n` from one user to another, named by both.
pub(crate) fn send(id: u64, from: &str, to: &str, n: u64) -> Send {
    let mut message_id = [0_u8; 16];
    message_id[..8].copy_from_slice(&n.to_be_bytes());
    Send {
        id,
        from: device(from),
        to: device(to),
        message_id: Bytes::copy_from_slice(&message_id),
        body: Bytes::from(format!("{from}:{n}")),
        ..Send::default()
    }
}

/// Sends `count` messages of one sender, keeping up to `window` under way, until all are stored.
/// After a retryable answer it waits for the other answers, then sends again in order.
pub(crate) async fn converse(
    chat: SocketAddr,
    from: String,
    to: String,
    count: u64,
    window: usize,
) {
    let mut to_send: VecDeque<u64> = (0..count).collect();
    let (mut next_id, mut done) = (0, 0);
    while done < count {
        let mut route = Route::open_at_last(chat).await;
        let mut under_way: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut failed, mut failures_seen) = (Vec::new(), 0);
        while done < count {
            if under_way.is_empty() {
                again(&mut to_send, &mut failed);
            }
            while failed.is_empty() && under_way.len() < window {
                let Some(n) = to_send.pop_front() else { break };
                next_id += 1;
                under_way.insert(next_id, n);
                let sends = vec![send(next_id, &from, &to, n)];
                let request = RouteRequest { sends, failures_seen, ..RouteRequest::default() };
                if route.requests.send(request).await.is_err() {
                    break;
                }
            }
            let Ok(Some(response)) = route.responses.message().await else { break };
            failures_seen = response.failures;
            for result in response.results {
                let n = under_way.remove(&result.id).expect("an answer to what is under way");
                match result.status() {
                    ItemStatus::Ok | ItemStatus::Duplicate => done += 1,
                    ItemStatus::Overloaded | ItemStatus::Unavailable => failed.push(n),
                    refused => panic!("refused: {refused:?}"),
                }
            }
        }
        failed.extend(under_way.into_values());
        again(&mut to_send, &mut failed);
    }
}

fn again(to_send: &mut VecDeque<u64>, failed: &mut Vec<u64>) {
    failed.sort_unstable();
    for n in failed.drain(..).rev() {
        to_send.push_front(n);
    }
}
