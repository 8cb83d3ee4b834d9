//! A process's place in the registry of gateways and chats: it registers, renews its lease, fences
//! itself when it cannot, and registers again.
//!
//! ```text
//!            Register                answer                 2/3 of the lease since sending
//! (Lost) ───────────────▶ ........ ─────────▶ Held ────────────────────────────────▶ Lost
//!    ▲                                         │ ▲ KeepAlive sent … answered: later fence │
//!    │                                         └─┘                                        │
//!    └───────── the incarnation has ended, or was fenced: a new one is needed ────────────┘
//! ```
//!
//! A node that owes an answer for as long as lies between two renewals is given up for another, if
//! there is one, so that a node that falls silent fences nobody.
//!
//! Invariant: `fence_at` is earlier than the end of the lease at the store, whatever the delays,
//! because it is counted from before the renewing request was sent. A fenced incarnation is never
//! taken up again: its sessions may stand for connections that were closed.

mod lease_clock;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use switchboard_api::{
    limits::LEASE_MS,
    v1::{
        DeregisterRequest, KeepAliveRequest, KeepAliveResponse, RegisterRequest, RegisterResponse,
        register_request::Kind,
    },
    validate,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use self::lease_clock::LeaseClock;
use crate::{
    Client, Error,
    core::Core,
    error,
    limits::{DEREGISTER_MAX, KEEP_ALIVES_UNDER_WAY_MAX},
};

/// How busy the process is, told to the store with each renewal.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Open connections of devices.
    pub connections: u64,
    /// Share of the capacity in use, 0.0 to 1.0.
    pub load: f64,
}

/// Whether the process may act under its incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// Yes, until `fence_at`, unless that moves.
    Held {
        /// Two thirds of the lease after its last renewal was *sent*.
        fence_at: Instant,
    },
    /// No. Connections of devices must be closed; a new incarnation is being asked for.
    Lost,
}

/// The registration as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Kept by name; 0 before the first registration.
    pub gateway_id: u32,
    /// Higher with each registration; 0 before the first.
    pub incarnation: u64,
    /// Whether it counts.
    pub state: LeaseState,
    /// How many logins a second the store is ready to take from this process; 0: it did not say.
    pub reconnect_budget_per_s: u32,
}

impl Lease {
    const NONE: Self =
        Self { gateway_id: 0, incarnation: 0, state: LeaseState::Lost, reconnect_budget_per_s: 0 };

    /// Whether the process may act under this incarnation.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self.state, LeaseState::Held { .. })
    }
}

