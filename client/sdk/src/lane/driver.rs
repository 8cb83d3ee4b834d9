//! The task that keeps a lane's stream: opens it when there is something to send, deals out the
//! answers, and opens it again, for ever, when it breaks.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, transport::Channel};
use tracing::{debug, warn};

use super::{Call, Outbound, Shared};
use crate::{health::Health, limits::STALL_CHECK_INTERVAL, retry::Backoff};

/// What a driver needs besides the channel.
#[derive(Clone)]
pub(crate) struct DriverOptions {
    pub(crate) stall_timeout: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) health: Arc<Health>,
    pub(crate) stop: CancellationToken,
}

pub(super) async fn run<C: Call>(
    shared: Arc<Shared<C>>,
    channel: Channel,
    mut options: DriverOptions,
) {
    let stop = options.stop.clone();
    // Inside, only awaits; so a stop is seen at once, and then everything left is answered.
    let _ = stop.run_until_cancelled(keep(&shared, channel, &mut options)).await;
    shared.fail_all(true);
}

async fn keep<C: Call>(shared: &Arc<Shared<C>>, channel: Channel, options: &mut DriverOptions) {
    loop {
        wait_for_work(shared).await;
        match open(shared, channel.clone(), options.stall_timeout).await {
            Ok(inbound) => {
                options.health.up();
                let (answers, end) = serve(shared, inbound, options.stall_timeout).await;
                debug!(call = C::NAME, node = options.health.address(), %end, "stream ended");
                if answers > 0 {
                    options.backoff.reset();
                }
            }
            Err(status) => {
                debug!(call = C::NAME, node = options.health.address(), %status, "no stream");
            }
        }
        // Whether it is there still may take long to find out; others pass on what is for it meanwhile.
        options.health.silent();
        shared.fail_all(false);
        sleep(options.backoff.next()).await;
    }
}

async fn wait_for_work<C: Call>(shared: &Shared<C>) {
    loop {
        let work = shared.work.notified();
        if shared.state.lock().queue.has_waiting() {
            return;
        }
        work.await;
    }
}

async fn open<C: Call>(
    shared: &Arc<Shared<C>>,
    channel: Channel,
    wait_max: Duration,
) -> Result<Streaming<C::Response>, Status> {
    let stream = {
        let mut state = shared.state.lock();
        state.stream += 1;
        state.live = true;
        state.stream
    };
    let outbound = Outbound { shared: shared.clone(), stream };
    timeout(wait_max, C::open(channel, outbound))
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the node does not answer")))
}

/// Deals out answers until the stream ends: how many came, and why it ended.
async fn serve<C: Call>(
    shared: &Shared<C>,
    mut inbound: Streaming<C::Response>,
    stall_timeout: Duration,
) -> (u64, Status) {
    let mut stall_check = interval(STALL_CHECK_INTERVAL);
    stall_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answers = 0;
    loop {
        tokio::select! {
            biased;
            message = inbound.message() => match message {
                Ok(Some(response)) => {
                    answers += 1;
                    deal_out(shared, response);
                }
                Ok(None) => return (answers, Status::unavailable("closed by the node")),
                Err(status) => return (answers, status),
            },
            _ = stall_check.tick() => {
                let oldest = shared.state.lock().queue.oldest_under_way();
                if oldest.is_some_and(|since| since + stall_timeout <= Instant::now()) {
                    return (answers, Status::deadline_exceeded("an answer is overdue"));
                }
            }
        }
    }
}

fn deal_out<C: Call>(shared: &Shared<C>, response: C::Response) {
    let (id, answers) = C::response(response);
    let mut state = shared.state.lock();
    let answered = state.queue.answer(id, answers);
    // There may be room for another message now.
    let waker = if state.queue.has_waiting() { state.outbound.take() } else { None };
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
    match answered {
        Some(answered) => answered.into_iter().for_each(|(done, answers)| done(answers)),
        None => warn!(call = C::NAME, id, "an answer to nothing that was asked"),
    }
}
