//! The task of one connection: moves frames between the socket and the conversation, and does what
//! the conversation asks for. The same for every kind of byte stream.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use governor::{
    DefaultDirectRateLimiter,
    clock::{Clock as _, DefaultClock},
};
use switchboard_api::{
    device::v1::{
        self as device, ServerFrame, client_frame, error::Code, redirect::Reason,
        server_frame::Frame,
    },
    v1::ItemStatus,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Sleep, sleep_until, timeout},
};

use crate::{
    addresses::Admitted,
    conversation::{Action, Ending, Input, Meaning, Now, Talk},
    gateway::{Gateway, now},
    handshake::{self, Listed, Refused, TakenIn},
    limits::{FAREWELL_MAX, FRAMES_A_TURN_MAX, SETTLE_MAX, TAKEN_BYTES_MIN, WRITE_QUEUE_BYTES_MAX},
    outcome::Outcome,
    peers::{Event, Moment, Peer},
    receipts::Batch,
    route::{Parcel, Route, Ticket, What},
    socket::{Moved, Socket},
};

/// How a connection ends, and what follows for its session.
#[derive(Debug)]
struct End {
    /// The last frame.
    frame: Option<Frame>,
    /// Whether the session is still this connection's, so that its acks count.
    settle: bool,
    /// Whether it is to be released.
    release: bool,
}

impl End {
    fn of(ending: Ending) -> Self {
        match ending {
            Ending::Gone => Self { frame: None, settle: true, release: true },
            Ending::Error(error) => {
                Self { frame: Some(Frame::Error(error)), settle: true, release: true }
            }
            Ending::Fenced => Self::leave(Reason::LeaseLost, 0),
        }
    }

    /// The device is sent away. Its session is not released, for a drain must not cost a write a device: the next
    /// claim replaces it, or else a push that finds nobody ends it.
    fn leave(reason: Reason, retry_after_ms: u64) -> Self {
        let frame = Some(handshake::redirect(reason, retry_after_ms));
        let settle = !matches!(reason, Reason::Replaced | Reason::LeaseLost);
        Self { frame, settle, release: false }
    }
}

/// All that is held for a device while it is connected.
struct Connection<S> {
    socket: Socket<S>,
    listed: Listed,
    talk: Talk,
    /// Made at the first send: most connections never need it.
    limiter: Option<Box<DefaultDirectRateLimiter>>,
    route: Option<Arc<Route>>,
    /// Since when the device has taken too little of what is queued for it, and what it had taken by then.
    taking_since: Option<Moment>,
    taken: u32,
    /// Its place among the connections of its address, and in the count of all.
    _admitted: Admitted,
}

/// Takes one device in, and serves it in a task of its own: that of the handshake would hold the
/// memory of the handshake for as long as it lives.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    gateway: &Arc<Gateway>,
    mut socket: Socket<S>,
    admitted: Admitted,
) {
    match handshake::take_in(gateway, &mut socket).await {
        Ok(TakenIn { listed, conversation }) => {
            let mut connection = Connection {
                socket,
                listed,
                talk: Talk::Busy(conversation),
                limiter: None,
                route: None,
                taking_since: None,
                taken: 0,
                _admitted: admitted,
            };
            gateway.tasks.spawn(async move { connection.run().await });
        }
        Err(refused) => refuse(socket, refused).await,
    }
}

/// Tells a device why it is not taken in, and closes.
pub(crate) async fn refuse<S: AsyncRead + AsyncWrite + Unpin + Send>(
    mut socket: Socket<S>,
    refused: Refused,
) {
    if let Refused::Frame(frame) = refused
        && socket.queue(&ServerFrame { frame: Some(*frame) }).is_ok()
    {
        let _ = timeout(FAREWELL_MAX, socket.close()).await;
    }
}