/// A registration that is kept up in the background until it is dropped or deregistered.
///
/// ```no_run
/// use switchboard_api::v1::register_request::Kind;
/// use switchboard_sdk::{Client, ClientOptions, Load, Registration};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), switchboard_sdk::Error> {
/// let client = Client::connect(&["127.0.0.1:7400".to_owned()], ClientOptions::default())?;
/// let registration =
///     Registration::start(client, "gateway-1", "127.0.0.1:7415", Kind::Gateway, Load::default)?;
/// let mut lease = registration.lease();
/// if let Ok(held) = lease.wait_for(switchboard_sdk::Lease::is_held).await {
///     println!("gateway {} in incarnation {}", held.gateway_id, held.incarnation);
/// }
/// registration.deregister().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Registration {
    lease: watch::Receiver<Lease>,
    client: Client,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Registration {
    /// Registers in the background, for as long as it takes. `load` is asked at each renewal.
    ///
    /// # Errors
    /// `Rejected` for a name or an address that the store would refuse.
    pub fn start(
        client: Client,
        name: &str,
        address: &str,
        kind: Kind,
        load: impl Fn() -> Load + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let request =
            RegisterRequest { name: name.into(), address: address.into(), kind: kind.into() };
        validate::register(&request)?;
        let (sender, lease) = watch::channel(Lease::NONE);
        let stop = CancellationToken::new();
        let keeper =
            Keeper { core: client.core().clone(), request, load: Box::new(load), lease: sender };
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let client_stop = keeper.core.stop.clone();
            tokio::select! {
                () = keeper.keep() => {}
                () = stopped.cancelled() => {}
                () = client_stop.cancelled() => {}
            }
            keeper.publish_lost();
        });
        Ok(Self { lease, client, stop, task })
    }

    /// The registration as it stands, and its changes. A new incarnation shows here.
    #[must_use]
    pub fn lease(&self) -> watch::Receiver<Lease> {
        self.lease.clone()
    }

    /// Stops renewing and ends the incarnation at the store, if it can be reached within
    /// three seconds; else the lease runs out by itself.
    pub async fn deregister(self) {
        let last = *self.lease.borrow();
        self.stop.cancel();
        if last.incarnation == 0 {
            return;
        }
        let request =
            DeregisterRequest { gateway_id: last.gateway_id, incarnation: last.incarnation };
        let core = self.client.core();
        let ending = core.retrying(crate::core::Repeat::Harmless, |attempt| {
            let node = self.client.core().routes().any(attempt).clone();
            let mut gateways = node.gateways();
            (node, async move { gateways.deregister(request).await.map(|_| ()) })
        });
        match timeout(DEREGISTER_MAX, ending).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => info!(%error, "could not deregister; the lease will run out"),
            Err(_) => info!("no store can be told of the end; the lease will run out"),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

struct Keeper {
    core: Arc<Core>,
    request: RegisterRequest,
    load: Box<dyn Fn() -> Load + Send + Sync>,
    lease: watch::Sender<Lease>,
}

impl Keeper {
    async fn keep(&self) {
        loop {
            let (registered, clock) = self.register().await;
            self.renew(&registered, clock).await;
            self.publish_lost();
        }
    }

    fn publish_lost(&self) {
        self.lease.send_if_modified(|lease| {
            let held = lease.is_held();
            lease.state = LeaseState::Lost;
            held
        });
    }

    /// Registers, however often it has to be tried. Each attempt may begin an incarnation; only
    /// the last one is used, and with it those before it end.
    async fn register(&self) -> (RegisterResponse, LeaseClock) {
        let mut backoff = self.core.backoff();
        let mut attempt = 0;
        loop {
            let node = self.core.routes().any(attempt).clone();
            attempt += 1;
            let sent = Instant::now();
            let mut gateways = node.gateways();
            let registering = gateways.register(self.request.clone());
            match timeout(self.core.patience(), registering).await {
                Ok(Ok(response)) => {
                    let registered = response.into_inner();
                    let lease_ms =
                        if registered.lease_ms == 0 { LEASE_MS } else { registered.lease_ms };
                    let clock = LeaseClock::new(sent, Duration::from_millis(lease_ms));
                    let RegisterResponse { gateway_id, incarnation, .. } = registered;
                    info!(name = %self.request.name, gateway_id, incarnation, "registered");
                    self.lease.send_replace(Lease {
                        gateway_id,
                        incarnation,
                        state: LeaseState::Held { fence_at: clock.fence_at() },
                        reconnect_budget_per_s: 0,
                    });
                    return (registered, clock);
                }
                Ok(Err(status)) if error::from_status(&status).is_rejected() => {
                    warn!(name = %self.request.name, %status, "the store refuses to register");
                }
                Ok(Err(status)) => {
                    debug!(node = node.health.address(), %status, "could not register");
                }
                Err(_) => {
                    node.health.silent();
                    debug!(node = node.health.address(), "no answer to Register");
                }
            }
            sleep(backoff.next()).await;
        }
    }

    /// Renews until the incarnation has ended or must be fenced. Processes begin at different nodes,
    /// by their ids.
    async fn renew(&self, registered: &RegisterResponse, mut clock: LeaseClock) {
        let mut backoff = self.core.backoff();
        for attempt in registered.gateway_id as usize.. {
            let node = self.core.routes().any(attempt).clone();
            let renewals = self.renew_over(&node, registered, &mut clock, &mut backoff);
            match renewals.await {
                Ok(End::Ended) => {
                    info!(incarnation = registered.incarnation, "the incarnation has ended");
                    return;
                }
                Ok(End::Closed) => {}
                Err(status) => {
                    debug!(node = node.health.address(), %status, "the lease's stream broke");
                }
            }
            clock.forget_sent();
            let again = Instant::now() + backoff.next();
            sleep_until(again.min(clock.fence_at())).await;
            if Instant::now() >= clock.fence_at() {
                break;
            }
        }
        warn!(incarnation = registered.incarnation, "the lease was not renewed in time; fenced");
    }

    /// Renews over one node until the stream ends or the node owes an answer for too long: another
    /// may still renew before the fence.
    async fn renew_over(
        &self,
        node: &crate::node::Node,
        registered: &RegisterResponse,
        clock: &mut LeaseClock,
        backoff: &mut crate::Backoff,
    ) -> Result<End, Status> {
        let (requests, outbound) = mpsc::channel(KEEP_ALIVES_UNDER_WAY_MAX);
        let mut ticks = interval(clock.interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        self.send(&requests, registered, clock);
        let mut gateways = node.gateways();
        let opening = gateways.keep_alive(ReceiverStream::new(outbound));
        let mut inbound: Streaming<KeepAliveResponse> = tokio::select! {
            opened = opening => opened?.into_inner(),
            () = sleep_until(self.give_up_at(clock)) => return Err(silent(node)),
        };
        loop {
            tokio::select! {
                biased;
                message = inbound.message() => match message? {
                    None => return Ok(End::Closed),
                    Some(answer) if answer.lease_ms_left == 0 => return Ok(End::Ended),
                    Some(answer) => {
                        backoff.reset();
                        clock.answered(Duration::from_millis(answer.lease_ms_left));
                        self.lease.send_modify(|lease| {
                            lease.state = LeaseState::Held { fence_at: clock.fence_at() };
                            lease.reconnect_budget_per_s = answer.reconnect_budget_per_s;
                        });
                    }
                },
                () = sleep_until(self.give_up_at(clock)) => return Err(silent(node)),
                _ = ticks.tick() => self.send(&requests, registered, clock),
            }
        }
    }

    /// Until when to wait for answers.
    fn give_up_at(&self, clock: &LeaseClock) -> Instant {
        if self.core.routes().is_single() { clock.fence_at() } else { clock.give_up_at() }
    }

    /// When the node takes no more requests, the renewal is left out: the lease tells.
    fn send(
        &self,
        requests: &mpsc::Sender<KeepAliveRequest>,
        registered: &RegisterResponse,
        clock: &mut LeaseClock,
    ) {
        let Load { connections, load } = (self.load)();
        let request = KeepAliveRequest {
            gateway_id: registered.gateway_id,
            incarnation: registered.incarnation,
            connections,
            load,
        };
        let now = Instant::now();
        if requests.try_send(request).is_ok() {
            clock.sent(now);
        }
    }
}

enum End {
    Ended,
    Closed,
}

fn silent(node: &crate::node::Node) -> Status {
    node.health.silent();
    Status::deadline_exceeded("the node does not answer")
}
