//! The way to the chats: one Route stream to each chat process, shared by all connections.
//!
//! ```text
//! connections ─▶ queue ─▶ stream task ══Route══▶ chat        (a task per chat, while it is listed)
//!      ▲                     │ answers, by id
//!      └── Event::Routed ◀───┘ UNAVAILABLE for all when the stream breaks
//! ```
//! A connection stays with one stream for as long as that lives. Every item that was taken is
//! answered exactly once; what a broken stream owed is answered UNAVAILABLE, and the connection
//! sends it again, in order, on another.

mod book;
mod stream;

pub(crate) use stream::channel;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::RwLock;
use switchboard_api::{
    device::v1::Send,
    v1::{DeviceRef, GatewayInfo, register_request::Kind},
};
use switchboard_sdk::Client;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    limits::ROUTE_QUEUE_MAX,
    meters::Meters,
    outcome::Outcome,
    peers::{Event, Peer},
    receipts::Batch,
};

/// What goes to a chat.
#[derive(Debug)]
pub(crate) enum What {
    Send(Send),
    Receipts(Batch),
}

/// Who waits for an answer. Dropped without one, it answers UNAVAILABLE, so none is ever owed.
#[derive(Debug)]
pub(crate) struct Ticket {
    peer: Arc<Peer>,
    /// The connection's own id of it.
    id: u64,
    answered: bool,
}

impl Ticket {
    pub(crate) fn new(peer: Arc<Peer>, id: u64) -> Self {
        Self { peer, id, answered: false }
    }

    fn answer(mut self, outcome: Outcome) {
        self.answered = true;
        self.peer.tell(Event::Routed { id: self.id, outcome });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.peer.tell(Event::Routed { id: self.id, outcome: Outcome::UNAVAILABLE });
        }
    }
}

/// An item, and who waits for its answer.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) ticket: Ticket,
    pub(crate) from: DeviceRef,
    pub(crate) what: What,
}

/// One chat's stream.
#[derive(Debug)]
pub(crate) struct Route {
    queue: mpsc::Sender<Item>,
    live: AtomicBool,
}

impl Route {
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// Takes an item, or answers that it cannot.
    pub(crate) fn submit(&self, item: Item) {
        if let Err(refused) = self.queue.try_send(item) {
            let overloaded = matches!(refused, mpsc::error::TrySendError::Full(_));
            let item = refused.into_inner();
            let mut outcome = Outcome { retry_after_ms: 50, ..Outcome::UNAVAILABLE };
            if overloaded {
                outcome.status = switchboard_api::v1::ItemStatus::Overloaded;
            }
            item.ticket.answer(outcome);
        }
    }
}

/// All live streams.
pub(crate) struct Routes {
    routes: RwLock<Vec<Arc<Route>>>,
    /// A stream broke: messages may have been stored and not pushed.
    broken: Arc<Notify>,
    meters: Arc<Meters>,
}

impl Routes {
    /// Follows the list of chats until `stop`.
    pub(crate) fn start(
        client: &Client,
        broken: Arc<Notify>,
        meters: Arc<Meters>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let routes = Arc::new(Self { routes: RwLock::default(), broken, meters });
        let mut chats = client.watch_gateways(Kind::Chat);
        let following = routes.clone();
        tokio::spawn(async move {
            let mut known = HashMap::new();
            loop {
                let list = chats.borrow_and_update().clone();
                following.follow(&list, &mut known, &stop);
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = chats.changed() => if changed.is_err() { return },
                }
            }
        });
        routes
    }

    /// The stream for a connection; `None` while there is no chat.
    pub(crate) fn pick(&self, connection_id: u64) -> Option<Arc<Route>> {
        let routes = self.routes.read();
        let live: Vec<&Arc<Route>> = routes.iter().filter(|route| route.is_live()).collect();
        let count = u64::try_from(live.len()).ok().filter(|count| *count > 0)?;
        let at = usize::try_from(connection_id % count).ok()?;
        live.get(at).map(|route| Arc::clone(route))
    }

    /// Starts tasks for new chats, and ends those of chats that are gone.
    fn follow(
        self: &Arc<Self>,
        list: &[GatewayInfo],
        known: &mut HashMap<(u32, u64), CancellationToken>,
        stop: &CancellationToken,
    ) {
        known.retain(|key, task| {
            let listed = list.iter().any(|chat| (chat.gateway_id, chat.incarnation) == *key);
            if !listed {
                task.cancel();
            }
            listed
        });
        for chat in list {
            let key = (chat.gateway_id, chat.incarnation);
            if known.contains_key(&key) {
                continue;
            }
            let task = stop.child_token();
            known.insert(key, task.clone());
            let (queue, items) = mpsc::channel(ROUTE_QUEUE_MAX);
            let route = Arc::new(Route { queue, live: AtomicBool::new(false) });
            self.routes.write().push(route.clone());
            let (routes, address) = (self.clone(), chat.address.clone());
            tokio::spawn(async move {
                stream::run(&routes, &route, &address, items, task).await;
                routes.routes.write().retain(|other| !Arc::ptr_eq(other, &route));
            });
        }
    }

    fn set_live(&self, route: &Route, live: bool) {
        let was = route.live.swap(live, Ordering::AcqRel);
        if was && !live {
            self.meters.routes_broken.increment(1);
            self.broken.notify_one();
        }
    }
}
