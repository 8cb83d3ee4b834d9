//! The task of a device: connects, moves frames between the socket and the session, and waits.
//!
//! ```text
//!   idle ──Online──▶ connect ──▶ hello ──Welcome──▶ serve ──▶ pause ─┐
//!    ▲                  └──────────── failed ────────────────────▶───┤
//!    └── Offline, replaced, fatal ◀──────────────────────────────────┘ (or connect again)
//! ```

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::RngExt as _;
use switchboard_api::device::v1::{
    ClientFrame, Goodbye, Hello, Ping, Welcome, client_frame, error::Code, server_frame,
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep_until, timeout},
};

use crate::{
    address::GatewayAddress,
    backoff::Backoff,
    connection::Connection,
    device::{Mode, Offline, Shared, Wish},
    event::Event,
    limits::{FAREWELL_TIMEOUT, FRAMES_A_TURN_MAX, KEEPALIVE_DEFAULT, WRITE_BUFFER_BYTES_MAX},
    options::DeviceOptions,
    session::{Ending, Verdict, failed, redirected},
    trust::Trust,
    turns::Turns,
};

/// A device that falls silent is closed by the gateway, and a silent gateway by the device.
const SILENCE_IN_KEEPALIVES: u32 = 2;

pub(crate) struct Task {
    options: DeviceOptions,
    shared: Arc<Shared>,
    wanted: watch::Receiver<Wish>,
    reached: watch::Sender<u64>,
    events: mpsc::Sender<Event>,
    backoff: Backoff,
    /// Which gateway is next.
    turns: Turns,
    /// A gateway that a redirect named, for one attempt.
    directed: Option<GatewayAddress>,
}

impl Task {
    pub(crate) fn new(
        options: DeviceOptions,
        shared: Arc<Shared>,
        wanted: watch::Receiver<Wish>,
        reached: watch::Sender<u64>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let count = options.gateways.len();
        let turns = Turns::new(count, rand::rng().random_range(0..count.max(1)));
        let backoff = Backoff::new(options.backoff.0, options.backoff.1);
        Self { options, shared, wanted, reached, events, backoff, turns, directed: None }
    }

    pub(crate) async fn run(mut self) {
        let mut parked = false;
        loop {
            // No socket is open here, so whatever was wished before is done.
            let Wish { number, mode } = *self.wanted.borrow_and_update();
            if mode == Mode::Closed {
                break;
            }
            self.reached.send_replace(number);
            if mode != Mode::Online || parked {
                if !self.idle().await {
                    break;
                }
                parked = false;
                continue;
            }
            let Some(ending) = self.connect_and_serve().await else { continue };
            self.shared.session.lock().disconnected(&ending);
            parked = ending.fatal || ending.replaced;
            self.directed = ending.address.parse().ok();
            if ending.code == Some(Code::Overloaded) && !ending.retry_after.is_zero() {
                self.turns.come_back();
            }
            let pause = self.backoff.next(ending.retry_after);
            if !parked && !self.pause(pause).await {
                break;
            }
        }
        self.shared.session.lock().close();
        self.reached.send_replace(u64::MAX);
    }

    /// Waits for another wish, handing events over. False when all handles are gone.
    async fn idle(&mut self) -> bool {
        loop {
            let has_events = self.shared.session.lock().has_events();
            tokio::select! {
                changed = self.wanted.changed() => return changed.is_ok(),
                permit = self.events.reserve(), if has_events => {
                    let Ok(permit) = permit else { return false };
                    hand_over(&self.shared, permit);
                }
            }
        }
    }

    /// Waits before the next attempt. False when the application is gone.
    async fn pause(&mut self, pause: Duration) -> bool {
        let until = tokio::time::Instant::now() + pause;
        loop {
            let has_events = self.shared.session.lock().has_events();
            tokio::select! {
                () = sleep_until(until) => return true,
                changed = self.wanted.changed() => return changed.is_ok(),
                permit = self.events.reserve(), if has_events => {
                    let Ok(permit) = permit else { return false };
                    hand_over(&self.shared, permit);
                }
            }
        }
    }

