//! `bench claim`: devices that connect, without gateways and devices.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use switchboard_api::v1::DeviceRef;
use switchboard_api::v1::claim_request::Item;
use switchboard_api::v1::register_request::Kind;
use switchboard_sdk::{Client, Lease, Load, Registration};

use super::load_args::{BatchArgs, LoadArgs};
use crate::cli::Global;
use crate::command::operator::{StoreArgs, failure};
use crate::load::drive::{Work, drive};
use crate::load::people::People;
use crate::load::report::Report;
use crate::load::samples::Tally;
use crate::output::Failure;

/// How long a registration may take.
const REGISTRATION_WAIT_MAX: Duration = Duration::from_secs(10);

/// Claim sessions as fast as they are granted, or at a rate, and report throughput and latency
///
/// Registers as a gateway that has no devices, and claims sessions of users chosen by chance, as
/// gateways do when devices connect. At the end it deregisters, which ends all of these sessions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard bench claim
  switchboard bench claim --rate 12000 --batch 1 --in-flight 64
  switchboard bench claim --users 1000000 --seconds 30 --output json")]
pub(crate) struct Claim {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    batch: BatchArgs,
}

impl Claim {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        let pids = self.load.stores(&client).await;
        let (registration, lease) = register(&client).await?;
        let mut connections = Vec::new();
        for _ in 0..self.batch.connections {
            connections.push(Arc::new(Claims {
                client: self.store.connect().await?,
                lease,
                people: People::new(self.batch.users),
                batch: self.batch.batch,
            }));
        }
        let plan = self.load.plan(self.batch.batch, pids);
        let outcome = drive(connections, &plan).await;
        registration.deregister().await;
        let settings = self.batch.settings("claim", "claim", "unary", self.load.in_flight());
        self.load.finish(global, &Report::new(settings, &plan, outcome))
    }
}

/// Registers a gateway that nobody can connect to, for as long as the registration is kept.
pub(super) async fn register(client: &Client) -> Result<(Registration, Lease), Failure> {
    let name = format!("bench-{}", std::process::id());
    // Nothing listens there; whoever pushes to these sessions finds nobody, and goes on.
    let registration =
        Registration::start(client.clone(), &name, "127.0.0.1:9", Kind::Gateway, Load::default)
            .map_err(|error| failure(&error))?;
    let mut lease = registration.lease();
    let held = tokio::time::timeout(REGISTRATION_WAIT_MAX, lease.wait_for(Lease::is_held)).await;
    let held = held.ok().and_then(Result::ok).map(|lease| *lease);
    match held {
        Some(held) => Ok((registration, held)),
        None => Err(Failure::failed("the store does not register a gateway").help("try again")),
    }
}

/// The items that claim the primary devices of users.
pub(super) fn items(users: impl IntoIterator<Item = Bytes>) -> Vec<Item> {
    let item = |(connection, user): (usize, Bytes)| Item {
        device: Some(DeviceRef { user, device: 1 }),
        connection_id: connection as u64 + 1,
        push_token: String::new(),
    };
    users.into_iter().enumerate().map(item).collect()
}

/// Batches of claims over one client.
struct Claims {
    client: Client,
    lease: Lease,
    people: People,
    batch: usize,
}

impl Work for Claims {
    async fn call(&self, call: u64) -> Tally {
        let items = items(self.people.batch(call, self.batch));
        let Lease { gateway_id, incarnation, .. } = self.lease;
        let mut tally = Tally::default();
        match self.client.claim(gateway_id, incarnation, items).await {
            Ok(results) => results.iter().for_each(|result| tally.count(result.status())),
            Err(_) => tally.refuse("FAILED", self.batch as u64),
        }
        tally
    }
}
