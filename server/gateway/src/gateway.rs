//! What all connections of a gateway share.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use switchboard_api::{
    device::v1::redirect::Reason,
    v1::{
        FetchRequest, ItemStatus, SessionInfo, ack_request, ack_response, claim_request,
        claim_response, release_request, release_response,
    },
};
use switchboard_sdk::{Client, Lease};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::{
    GatewayConfig, Verifier,
    addresses::Addresses,
    admission::Admission,
    batcher::Batcher,
    delivery::{FetchOrder, Page},
    drain::Draining,
    limits::{
        FETCHES_UNDER_WAY_MAX, RELEASE_ATTEMPTS_MAX, RELEASE_PAUSE, SPREAD_LOGINS_PER_SECOND,
        SPREAD_MIN,
    },
    meters::Meters,
    notices::Notices,
    peers::{Event, Peer, Peers},
    route::Routes,
};

/// A claim to make, and under which incarnation.
pub(crate) struct Claim {
    pub(crate) gateway_id: u32,
    pub(crate) incarnation: u64,
    pub(crate) item: claim_request::Item,
}

/// What a gateway is made of.
pub(crate) struct Parts {
    pub(crate) config: GatewayConfig,
    pub(crate) verifier: Verifier,
    pub(crate) client: Client,
    pub(crate) lease: watch::Receiver<Lease>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) meters: Arc<Meters>,
    /// Told when a chat's stream breaks.
    pub(crate) broken: Arc<Notify>,
}

/// See the module.
pub(crate) struct Gateway {
    pub(crate) config: GatewayConfig,
    pub(crate) verifier: Verifier,
    pub(crate) client: Client,
    pub(crate) lease: watch::Receiver<Lease>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) addresses: Arc<Addresses>,
    /// A lock, since every login changes it; held for a few additions.
    admission: Mutex<Admission>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) notices: Notices,
    pub(crate) claims: Batcher<Claim, claim_response::Result>,
    pub(crate) releases: Batcher<release_request::Item, ()>,
    pub(crate) acks: Batcher<ack_request::Item, ItemStatus>,
    pub(crate) fetches: Arc<Semaphore>,
    pub(crate) meters: Arc<Meters>,
    /// The tasks of connections, listeners among them.
    pub(crate) tasks: TaskTracker,
    /// An operator empties this gateway.
    pub(crate) drained: Draining,
    /// No new device is taken in.
    pub(crate) draining: CancellationToken,
    quota: Quota,
}

impl Gateway {
    pub(crate) fn new(parts: Parts, stop: &CancellationToken) -> Arc<Self> {
        let Parts { config, verifier, client, lease, peers, meters, broken } = parts;
        let at_least_one = |count: u32| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(config.sends_per_second))
            .allow_burst(at_least_one(config.sends_burst));
        let missing = || claim_response::Result {
            status: ItemStatus::Unavailable.into(),
            ..Default::default()
        };
        let (claiming, acking, releasing) = (client.clone(), client.clone(), client.clone());
        Arc::new(Self {
            addresses: Addresses::new(
                config.connections_per_address_max,
                config.limit_loopback,
                meters.connections.clone(),
            ),
            admission: Mutex::new(Admission::new(now())),
            routes: Routes::start(&client, broken, meters.clone(), stop.clone()),
            notices: Notices::start(&client, stop.clone()),
            claims: Batcher::start(
                move |claims| claim(claiming.clone(), claims),
                missing,
                stop.clone(),
            ),
            releases: Batcher::start(
                move |items| release(releasing.clone(), items),
                || (),
                stop.clone(),
            ),
            acks: Batcher::start(
                move |items| ack(acking.clone(), items),
                || ItemStatus::Unavailable,
                stop.clone(),
            ),
            fetches: Arc::new(Semaphore::new(FETCHES_UNDER_WAY_MAX)),
            tasks: TaskTracker::new(),
            drained: Draining::default(),
            draining: CancellationToken::new(),
            config,
            verifier,
            client,
            lease,
            peers,
            meters,
            quota,
        })
    }

    /// Whether a login is within the budget that the store has given; if not, when to come back.
    pub(crate) fn admit(&self, budget_per_s: u32) -> Result<(), Duration> {
        self.admission.lock().admit(budget_per_s, now(), rand::random_range(0.0..=1.0))
    }

    /// A fresh limiter for the sends of one device.
    pub(crate) fn limiter(&self) -> DefaultDirectRateLimiter {
        RateLimiter::direct(self.quota)
    }

    /// Asks for a page in a task of its own; the answer is an event of the peer.
    pub(crate) fn fetch(self: &Arc<Self>, peer: Arc<Peer>, order: FetchOrder) {
        let gateway = self.clone();
        self.meters.fetches.increment(1);
        tokio::spawn(async move {
            let request = FetchRequest {
                device: Some(peer.device()),
                after_seq: order.after_seq,
                messages_max: order.messages_max,
                bytes_max: order.bytes_max,
                min_position: order.min_position,
            };
            let permit = gateway.fetches.acquire().await;
            let page = match gateway.client.fetch(request).await {
                Ok(response) => Some(Page {
                    messages: response.messages,
                    more: response.more,
                    tail: response.tail,
                }),
                Err(error) => {
                    debug!(%error, "a fetch failed");
                    None
                }
            };
            drop(permit);
            peer.tell(Event::Page { id: order.id, page });
        });
    }

    /// Sees to it that the connection of a replaced session ends. `gone`: so has the one that claimed.
    pub(crate) fn replaced(&self, own: &Peer, session: SessionInfo, gone: bool) {
        let lease = *self.lease.borrow();
        if (session.gateway_id, session.incarnation) != (lease.gateway_id, lease.incarnation) {
            self.notices.replaced(session, gone);
        } else if session.connection_id != own.connection_id
            && let Some(peer) = self.peers.get(session.connection_id)
        {
            peer.tell(replaced_here(own.connection_id, &session, gone));
        }
    }

    /// Ends a session in the background, unless another has taken its place.
    pub(crate) fn release(&self, session: release_request::Item) {
        // One that finds no room ends with the device's next claim, or the next push for it.
        let _ = self.releases.submit(session, |()| {});
    }

    /// Sends devices away: those of `incarnations`, each told to come back at another time.
    pub(crate) fn send_away(&self, reason: Reason, incarnations: impl Fn(u64) -> bool) {
        let spread = self.spread();
        self.peers.for_each(|peer| {
            if incarnations(peer.incarnation) {
                let retry_after_ms = rand::random_range(0..=spread);
                peer.tell(Event::Leave { reason, retry_after_ms });
            }
        });
    }

    /// Over how many milliseconds all devices come back.
    pub(crate) fn spread(&self) -> u64 {
        let least = u64::try_from(SPREAD_MIN.as_millis()).unwrap_or(0);
        (self.peers.len() as u64).saturating_mul(1_000) / SPREAD_LOGINS_PER_SECOND + least
    }

    pub(crate) fn keepalive(&self) -> Duration {
        Duration::from_millis(self.config.keepalive_ms.into())
    }
}