    /// One connection from its first byte to its last; `None` when the application ended it.
    async fn connect_and_serve(&mut self) -> Option<Ending> {
        let mut wanted = self.wanted.clone();
        let connected = tokio::select! {
            connected = self.connect() => connected,
            // `borrow_and_update` in `run` sees the change again.
            _ = wanted.changed() => return None,
        };
        let (connection, welcome) = match connected {
            Ok(connected) => connected,
            Err(ending) => return Some(ending),
        };
        let Welcome { epoch, server_time_ms, backlog, .. } = welcome;
        self.shared.session.lock().connected(epoch, backlog, server_time_ms);
        let keepalive = match welcome.keepalive_ms {
            0 => KEEPALIVE_DEFAULT,
            ms => Duration::from_millis(ms.into()),
        };
        let since = Instant::now();
        let ending = self.serve(connection, keepalive).await;
        // A gateway that takes devices in and drops them at once must not be hammered.
        if since.elapsed() > keepalive.min(Duration::from_secs(1)) {
            self.backoff.reset();
        }
        if ending.is_none() {
            self.backoff.reset();
            self.shared.session.lock().disconnected(&lost("went offline".to_owned()));
        }
        ending
    }

    async fn connect(&mut self) -> Result<(Connection, Welcome), Ending> {
        let turn = self.turns.next();
        let next = self.directed.take().or_else(|| self.options.gateways.get(turn).cloned());
        let Some(gateway) = next else {
            return Err(Ending { fatal: true, ..lost("no gateway is known".to_owned()) });
        };
        let limit = self.options.connect_timeout;
        if gateway.is_secure() && self.options.trust.is_none() {
            let trust = Trust::system().map_err(|error| lost(format!("{gateway}: {error}")))?;
            self.options.trust = Some(trust);
        }
        let (trust, from) = (self.options.trust.as_ref(), self.options.local_address);
        let mut connection = Connection::connect_from(&gateway, trust, from, limit)
            .await
            .map_err(|error| lost(format!("{gateway}: {error}")))?;
        let hello = client_frame::Frame::Hello(Hello {
            user: self.options.user.clone(),
            device: self.options.device.into(),
            token: self.options.token.clone(),
            window: self.options.window,
            push_token: self.options.push_token.clone(),
        });
        let welcome = async {
            connection.queue(&ClientFrame { frame: Some(hello) }).map_err(|e| e.to_string())?;
            connection.next().await.map_err(|error| error.to_string())
        };
        let first = timeout(limit, welcome)
            .await
            .map_err(|_| lost(format!("{gateway}: no welcome within {limit:?}")))?
            .map_err(|error| lost(format!("{gateway}: {error}")))?;
        match first.and_then(|frame| frame.frame) {
            Some(server_frame::Frame::Welcome(welcome)) => Ok((connection, welcome)),
            Some(server_frame::Frame::Error(error)) => Err(failed(&error)),
            Some(server_frame::Frame::Redirect(redirect)) => Err(redirected(redirect)),
            Some(_) => Err(lost(format!("{gateway}: the first frame was no welcome"))),
            None => Err(lost(format!("{gateway}: closed before the welcome"))),
        }
    }

