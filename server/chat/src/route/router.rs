//! What all Route streams share, above all the way to the store: as much at once as it can take.
//!
//! ```text
//!   sends ─▶ Gate ── Go ─────────────▶ store (SDK lane) ─▶ answered ─▶ done
//!             ├──── Wait ─▶ waiting ──▲ ◀── there is room again ──┘
//!             └──── Refused: OVERLOADED
//! ```
//! What finishes a message that was let in before, a receipt or a copy for own devices, goes before new
//! sends and is never refused: each would come back, and hold its message until then.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use switchboard_api::v1::{ItemStatus, enqueue_request, enqueue_response};
use switchboard_sdk::Client;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    concurrency::{Concurrency, Entry},
    copies::{copies, unite},
    pairs::{Outcome, Outgoing},
};
use crate::{delivery::Dispatcher, meters::Meters, notifier::Notifier};

/// Items on their way to the store, and who is told.
struct Call {
    items: Vec<enqueue_request::Item>,
    done: Box<dyn FnOnce(Vec<enqueue_response::Result>) + Send>,
}

/// Who may go to the store, and who waits for it.
pub(crate) struct Gate {
    concurrency: Concurrency,
    /// New ones, in the order in which they came. Bounded by [`Concurrency`], and by what the streams hold.
    waiting: VecDeque<Call>,
    /// Those that finish something. Bounded by what the streams hold.
    finishing: VecDeque<Call>,
    /// Somebody starts those that may go, one after the other, and will look again.
    is_starting: bool,
}

impl Gate {
    pub(crate) fn new(latency_target: Duration) -> Self {
        let concurrency = Concurrency::new(latency_target, Instant::now());
        let (waiting, finishing) = (VecDeque::new(), VecDeque::new());
        Self { concurrency, waiting, finishing, is_starting: false }
    }

    /// The call that may go next; whoever takes it is the one who starts calls.
    fn next(&mut self) -> Option<Call> {
        if self.is_starting {
            return None;
        }
        let call = match self.finishing.front() {
            Some(call) => self.concurrency.pass(call.items.len()).then_some(&mut self.finishing),
            None => {
                let items = self.waiting.front()?.items.len();
                self.concurrency.next(items).then_some(&mut self.waiting)
            }
        };
        let call = call?.pop_front();
        self.is_starting = call.is_some();
        call
    }
}

/// What all Route streams share.
pub(crate) struct Router {
    pub(crate) store: Client,
    /// A lock, because the tasks of all streams and those of the client change it; held for a few
    /// moves.
    pub(crate) gate: Mutex<Gate>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// `None`: nobody is woken up.
    pub(crate) notifier: Option<Arc<Notifier>>,
    pub(crate) receipt_merge: Duration,
    pub(crate) meters: Meters,
    /// No new requests are read once it is cancelled.
    pub(crate) draining: CancellationToken,
}

impl Router {
    /// Stores new items as soon as the store can take them, or sends them back at once when too much
    /// waits already. `done` is called exactly once, with a result for each.
    pub(super) fn enqueue(
        self: &Arc<Self>,
        items: Vec<enqueue_request::Item>,
        done: impl FnOnce(Vec<enqueue_response::Result>) + Send + 'static,
    ) {
        let (count, call) = (items.len(), Call { items, done: Box::new(done) });
        let mut gate = self.gate.lock();
        let call = match gate.concurrency.enter(count) {
            Entry::Go => Ok(call),
            Entry::Wait => return gate.waiting.push_back(call),
            Entry::Refused => Err(call),
        };
        drop(gate);
        match call {
            Ok(call) => self.go(call),
            Err(call) => {
                self.meters.held_back.increment(count as u64);
                (call.done)(vec![refused(ItemStatus::Overloaded); count]);
            }
        }
    }

    /// Stores items that finish something as soon as the store can take them, before new ones.
    pub(super) fn finish(
        self: &Arc<Self>,
        items: Vec<enqueue_request::Item>,
        done: impl FnOnce(Vec<enqueue_response::Result>) + Send + 'static,
    ) {
        let call = Call { items, done: Box::new(done) };
        let mut gate = self.gate.lock();
        if !gate.concurrency.pass(call.items.len()) {
            return gate.finishing.push_back(call);
        }
        drop(gate);
        self.go(call);
    }