/// The runtime's clock, so that a test's paused one counts.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What a connection of this gateway hears whose session was replaced by another connection's claim.
/// A claim may be made long after its connection was opened, if the store could not be reached; when
/// the device has connected anew meanwhile, nobody else has taken its place, and it comes again.
fn replaced_here(claimant: u64, session: &SessionInfo, gone: bool) -> Event {
    let gone = gone || session.connection_id > claimant;
    Event::Replaced { epoch: session.epoch, gone }
}

async fn claim(client: Client, claims: Vec<Claim>) -> Vec<claim_response::Result> {
    let mut results = vec![None; claims.len()];
    let mut rest: Vec<(usize, Claim)> = claims.into_iter().enumerate().collect();
    // One round, but for the moment in which an incarnation follows another.
    while let Some((_, first)) = rest.first() {
        let lease = (first.gateway_id, first.incarnation);
        let (batch, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|(_, c)| (c.gateway_id, c.incarnation) == lease);
        rest = others;
        let (places, items): (Vec<usize>, Vec<_>) =
            batch.into_iter().map(|(place, claim)| (place, claim.item)).unzip();
        match client.claim(lease.0, lease.1, items).await {
            Ok(answers) => {
                for (place, answer) in places.into_iter().zip(answers) {
                    results[place] = Some(answer);
                }
            }
            Err(error) => warn!(%error, "a batch of claims failed"),
        }
    }
    let missing = ItemStatus::Unavailable.into();
    results
        .into_iter()
        .map(|result| {
            result.unwrap_or(claim_response::Result { status: missing, ..Default::default() })
        })
        .collect()
}

async fn release(client: Client, items: Vec<release_request::Item>) -> Vec<()> {
    let count = items.len();
    let mut rest = items;
    for attempt in 1..=RELEASE_ATTEMPTS_MAX {
        match client.release(rest.clone()).await {
            Ok(results) => rest = unreleased(rest, &results),
            Err(error) => {
                debug!(%error, "a batch of releases failed");
                break;
            }
        }
        if rest.is_empty() || attempt == RELEASE_ATTEMPTS_MAX {
            break;
        }
        sleep(RELEASE_PAUSE).await;
    }
    vec![(); count]
}

/// Those that the store could not take now. FENCED is fine: another session has taken the place.
fn unreleased(
    items: Vec<release_request::Item>,
    results: &[release_response::Result],
) -> Vec<release_request::Item> {
    let status = |at: usize| results.get(at).map_or(ItemStatus::Unavailable, |it| it.status());
    let again = |at| matches!(status(at), ItemStatus::Unavailable | ItemStatus::Overloaded);
    items.into_iter().enumerate().filter(|(at, _)| again(*at)).map(|(_, item)| item).collect()
}

async fn ack(client: Client, items: Vec<ack_request::Item>) -> Vec<ItemStatus> {
    let count = items.len();
    match client.ack(items).await {
        Ok(results) => results.iter().map(ack_response::Result::status).collect(),
        Err(error) => {
            debug!(%error, "a batch of acks failed");
            vec![ItemStatus::Unavailable; count]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::Meaning;

    #[test]
    fn a_release_that_found_no_room_or_no_answer_is_repeated() {
        let item = |epoch| release_request::Item { device: None, epoch };
        let answers =
            [ItemStatus::Ok, ItemStatus::Unavailable, ItemStatus::Fenced, ItemStatus::Overloaded];
        let results = answers.map(|status| release_response::Result { status: status.into() });
        let left = unreleased((1..=5).map(item).collect(), &results);
        assert_eq!(left, [item(2), item(4), item(5)]);
    }

    #[test]
    fn a_claim_that_comes_late_sends_the_newer_connection_of_its_device_away_for_a_moment_only() {
        let session = SessionInfo { connection_id: 7, epoch: 40, ..SessionInfo::default() };
        let meant = |claimant, gone| Meaning::of(replaced_here(claimant, &session, gone), 40);
        assert!(matches!(meant(8, false), Meaning::Replaced));
        for late in [meant(6, false), meant(8, true)] {
            let Meaning::Leave { reason: Reason::LeaseLost, retry_after_ms: 0 } = late else {
                panic!("it would not come again: {late:?}");
            };
        }
        let other = Meaning::of(replaced_here(6, &session, true), 41);
        assert!(matches!(other, Meaning::Nothing));
    }
}