    /// Moves frames until the connection ends; `None` when the application ended it.
    async fn serve(&mut self, mut connection: Connection, keepalive: Duration) -> Option<Ending> {
        let half = keepalive / 2;
        let mut ping_at = Instant::now() + half;
        let mut heard_at = Instant::now();
        let mut frames = 0;
        loop {
            if let Err(error) = self.fill(&mut connection) {
                return Some(lost(error));
            }
            let (has_events, wake_at) = {
                let session = self.shared.session.lock();
                (session.has_events(), session.wake_at())
            };
            let silent_at = heard_at + keepalive * SILENCE_IN_KEEPALIVES;
            let wake_at = wake_at.map_or(ping_at, |at| at.min(ping_at)).min(silent_at);
            let read_on = !has_events || frames < FRAMES_A_TURN_MAX;
            tokio::select! {
                biased;
                changed = self.wanted.changed() => {
                    let Wish { number, mode } = *self.wanted.borrow();
                    if changed.is_err() || mode != Mode::Online {
                        self.part(connection, mode).await;
                        return None;
                    }
                    // Offline and online again before it was noticed.
                    self.reached.send_replace(number);
                }
                permit = self.events.reserve(), if has_events => {
                    let Ok(permit) = permit else { return Some(lost(String::from("no reader"))) };
                    hand_over(&self.shared, permit);
                    frames = 0;
                }
                frame = connection.drive(read_on) => {
                    heard_at = Instant::now();
                    match self.take_frames(frame, &mut connection) {
                        Ok(taken) => frames += taken,
                        Err(ending) => return Some(ending),
                    }
                }
                () = self.shared.changed.notified() => {}
                () = self.shared.moved.notified() => {
                    if let Err(error) = connection.rebind() {
                        return Some(lost(error.to_string()));
                    }
                }
                () = sleep_until(wake_at.into()) => {
                    let now = Instant::now();
                    if now >= silent_at {
                        return Some(lost("the gateway fell silent".to_owned()));
                    }
                    if now >= ping_at {
                        ping_at = now + half;
                        let ping = client_frame::Frame::Ping(Ping { nonce: rand::rng().random() });
                        if let Err(error) = connection.queue(&ClientFrame { frame: Some(ping) }) {
                            return Some(lost(error.to_string()));
                        }
                    }
                }
            }
        }
    }

    /// Writes what the session wants to say, within the buffer's bound.
    fn fill(&self, connection: &mut Connection) -> Result<(), String> {
        let mut session = self.shared.session.lock();
        while connection.queued_bytes() < WRITE_BUFFER_BYTES_MAX {
            let Some(frame) = session.next_frame(Instant::now()) else { break };
            connection.queue(&frame).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Takes the frame that was waited for and those that came with it.
    fn take_frames(
        &self,
        first: Result<Option<switchboard_api::device::v1::ServerFrame>, crate::ConnectionError>,
        connection: &mut Connection,
    ) -> Result<usize, Ending> {
        let mut session = self.shared.session.lock();
        let mut next = first;
        let mut taken = 0;
        loop {
            let frame = match next {
                Ok(Some(frame)) => frame,
                Ok(None) if taken == 0 => return Err(lost("closed by the gateway".to_owned())),
                Ok(None) => return Ok(taken),
                Err(error) => return Err(lost(error.to_string())),
            };
            if let Verdict::End(ending) = session.frame(frame, Instant::now()) {
                return Err(ending);
            }
            taken += 1;
            if taken >= FRAMES_A_TURN_MAX {
                return Ok(taken);
            }
            next = connection.next_buffered();
        }
    }

    /// Leaves in the way that was asked for. A reader that does not read cannot hold this up.
    async fn part(&self, mut connection: Connection, mode: Mode) {
        if mode == Mode::Offline(Offline::Drop) {
            return;
        }
        let goodbye = client_frame::Frame::Goodbye(Goodbye {});
        {
            let mut session = self.shared.session.lock();
            while let Some(frame) = session.last_frame() {
                if connection.queue(&frame).is_err() {
                    return;
                }
            }
        }
        if connection.queue(&ClientFrame { frame: Some(goodbye) }).is_ok() {
            // Best effort: what is not written, or does not count by then, is repeated on the next
            // connection.
            let _ = timeout(FAREWELL_TIMEOUT, connection.close()).await;
        }
    }
}

fn hand_over(shared: &Shared, permit: mpsc::Permit<'_, Event>) {
    if let Some(event) = shared.session.lock().take_event() {
        permit.send(event);
    }
}

fn lost(reason: String) -> Ending {
    Ending {
        reason,
        code: None,
        replaced: false,
        fatal: false,
        retry_after: Duration::ZERO,
        address: String::new(),
    }
}
