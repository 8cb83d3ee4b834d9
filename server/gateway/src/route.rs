//! The way to the chats: one Route stream to each chat process, shared by all connections.
//!
//! ```text
//! connections ─▶ queue ─▶ stream task ══Route══▶ chat        (a task per chat, while it is listed)
//!      ▲                     │ answers, by id
//!      └── Event::Routed ◀───┘ UNAVAILABLE for all when the stream breaks
//! ```
//! A connection stays with one stream for as long as that lives. Every item that was taken is
//! answered exactly once; what a broken stream owed is answered UNAVAILABLE, and the connection
//! sends it again, in order, on another. Sends that must not overtake each other are one parcel,
//! which is queued, refused, written and lost as a whole.

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

/// What goes to a chat, and who waits for the answers.
#[derive(Debug)]
pub(crate) enum What {
    /// To one user, in this order.
    Sends(Vec<(Ticket, Send)>),
    Receipts(Ticket, Batch),
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

/// What is never parted on its way: if a send could get through after one before it was refused or
/// lost, it would overtake that one.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) from: DeviceRef,
    pub(crate) what: What,
}

impl Parcel {
    fn items(&self) -> usize {
        match &self.what {
            What::Sends(sends) => sends.len(),
            What::Receipts(..) => 1,
        }
    }

    fn bytes(&self) -> usize {
        match &self.what {
            What::Sends(sends) => sends.iter().map(|(_, send)| send.body.len()).sum(),
            What::Receipts(_, batch) => batch.message_ids.len() * 16,
        }
    }

    pub(crate) fn answer(self, outcome: Outcome) {
        match self.what {
            What::Sends(sends) => sends.into_iter().for_each(|(ticket, _)| ticket.answer(outcome)),
            What::Receipts(ticket, _) => ticket.answer(outcome),
        }
    }
}

/// One chat's stream.
#[derive(Debug)]
pub(crate) struct Route {
    queue: mpsc::Sender<Parcel>,
    live: AtomicBool,
}

impl Route {
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// Takes a parcel, or answers that it cannot.
    pub(crate) fn submit(&self, parcel: Parcel) {
        if let Err(refused) = self.queue.try_send(parcel) {
            let overloaded = matches!(refused, mpsc::error::TrySendError::Full(_));
            let parcel = refused.into_inner();
            let mut outcome = Outcome { retry_after_ms: 50, ..Outcome::UNAVAILABLE };
            if overloaded {
                outcome.status = switchboard_api::v1::ItemStatus::Overloaded;
            }
            parcel.answer(outcome);
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
            let (queue, parcels) = mpsc::channel(ROUTE_QUEUE_MAX);
            let route = Arc::new(Route { queue, live: AtomicBool::new(false) });
            self.routes.write().push(route.clone());
            let (routes, address) = (self.clone(), chat.address.clone());
            tokio::spawn(async move {
                stream::run(&routes, &route, &address, parcels, task).await;
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

#[cfg(test)]
mod tests {
    use switchboard_api::v1::{ItemStatus, RouteResponse, route_response};

    use super::*;
    use crate::peers::Peers;

    /// So many sends of a device to one user, with bodies of so many bytes.
    fn parcel(peer: &Arc<Peer>, ids: std::ops::Range<u64>, bytes: usize) -> Parcel {
        let send = |id| {
            (Ticket::new(peer.clone(), id), Send { body: vec![0; bytes].into(), ..Send::default() })
        };
        Parcel { from: peer.device(), what: What::Sends(ids.map(send).collect()) }
    }

    fn peer() -> Arc<Peer> {
        Peers::default().add(&DeviceRef { user: "alice".into(), device: 1 }, 1)
    }

    /// The ids that were answered so, in this order.
    fn answered(peer: &Peer, with: ItemStatus) -> Vec<u64> {
        let answer = |event| match event {
            Event::Routed { id, outcome } if outcome.status == with => id,
            other => panic!("{other:?}"),
        };
        peer.take().events.into_iter().map(answer).collect()
    }

    #[test]
    fn a_batch_that_finds_no_room_is_refused_whole_although_room_appears_meanwhile() {
        let (queue, mut queued) = mpsc::channel(2);
        let route = Route { queue, live: AtomicBool::new(true) };
        let peer = peer();
        route.submit(parcel(&peer, 0..1, 0));
        route.submit(parcel(&peer, 1..4, 0));
        route.submit(parcel(&peer, 4..7, 0));
        assert_eq!(answered(&peer, ItemStatus::Overloaded), [4, 5, 6]);
        let taken: Vec<usize> =
            std::iter::from_fn(|| queued.try_recv().ok()).map(|parcel| parcel.items()).collect();
        assert_eq!(taken, [1, 3]);
        assert_eq!(
            answered(&peer, ItemStatus::Unavailable),
            [0, 1, 2, 3],
            "they were lost with the queue"
        );
    }

    #[test]
    fn a_batch_is_written_whole_and_stamped_once() {
        let peer = peer();
        let mut book = book::Book::default();
        let now = std::time::Instant::now();
        let mut gathered = vec![parcel(&peer, 0..300, 0), parcel(&peer, 300..600, 0)];
        for (count, failures) in [(300, 0), (300, 7)] {
            let request = book.request(stream::cut(&mut gathered), now);
            assert_eq!((request.sends.len(), request.failures_seen), (count, failures));
            let results = Vec::new();
            book.answered(&RouteResponse { results, failures: 7 }, now);
        }
        let results = vec![route_response::Result { id: 600, ..Default::default() }];
        book.answered(&RouteResponse { results, failures: 7 }, now);
        drop(book);
        assert_eq!(peer.take().events.len(), 600, "each is answered once");
    }

    #[test]
    fn a_request_is_within_its_bounds_but_for_a_single_batch() {
        use crate::limits::{ROUTE_BYTES_MAX, ROUTE_ITEMS_MAX};
        let peer = peer();
        let body = ROUTE_BYTES_MAX / 4;
        let mut gathered: Vec<Parcel> =
            [0..6, 6..9, 9..10, 10..11].map(|ids| parcel(&peer, ids, body)).into();
        let half = ROUTE_ITEMS_MAX as u64 / 2;
        gathered.extend([0..half, 0..half, 0..1].map(|ids| parcel(&peer, ids, 0)));
        let mut requests = Vec::new();
        while !gathered.is_empty() {
            requests.push(stream::cut(&mut gathered).iter().map(Parcel::items).sum::<usize>());
        }
        assert_eq!(requests, [6, 4, 1 + ROUTE_ITEMS_MAX / 2, ROUTE_ITEMS_MAX / 2 + 1]);
    }
}
