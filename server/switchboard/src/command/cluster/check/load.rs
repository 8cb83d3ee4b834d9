//! Claims, look-ups and messages of throw-away users, paced, and their removal.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use switchboard_api::v1::register_request::Kind;
use switchboard_api::v1::{DeviceRef, ItemStatus, Read, claim_request, enqueue_request};
use switchboard_sdk::{Client, Lease, Load, Registration};

use crate::command::operator::{failure, interrupted};
use crate::load::drive::{Outcome, Plan, Work, drive};
use crate::load::people::{message_ids, pick};
use crate::load::samples::Tally;
use crate::output::Failure;

/// Throw-away users: enough for every shard of a cluster of ordinary size, and so many that no mailbox gets
/// full while the load goes as fast as it can for as long as it may.
const USERS: usize = 1_024;
/// The name that it registers by; always the same, so that no more than one is ever known.
const NAME: &str = "cluster-check-perf";
/// How long that may take.
const REGISTRATION_WAIT_MAX: Duration = Duration::from_secs(10);
/// Messages that cannot be removed, because the command dies, expire after so long.
const TTL_MS: u64 = 60_000;
/// Bytes of a message.
const BODY: &[u8; 256] = &[0x5a; 256];
/// Items of a call that goes as fast as it can.
const BATCH_FULL: usize = 64;
/// Calls under way at a time, paced and not.
const IN_FLIGHT: (usize, usize) = (64, 16);
/// Removals that are under way at a time.
const REMOVALS: usize = 8;
/// What a message, and a claim, may take at p99 while the rate is bounded, and what a look-up may.
const WRITE_P99_MS: f64 = 25.0;
const READ_P99_MS: f64 = 10.0;

/// How fast.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// One item a call, so many a second.
    Bounded { items_per_s: u32 },
    /// Batches, each after the answer to the one before.
    Full,
}

/// What came of one kind of load.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) what: &'static str,
    /// `None`: as fast as it goes.
    pub(super) offered_per_s: Option<f64>,
    pub(super) items_per_s: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// What is expected; `None`: as fast as it goes, nothing is.
    pub(super) p99_ms_expected: Option<f64>,
    pub(super) refused: u64,
}

impl Pace {
    /// What is about to be done, for who may want to stop it.
    pub(super) fn words(self, seconds: f64) -> String {
        let each = format!("for {seconds} s each, with {USERS} users that are removed again");
        match self {
            Pace::Bounded { items_per_s } => {
                format!("claims, look-ups and messages at {items_per_s} a second {each}")
            }
            Pace::Full => {
                format!(
                    "claims, look-ups and messages as fast as they go {each}: others will feel it"
                )
            }
        }
    }

    fn batch(self) -> usize {
        match self {
            Pace::Bounded { .. } => 1,
            Pace::Full => BATCH_FULL,
        }
    }

    fn plan(self, seconds: f64) -> Plan {
        let (in_flight, calls_per_s) = match self {
            Pace::Bounded { items_per_s } => (IN_FLIGHT.0, Some(f64::from(items_per_s))),
            Pace::Full => (IN_FLIGHT.1, None),
        };
        Plan {
            warmup: Duration::from_millis(500),
            measured: Duration::from_secs_f64(seconds.max(0.1)),
            in_flight,
            calls_per_s,
            pids: Vec::new(),
            quiet: true,
        }
    }
}

/// All three kinds, one after the other; what they leave is removed, whatever comes of them.
pub(super) async fn measure(
    client: &Client,
    pace: Pace,
    seconds: f64,
) -> Result<Vec<Measured>, Failure> {
    let people = Arc::new(People { run: rand::random(), batch: pace.batch() });
    let (registration, lease) = register(client).await?;
    let load = |kind| {
        let (client, people) = (client.clone(), people.clone());
        let work = Arc::new(Throwaway { client, people, lease, kind });
        let plan = pace.plan(seconds);
        async move { (kind, drive(vec![work], &plan).await) }
    };
    let run = async {
        let mut measured = Vec::new();
        for kind in [Items::Claims, Items::Lookups, Items::Messages] {
            let (kind, outcome) = load(kind).await;
            measured.push(Measured::of(kind, pace, seconds, outcome));
        }
        measured
    };
    let measured = tokio::select! {
        measured = run => Ok(measured),
        () = interrupted() => Err(Failure::failed("interrupted")),
    };
    registration.deregister().await;
    people.remove(client).await?;
    measured
}

/// Registers a gateway that nobody can connect to. Its end is the end of all that it claims.
async fn register(client: &Client) -> Result<(Registration, Lease), Failure> {
    let address = "127.0.0.1:9";
    let registration =
        Registration::start(client.clone(), NAME, address, Kind::Gateway, Load::default)
            .map_err(|error| failure(&error))?;
    let mut lease = registration.lease();
    let held = tokio::time::timeout(REGISTRATION_WAIT_MAX, lease.wait_for(Lease::is_held)).await;
    match held.ok().and_then(Result::ok).map(|lease| *lease) {
        Some(held) => Ok((registration, held)),
        None => Err(Failure::failed("the store does not register a gateway")
            .help("look for shards without a leader: `switchboard cluster status`")),
    }
}