/// Resolves at the timer's end; without a timer never.
async fn due(timer: Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    fn peer(&self) -> &Arc<Peer> {
        &self.listed.peer
    }

    fn now(&self) -> Now {
        let queued = self.socket.queued_bytes();
        Now { at: now(), unix_ms: handshake::unix_ms(), queued }
    }

    async fn run(&mut self) {
        let end = self.converse().await;
        // Boxed, so that what it needs is not held while the device is connected.
        Box::pin(self.part(end)).await;
    }

    /// Says the last frame, and sees to what the device acknowledged.
    async fn part(&mut self, end: End) {
        if let Some(frame) = end.frame
            && self.socket.queue(&ServerFrame { frame: Some(frame) }).is_ok()
        {
            let _ = timeout(FAREWELL_MAX, self.socket.close()).await;
        }
        if end.settle {
            let _ = timeout(SETTLE_MAX, self.settle()).await;
        }
        // When the process ends, its incarnation does, and with it all sessions in one write.
        if end.release && !self.listed.gateway.draining.is_cancelled() {
            self.listed.gateway.release(self.peer().session());
        }
    }

    async fn converse(&mut self) -> End {
        loop {
            if let Some(end) = self.turn() {
                return end;
            }
            let stuck_at = self.stuck_at();
            if stuck_at.is_some_and(|at| at <= now()) {
                return self.stuck();
            }
            let wake_at = self.talk.busy().and_then(|conversation| conversation.wake_at());
            let wake_at = wake_at.into_iter().chain(stuck_at).min();
            // Boxed and only where there is something to wait for: an idle connection has no timer.
            let timer = wake_at.map(|at| Box::pin(sleep_until(at.into())));
            let read = self.socket.queued_bytes() < WRITE_QUEUE_BYTES_MAX;
            let moved = tokio::select! {
                moved = self.socket.drive(read) => Some(moved),
                () = self.listed.peer.changed() => None,
                () = due(timer) => None,
            };
            match moved {
                Some(Ok(Moved::Frame(frame))) => {
                    if let Some(end) = self.frames(frame.frame) {
                        return end;
                    }
                }
                Some(Ok(Moved::End)) => return End::of(Ending::Gone),
                Some(Ok(Moved::Flushed)) => {}
                None => {}
                Some(Err(error)) => {
                    let frame = match handshake::broken(&self.listed.gateway, &error) {
                        Refused::Frame(frame) => Some(*frame),
                        Refused::Gone => None,
                    };
                    return End { frame, settle: true, release: true };
                }
            }
        }
    }

    /// When the device will have taken too little for too long; `None` while nothing waits for it.
    fn stuck_at(&mut self) -> Option<Instant> {
        if self.socket.queued_bytes() == 0 {
            self.taking_since = None;
            return None;
        }
        let (moment, written) = (self.listed.gateway.peers.moment(), self.socket.written());
        let has_taken = written.wrapping_sub(self.taken) >= TAKEN_BYTES_MIN;
        let since = self.taking_since.filter(|_| !has_taken).unwrap_or_else(|| {
            self.taken = written;
            moment
        });
        self.taking_since = Some(since);
        let stall = Duration::from_millis(self.listed.gateway.config.write_stall_ms);
        Some(now() + stall.saturating_sub(moment.since(since)))
    }

    /// The device reads too slowly, or not at all.
    fn stuck(&self) -> End {
        self.listed.gateway.meters.stuck.increment(1);
        let message = "what waits for this device is not being read";
        End::of(Ending::error(Code::Overloaded, message, Duration::from_secs(1)))
    }

    /// Takes what came from elsewhere and does what is due.
    fn turn(&mut self) -> Option<End> {
        let arrived = self.listed.peer.take();
        let mut actions = Vec::new();
        if arrived.heard != 0 {
            self.input(Input::Heard(arrived.heard), &mut actions);
        }
        for event in arrived.events {
            let input = match Meaning::of(event, self.peer().epoch()) {
                Meaning::Input(input) => input,
                Meaning::Nothing => continue,
                Meaning::Silent => return Some(End::of(Ending::Gone)),
                Meaning::Replaced => return Some(End::leave(Reason::Replaced, 0)),
                Meaning::Leave { reason, retry_after_ms } => {
                    return Some(End::leave(reason, retry_after_ms));
                }
            };
            self.input(input, &mut actions);
            if let Some(end) = self.act(&mut actions) {
                return Some(end);
            }
        }
        let now = self.now();
        if let Some(conversation) = self.talk.busy() {
            conversation.poll(now, &mut actions);
            self.listed.peer.set_high(conversation.high());
        }
        let end = self.act(&mut actions);
        self.talk.settle_down();
        end
    }

    /// Takes a frame, and those that came with it.
    fn frames(&mut self, first: Option<client_frame::Frame>) -> Option<End> {
        self.listed.peer.set_heard(self.listed.gateway.peers.moment());
        let mut actions = Vec::new();
        let mut next = first;
        let mut taken = 0;
        loop {
            // A frame of no kind known here is from a newer device, and passed over.
            if let Some(frame) = next {
                self.input(Input::Frame(frame), &mut actions);
                if let Some(end) = self.act(&mut actions) {
                    return Some(end);
                }
            }
            taken += 1;
            if taken >= FRAMES_A_TURN_MAX || self.socket.queued_bytes() >= WRITE_QUEUE_BYTES_MAX {
                return None;
            }
            // An error shows again at the next wait.
            let Ok(Some(frame)) = self.socket.next_buffered() else { return None };
            next = frame.frame;
        }
    }

    fn input(&mut self, input: Input, actions: &mut Vec<Action>) {
        let now = self.now();
        let (limiter, gateway) = (&mut self.limiter, &self.listed.gateway);
        let mut limited = || {
            let limiter = limiter.get_or_insert_with(|| Box::new(gateway.limiter()));
            limiter.check().err().map(|until| until.wait_time_from(DefaultClock::default().now()))
        };
        let conversation = self.talk.wake(|| self.listed.peer.device());
        conversation.handle(input, &mut limited, now, actions);
    }

    fn act(&mut self, actions: &mut Vec<Action>) -> Option<End> {
        for action in actions.drain(..) {
            match action {
                Action::Write(frame) => {
                    if matches!(frame, Frame::Deliver(_) | Frame::Receipt(_)) {
                        self.listed.gateway.meters.delivered.increment(1);
                    }
                    if self.socket.queue(&ServerFrame { frame: Some(frame) }).is_err() {
                        return Some(End::of(Ending::Gone));
                    }
                }
                Action::Fetch(order) => self.listed.gateway.fetch(self.listed.peer.clone(), order),
                Action::Ack { id, item } => self.ack(id, item),
                Action::Route { sends } => self.route_sends(sends),
                Action::RouteReceipts { id, batch } => self.route_receipts(id, batch),
                Action::Close(ending) => return Some(End::of(ending)),
            }
        }
        None
    }

    fn ack(&self, id: u64, item: switchboard_api::v1::ack_request::Item) {
        let peer = self.listed.peer.clone();
        let told = peer.clone();
        let done = move |status| told.tell(Event::Acked { id, status });
        if self.listed.gateway.acks.submit(item, done).is_err() {
            peer.tell(Event::Acked { id, status: ItemStatus::Overloaded });
        }
    }

    fn route_sends(&mut self, sends: Vec<(u64, device::Send)>) {
        let peer = self.peer();
        let ticketed = |(id, send)| (Ticket::new(peer.clone(), id), send);
        let sends = sends.into_iter().map(ticketed).collect();
        self.route(What::Sends(sends));
    }

    fn route_receipts(&mut self, id: u64, batch: Batch) {
        let ticket = Ticket::new(self.peer().clone(), id);
        self.route(What::Receipts(ticket, batch));
    }

    fn route(&mut self, what: What) {
        let parcel = Parcel { from: self.peer().device(), what };
        if !self.route.as_ref().is_some_and(|route| route.is_live()) {
            self.route = self.listed.gateway.routes.pick(self.peer().connection_id);
        }
        match &self.route {
            Some(route) => route.submit(parcel),
            None => parcel.answer(Outcome { retry_after_ms: 100, ..Outcome::UNAVAILABLE }),
        }
    }

    /// After the device is gone: makes its receipts durable and its acknowledgements count.
    async fn settle(&mut self) {
        // A conversation at rest has nothing to settle.
        let Some(conversation) = self.talk.busy() else { return };
        conversation.part();
        if self.turn().is_some() {
            return;
        }
        loop {
            let Some(conversation) = self.talk.busy().filter(|busy| !busy.is_settled()) else {
                return;
            };
            let wake_at = conversation.wake_at();
            let wake_at = wake_at.unwrap_or_else(|| now() + Duration::from_secs(1));
            tokio::select! {
                () = self.listed.peer.changed() => {}
                () = sleep_until(wake_at.into()) => {}
            }
            if self.turn().is_some() {
                return;
            }
        }
    }
}
