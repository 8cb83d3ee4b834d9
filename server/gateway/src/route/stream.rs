//! The task of one chat's stream: connects, and again when it breaks, for as long as the chat is
//! listed.

use std::time::Instant;

use switchboard_api::{
    limits::REQUEST_BYTES_MAX,
    v1::{RouteRequest, RouteResponse, chat_service_client::ChatServiceClient},
};
use switchboard_sdk::Backoff;
use tokio::{
    sync::mpsc,
    time::{sleep, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use tracing::{debug, info};

use super::{Parcel, Route, Routes, book::Book};
use crate::limits::{
    CONNECT_TIMEOUT, PROBE_INTERVAL, PROBE_WAIT_MAX, RETRY_MAX, RETRY_MIN, ROUTE_BYTES_MAX,
    ROUTE_ITEMS_MAX, ROUTE_REQUESTS_MAX, ROUTE_STALL_MAX,
};

/// A channel to another process.
pub(crate) async fn channel(address: &str) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PROBE_INTERVAL)
        .keep_alive_timeout(PROBE_WAIT_MAX)
        .keep_alive_while_idle(true)
        .connect()
        .await
}

pub(super) async fn run(
    routes: &Routes,
    route: &Route,
    address: &str,
    mut parcels: mpsc::Receiver<Parcel>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    while !stop.is_cancelled() {
        let mut book = Book::default();
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = serve(routes, route, address, &mut parcels, &mut book) => ended,
        };
        let served = route.is_live();
        routes.set_live(route, false);
        // Whoever waits is told by dropping what waits. Nobody adds to the queue of a stream that is
        // not live, but for a moment.
        drop(book);
        while parcels.try_recv().is_ok() {}
        if served {
            backoff.reset();
            info!(address, error = ?ended.err().map(|s| s.to_string()), "a chat's stream ended");
        } else if let Err(status) = ended {
            debug!(address, %status, "a chat cannot be reached");
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(backoff.next()) => {}
        }
    }
}

async fn serve(
    routes: &Routes,
    route: &Route,
    address: &str,
    parcels: &mut mpsc::Receiver<Parcel>,
    book: &mut Book,
) -> Result<(), Status> {
    let channel = channel(address).await.map_err(|error| Status::unavailable(error.to_string()))?;
    let (requests, outbound) = mpsc::channel(ROUTE_REQUESTS_MAX);
    let mut chat = ChatServiceClient::new(channel).max_decoding_message_size(REQUEST_BYTES_MAX);
    let mut responses = chat.route(ReceiverStream::new(outbound)).await?.into_inner();
    routes.set_live(route, true);
    info!(address, "a chat's stream is open");
    pump(routes, parcels, book, &requests, &mut responses).await
}

async fn pump(
    routes: &Routes,
    parcels: &mut mpsc::Receiver<Parcel>,
    book: &mut Book,
    requests: &mpsc::Sender<RouteRequest>,
    responses: &mut Streaming<RouteResponse>,
) -> Result<(), Status> {
    let mut gathered = Vec::new();
    loop {
        let stalled_at = book.stalled_at(ROUTE_STALL_MAX);
        let stall = stalled_at.unwrap_or_else(|| Instant::now() + ROUTE_STALL_MAX);
        tokio::select! {
            biased;
            response = responses.message() => match response? {
                Some(response) => book.answered(&response, Instant::now()),
                None => return Ok(()),
            },
            () = sleep_until(stall.into()), if stalled_at.is_some() => {
                return Err(Status::deadline_exceeded("the chat does not answer"));
            }
            permit = requests.reserve(), if !gathered.is_empty() => {
                let Ok(permit) = permit else { return Ok(()) };
                let next = cut(&mut gathered);
                let items: usize = next.iter().map(Parcel::items).sum();
                routes.meters.routed.increment(items as u64);
                permit.send(book.request(next, Instant::now()));
            }
            count = parcels.recv_many(&mut gathered, ROUTE_ITEMS_MAX), if gathered.is_empty() => {
                if count == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// The parcels of the next request, from the front, within the bounds. A single one always is.
pub(super) fn cut(gathered: &mut Vec<Parcel>) -> Vec<Parcel> {
    let (mut items, mut bytes) = (0, 0);
    let fits = gathered
        .iter()
        .take_while(|parcel| {
            items += parcel.items();
            bytes += parcel.bytes();
            items <= ROUTE_ITEMS_MAX && bytes <= ROUTE_BYTES_MAX
        })
        .count();
    let rest = gathered.split_off(fits.max(1).min(gathered.len()));
    std::mem::replace(gathered, rest)
}