/// Users of this run alone.
struct People {
    run: u64,
    batch: usize,
}

impl People {
    fn user(&self, number: usize) -> Bytes {
        format!("check-perf-{:016x}-{number}", self.run).into()
    }

    fn device(&self, number: usize) -> Option<DeviceRef> {
        Some(DeviceRef { user: self.user(number), device: 1 })
    }

    /// Whom a call is about, as if by chance.
    fn numbers(&self, call: u64) -> impl Iterator<Item = usize> {
        let batch = self.batch as u64;
        (0..batch).map(move |item| pick(call.wrapping_mul(batch).wrapping_add(item), USERS))
    }

    /// Empties their mailboxes: then nothing is known of them any more.
    async fn remove(&self, client: &Client) -> Result<(), Failure> {
        use futures::stream::{StreamExt as _, TryStreamExt as _};
        let purge = |number| {
            let device = self.device(number).unwrap_or_default();
            async move { client.purge(device, "cluster check perf").await.map(drop) }
        };
        let purged = futures::stream::iter((0..USERS).map(purge)).buffer_unordered(REMOVALS);
        purged.try_collect::<()>().await.map_err(|error| {
            failure(&error).help(format!("what is left of it expires after {} s", TTL_MS / 1_000))
        })
    }
}

/// The three kinds of load.
#[derive(Debug, Clone, Copy)]
enum Items {
    Claims,
    Lookups,
    Messages,
}

impl Items {
    fn name(self) -> &'static str {
        match self {
            Items::Claims => "claims",
            Items::Lookups => "look-ups",
            Items::Messages => "messages of 256 B",
        }
    }
}

struct Throwaway {
    client: Client,
    people: Arc<People>,
    lease: Lease,
    kind: Items,
}

impl Work for Throwaway {
    async fn call(&self, call: u64) -> Tally {
        let statuses = match self.kind {
            Items::Claims => self.claim(call).await,
            Items::Lookups => self.locate(call).await,
            Items::Messages => self.enqueue(call).await,
        };
        let mut tally = Tally::default();
        match statuses {
            Ok(statuses) => statuses.into_iter().for_each(|status| tally.count(status)),
            Err(_) => tally.refuse("FAILED", self.people.batch as u64),
        }
        tally
    }
}

type Statuses = Result<Vec<ItemStatus>, switchboard_sdk::Error>;

impl Throwaway {
    async fn claim(&self, call: u64) -> Statuses {
        let item = |number| claim_request::Item {
            device: self.people.device(number),
            connection_id: call + 1,
            push_token: String::new(),
        };
        let items = self.people.numbers(call).map(item).collect();
        let Lease { gateway_id, incarnation, .. } = self.lease;
        let results = self.client.claim(gateway_id, incarnation, items).await?;
        Ok(results.iter().map(|result| result.status()).collect())
    }

    async fn locate(&self, call: u64) -> Statuses {
        let users = self.people.numbers(call).map(|number| self.people.user(number)).collect();
        let located = self.client.locate(users, Read::Lease).await?;
        Ok(located.results.iter().map(|result| result.status()).collect())
    }

    async fn enqueue(&self, call: u64) -> Statuses {
        let ids = message_ids(self.people.run, call, self.people.batch);
        let item = |(number, message_id)| enqueue_request::Item {
            to: self.people.device(number),
            from: self.people.device(0),
            message_id,
            ttl_ms: TTL_MS,
            body: Bytes::from_static(BODY),
            ..Default::default()
        };
        let items = self.people.numbers(call).zip(ids).map(item).collect();
        let results = self.client.enqueue(items).await?;
        Ok(results.iter().map(|result| result.status()).collect())
    }
}

impl Measured {
    fn of(kind: Items, pace: Pace, seconds: f64, outcome: Outcome) -> Measured {
        let Outcome { sums, missed, unanswered, .. } = outcome;
        let at = |share: f64| sums.latency_us.value_at_quantile(share) as f64 / 1e3;
        let (offered_per_s, p99_ms_expected) = match (pace, kind) {
            (Pace::Full, _) => (None, None),
            (Pace::Bounded { items_per_s }, Items::Lookups) => {
                (Some(f64::from(items_per_s)), Some(READ_P99_MS))
            }
            (Pace::Bounded { items_per_s }, _) => {
                (Some(f64::from(items_per_s)), Some(WRITE_P99_MS))
            }
        };
        Measured {
            what: kind.name(),
            offered_per_s,
            items_per_s: sums.items as f64 / seconds,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p99_ms_expected,
            refused: sums.refused.values().sum::<u64>() + missed + unanswered as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_a_run_are_its_own_and_their_names_fit() {
        let (one, other) = (People { run: 1, batch: 8 }, People { run: 2, batch: 8 });
        assert_ne!(one.user(7), other.user(7));
        let longest = People { run: u64::MAX, batch: 1 }.user(USERS);
        assert!(longest.len() <= switchboard_api::limits::USER_BYTES_MAX);
        assert!(one.numbers(99).all(|number| number < USERS));
        assert_eq!(one.numbers(99).count(), 8);
    }
}
