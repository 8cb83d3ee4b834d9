//! The task of one Route stream: I/O around [`Pairs`] and [`Receipts`].
//!
//! ```text
//! gateway ─▶ validate ─▶ Pairs ──────┐                      ┌─▶ pushes to gateways
//!                     └▶ Receipts ─┐ ├─▶ store (SDK lane) ──┤
//! gateway ◀───────── answers ◀─────┴─┴──────────────────────┘
//! ```
//!
//! What goes to the store at once is dealt out by the node that takes it, and each part is answered
//! by itself: a node that is slow or gone holds up nobody else's messages. A pair lies in one part.
//!
//! Everything that changes the state machines happens in this one task; the store's answers come
//! to it over a channel. Pushes are handed over on the SDK's task, in the order in which the store
//! answered, before the gateway gets its answer.

use std::sync::Arc;

use switchboard_api::{
    limits::ROUTE_ITEMS_MAX,
    v1::{RouteRequest, RouteResponse, enqueue_response, route_response::Result as Answer},
    validate::{self, Fault},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tonic::{Status, Streaming};
use tracing::debug;

use super::{
    pairs::{Outcome, Outgoing, Pairs, Step, is_retryable},
    patience::{Patience, SPREAD_MAX},
    receipts::{Gathered, Receipts},
    router::Router,
};
use crate::limits::{STREAM_BYTES_MAX, STREAM_ITEMS_MAX};

type Outbound = mpsc::Sender<Result<RouteResponse, Status>>;

/// A call that the store has answered.
enum Resolved {
    Sends(Vec<Outgoing>, Vec<Outcome>),
    Receipts(Vec<Gathered>, Vec<Outcome>),
}

/// Serves one stream until its gateway is done or gone, or the process shuts down; in the first
/// and last case everything under way is answered before.
pub(crate) async fn run(
    router: Arc<Router>,
    mut inbound: Streaming<RouteRequest>,
    outbound: Outbound,
) {
    // Not bounded by itself: it holds at most what is under way, which is.
    let (resolved, mut resolutions) = mpsc::unbounded_channel();
    let mut stream = Stream {
        router: router.clone(),
        pairs: Pairs::default(),
        receipts: Receipts::default(),
        flush_at: None,
        resolved,
        answers: Vec::new(),
        patience: Patience::new(),
    };
    let mut reading = true;
    loop {
        let flush_at = stream.flush_at;
        tokio::select! {
            biased;
            Some(first) = resolutions.recv(), if stream.is_busy() => {
                stream.resolve(first);
                // One response for all that is there.
                while let Ok(next) = resolutions.try_recv() {
                    stream.resolve(next);
                }
            }
            () = sleep_until(flush_at.unwrap_or_else(Instant::now)), if flush_at.is_some() => {
                stream.flush_receipts();
            }
            () = router.draining.cancelled(), if reading => {
                reading = false;
                stream.flush_receipts();
            }
            message = inbound.message(), if reading && stream.has_room() => match message {
                Ok(Some(request)) => {
                    if let Err(status) = stream.accept(request) {
                        let _ = outbound.send(Err(status)).await;
                        return;
                    }
                }
                Ok(None) => {
                    reading = false;
                    stream.flush_receipts();
                }
                Err(status) => {
                    debug!(%status, "a gateway's Route stream broke");
                    return;
                }
            },
        }
        if !stream.send_answers(&outbound).await || (!reading && !stream.is_busy()) {
            return;
        }
    }
}

struct Stream {
    router: Arc<Router>,
    pairs: Pairs,
    receipts: Receipts,
    /// When the receipts that wait go to the store.
    flush_at: Option<Instant>,
    resolved: mpsc::UnboundedSender<Resolved>,
    /// For the next response.
    answers: Vec<Answer>,
    /// How long the gateway is told to wait; grows while the store has trouble.
    patience: Patience,
}

impl Stream {
    fn is_busy(&self) -> bool {
        self.pairs.items() + self.receipts.items() > 0
    }

    fn has_room(&self) -> bool {
        self.pairs.items() + self.receipts.items() < STREAM_ITEMS_MAX
            && self.pairs.bytes() < STREAM_BYTES_MAX
    }

    fn accept(&mut self, request: RouteRequest) -> Result<(), Status> {
        let RouteRequest { mut sends, receipts, failures_seen } = request;
        for (field, count) in [("sends", sends.len()), ("receipts", receipts.len())] {
            validate::at_most(field, count, ROUTE_ITEMS_MAX)
                .map_err(|fault| Status::invalid_argument(fault.to_string()))?;
        }
        sends.retain(|send| match validate::route_send(send) {
            Ok(()) => true,
            Err(fault) => {
                self.refuse(send.id, &fault);
                false
            }
        });
        let step = self.pairs.accept(sends, failures_seen);
        self.act(step);
        if self.pairs.has_too_many_marks() {
            return Err(Status::resource_exhausted("`failures_seen` does not move"));
        }
        for receipts in receipts {
            match validate::route_receipts(&receipts) {
                Ok(()) => self.receipts.accept(&receipts),
                Err(fault) => self.refuse(receipts.id, &fault),
            }
        }
        if self.receipts.is_full() {
            self.flush_receipts();
        } else if self.receipts.is_waiting() && self.flush_at.is_none() {
            self.flush_at = Some(Instant::now() + self.router.receipt_merge);
        }
        Ok(())
    }

    fn refuse(&mut self, id: u64, fault: &Fault) {
        debug!(id, %fault, "refused");
        let status = fault.status().into();
        self.answers.push(Answer { id, status, at_ms: 0, retry_after_ms: 0 });
    }

    fn act(&mut self, step: Step) {
        self.answers.extend(step.answers);
        for call in step.calls {
            for part in self.router.store.by_node(call, Outgoing::recipient) {
                self.enqueue(part);
            }
        }
    }

    fn enqueue(&self, call: Vec<Outgoing>) {
        let items = call.iter().map(|sent| sent.item.clone()).collect();
        let (router, resolved) = (self.router.clone(), self.resolved.clone());
        self.router.enqueue(items, move |results| {
            let answered = call.iter().map(|sent| &sent.item).zip(&results);
            router.dispatcher.push_all(answered.clone());
            if let Some(notifier) = &router.notifier {
                notifier.note_all(answered);
            }
            let outcomes = outcomes(&results);
            router.meters.sends(&outcomes);
            router.copy(call, outcomes, move |call, outcomes| {
                // Nobody listens once the stream has ended; the messages are stored all the same.
                let _ = resolved.send(Resolved::Sends(call, outcomes));
            });
        });
    }

    fn flush_receipts(&mut self) {
        self.flush_at = None;
        for call in self.receipts.gather() {
            for part in self.router.store.by_node(call, Gathered::recipient) {
                self.finish(part);
            }
        }
    }

    fn finish(&self, call: Vec<Gathered>) {
        let items = call.iter().map(|gathered| gathered.item.clone()).collect();
        let (router, resolved) = (self.router.clone(), self.resolved.clone());
        self.router.finish(items, move |results| {
            router.dispatcher.push_all(call.iter().map(|gathered| &gathered.item).zip(&results));
            let outcomes = outcomes(&results);
            router.meters.receipts(&outcomes);
            let _ = resolved.send(Resolved::Receipts(call, outcomes));
        });
    }

    fn resolve(&mut self, resolved: Resolved) {
        match resolved {
            Resolved::Sends(call, outcomes) => {
                self.note(&outcomes);
                let step = self.pairs.resolve(call, &outcomes);
                self.act(step);
            }
            Resolved::Receipts(call, outcomes) => {
                self.note(&outcomes);
                self.answers.extend(self.receipts.resolve(call, &outcomes));
            }
        }
    }

    fn note(&mut self, outcomes: &[Outcome]) {
        if outcomes.iter().any(|outcome| !is_retryable(outcome.status)) {
            self.patience.reset();
        }
    }

    /// False when the gateway is gone.
    async fn send_answers(&mut self, outbound: &Outbound) -> bool {
        if self.answers.is_empty() {
            return true;
        }
        let mut results = std::mem::take(&mut self.answers);
        let now = Instant::now();
        for answer in &mut results {
            if is_retryable(answer.status()) {
                let wait = self.patience.wait(now);
                // Each its own, so that what was sent back together does not come back together.
                let spread = wait.mul_f64(rand::random_range(1.0..=f64::from(SPREAD_MAX)));
                answer.retry_after_ms = spread.as_millis().max(1) as u64;
            }
        }
        let response = RouteResponse { results, failures: self.pairs.failures() };
        outbound.send(Ok(response)).await.is_ok()
    }
}

fn outcomes(results: &[enqueue_response::Result]) -> Vec<Outcome> {
    results
        .iter()
        .map(|result| Outcome { status: result.status(), at_ms: result.enqueued_at_ms })
        .collect()
}