    fn go(self: &Arc<Self>, call: Call) {
        let Call { items, done } = call;
        let (count, began) = (items.len(), Instant::now());
        // `done` goes where it is called, whether or not the client takes the items.
        let done = Arc::new(Mutex::new(Some(done)));
        let (taken, router) = (done.clone(), self.clone());
        let handed_over = self.store.enqueue_then(items, move |results| {
            router.answered(count, began, &results);
            let done = taken.lock().take();
            if let Some(done) = done {
                done(results);
            }
        });
        if let Err(error) = handed_over {
            // The bounds of a stream's calls lie within those of the client; see `limits.rs`.
            tracing::error!(%error, "the client refused a call");
            self.answered(count, began, &[]);
            let done = done.lock().take();
            if let Some(done) = done {
                done(vec![refused(ItemStatus::Invalid); count]);
            }
        }
    }

    /// A call was answered: whoever waits may be next.
    fn answered(
        self: &Arc<Self>,
        items: usize,
        began: Instant,
        results: &[enqueue_response::Result],
    ) {
        // UNAVAILABLE says nothing about load: a leader has changed, or a node is gone.
        let refused = results.iter().any(|result| result.status() == ItemStatus::Overloaded);
        let mut gate = self.gate.lock();
        let concurrency = &mut gate.concurrency;
        concurrency.end(items, began, refused, Instant::now());
        let (limit, in_flight) = (concurrency.limit(), concurrency.in_flight());
        drop(gate);
        self.meters.store_limit.set(limit as f64);
        self.meters.store_items.set(in_flight as f64);
        self.start_waiting();
    }

    /// Starts the calls that may go now. A call can be answered before this returns, and that leads
    /// here again: the inner one leaves the rest to the outer one, so the stack stays flat.
    fn start_waiting(self: &Arc<Self>) {
        loop {
            let Some(call) = self.gate.lock().next() else { return };
            self.go(call);
            self.gate.lock().is_starting = false;
        }
    }

    /// Stores the copies that the sends of an answered call ask for, then calls `done`: once for
    /// each node that stores copies, with all sends of its users. A send whose copy has to be tried again
    /// is tried again as a whole; its first half is a duplicate then.
    pub(super) fn copy(
        self: &Arc<Self>,
        call: Vec<Outgoing>,
        outcomes: Vec<Outcome>,
        done: impl FnOnce(Vec<Outgoing>, Vec<Outcome>) + Clone + Send + 'static,
    ) {
        if !call.iter().any(|sent| sent.to_own_devices) {
            done(call, outcomes);
            return;
        }
        let answered: Vec<_> = call.into_iter().zip(outcomes).collect();
        for part in self.store.by_node(answered, |(sent, _)| sent.sender()) {
            let (call, mut outcomes): (Vec<_>, Vec<_>) = part.into_iter().unzip();
            let (places, items) = copies(&call, &outcomes);
            if items.is_empty() {
                done.clone()(call, outcomes);
                continue;
            }
            let (router, copied, done) = (self.clone(), items.clone(), done.clone());
            self.finish(items, move |results| {
                // Nobody is woken up by what another device of the user has sent.
                router.dispatcher.push_all(copied.iter().zip(&results));
                unite(&mut outcomes, &places, &results);
                done(call, outcomes);
            });
        }
    }
}

fn refused(status: ItemStatus) -> enqueue_response::Result {
    enqueue_response::Result { status: status.into(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::STORE_ITEMS_INITIAL;

    fn call(items: usize) -> Call {
        Call { items: vec![enqueue_request::Item::default(); items], done: Box::new(|_| {}) }
    }

    #[test]
    fn what_finishes_a_message_goes_before_new_ones() {
        let began = Instant::now();
        let mut gate = Gate::new(Duration::from_millis(100));
        assert_eq!(gate.concurrency.enter(STORE_ITEMS_INITIAL), Entry::Go);
        assert_eq!(gate.concurrency.enter(1), Entry::Wait);
        gate.waiting.push_back(call(1));
        assert!(!gate.concurrency.pass(2), "there is no room");
        gate.finishing.push_back(call(2));
        assert!(gate.next().is_none());
        gate.concurrency.end(STORE_ITEMS_INITIAL, began, false, began);
        for items in [2, 1] {
            assert_eq!(gate.next().map(|call| call.items.len()), Some(items));
            gate.is_starting = false;
        }
        assert!(gate.next().is_none());
        assert_eq!(gate.concurrency.in_flight(), 3);
    }
}
