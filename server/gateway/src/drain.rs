//! `DrainService`: empties a gateway at a rate, with progress, for as long as the operator stays.
//!
//! ```text
//!   Serving ── Drain ──▶ Draining ── nobody left ──▶ Drained (until the process ends)
//!      ▲                    │
//!      └─ the caller goes ──┘
//! ```
//! While it drains, whoever logs in is sent to another gateway, and the process is not ready. Each
//! device that is sent away makes a login elsewhere, so the rate is one of logins: it should lie
//! below what the others have to spare.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use switchboard_api::{
    device::v1::redirect::Reason,
    v1::{DrainRequest, DrainResponse, drain_service_server::DrainService},
};
use tokio::{sync::mpsc, time::interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::info;

use crate::{
    gateway::{Gateway, now},
    limits::{DRAIN_LOOK_INTERVAL, DRAIN_RATE_DEFAULT, DRAIN_RATE_MAX, DRAIN_SPREAD_MS},
    peers::Event,
};

/// Whether a drain is under way or done.
#[derive(Debug, Default)]
pub(crate) struct Draining(AtomicBool);

impl Draining {
    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// False when it was on already.
    fn begin(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    fn end(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// How many devices have to go by when.
#[derive(Debug)]
struct Pace {
    rate_per_s: u32,
    began: Instant,
    sent: u64,
}

impl Pace {
    fn new(rate_per_s: u32, began: Instant) -> Self {
        Self { rate_per_s, began, sent: 0 }
    }

    /// How many more are due at `now`; they count as sent.
    fn due(&mut self, now: Instant) -> usize {
        let since = now.saturating_duration_since(self.began);
        let by_now = (since.as_secs_f64() * f64::from(self.rate_per_s)) as u64;
        let due = by_now.saturating_sub(self.sent);
        self.sent += due;
        usize::try_from(due).unwrap_or(usize::MAX)
    }
}

/// The service of a gateway.
pub(crate) struct Drains(pub(crate) Arc<Gateway>);

#[tonic::async_trait]
impl DrainService for Drains {
    type DrainStream = ReceiverStream<Result<DrainResponse, Status>>;

    async fn drain(
        &self,
        request: Request<DrainRequest>,
    ) -> Result<Response<Self::DrainStream>, Status> {
        let is_near = request.remote_addr().is_some_and(|from| from.ip().is_loopback());
        if !is_near && !self.0.config.insecure {
            return Err(Status::permission_denied("Drain is for operators, on this machine"));
        }
        let rate_per_s = match request.into_inner().rate_per_s {
            0 => DRAIN_RATE_DEFAULT,
            rate => rate.min(DRAIN_RATE_MAX),
        };
        if !self.0.drained.begin() {
            return Err(Status::failed_precondition(
                "a drain is under way or done; after one that is done, restart the gateway to take devices in again",
            ));
        }
        let (progress, answers) = mpsc::channel(1);
        let gateway = self.0.clone();
        tokio::spawn(async move { drain(&gateway, rate_per_s, &progress).await });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

async fn drain(
    gateway: &Gateway,
    rate_per_s: u32,
    progress: &mpsc::Sender<Result<DrainResponse, Status>>,
) {
    let connections = gateway.peers.len() as u64;
    info!(connections, rate_per_s, "draining");
    let mut looks = interval(DRAIN_LOOK_INTERVAL);
    let mut pace = Pace::new(rate_per_s, now());
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            () = progress.closed() => {
                info!(left = gateway.peers.len(), "the drain was aborted");
                gateway.drained.end();
                return;
            }
            _ = looks.tick() => {}
        }
        let due = pace.due(now());
        send_away(gateway, &mut waiting, due);
        let left = gateway.peers.len() as u64;
        let done = left == 0;
        // A slow reader misses some of the numbers in between.
        let told = DrainResponse { connections, left, done };
        if done {
            // Nobody is left to be told anything else; the caller may be gone.
            let _ = progress.send(Ok(told)).await;
            info!(connections, "drained");
            return;
        }
        let _ = progress.try_send(Ok(told));
    }
}

/// Tells `count` devices to go. `waiting` are those of an earlier look that have not been told; who
/// was taken in while the drain began is found by the next look.
fn send_away(gateway: &Gateway, waiting: &mut Vec<u64>, count: usize) {
    if waiting.is_empty() {
        gateway.peers.for_each(|peer| {
            if !peer.was_told_to_leave() {
                waiting.push(peer.connection_id);
            }
        });
    }
    for connection_id in waiting.drain(waiting.len().saturating_sub(count)..) {
        if let Some(peer) = gateway.peers.get(connection_id) {
            let retry_after_ms = rand::random_range(0..=DRAIN_SPREAD_MS);
            peer.tell(Event::Leave { reason: Reason::Draining, retry_after_ms });
        }
    }
}

const _: () = assert!(DRAIN_LOOK_INTERVAL.as_millis() < Duration::from_secs(1).as_millis());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_go_at_the_rate_however_often_it_is_looked() {
        let start = Instant::now();
        for step_ms in [1, 50, 333] {
            let mut pace = Pace::new(700, start);
            let mut gone = 0;
            for look in 1..=10_000 / step_ms {
                let at = start + Duration::from_millis(look * step_ms);
                gone += pace.due(at);
                let expected = 0.7 * (look * step_ms) as f64;
                assert!((gone as f64 - expected).abs() <= 1.0, "{gone} after {look} looks");
            }
        }
    }

    #[test]
    fn one_drain_at_a_time() {
        let draining = Draining::default();
        assert!(draining.begin());
        assert!(!draining.begin());
        assert!(draining.is_on());
        draining.end();
        assert!(draining.begin());
    }
}
