//! `bench locate`: where users are, without gateways and devices.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use switchboard_api::limits::{GRPC_MESSAGE_BYTES_MAX, ITEMS_PER_BATCH_MAX};
use switchboard_api::v1::session_service_client::SessionServiceClient;
use switchboard_api::v1::{ItemStatus, LocateRequest, Read, locate_response};
use switchboard_sdk::Client;
use tonic::transport::Channel;

use super::claim::{items, register};
use super::enqueue::word;
use super::load_args::{BatchArgs, LoadArgs};
use crate::cli::Global;
use crate::command::operator::{StoreArgs, failure};
use crate::load::drive::{Work, drive};
use crate::load::people::People;
use crate::load::report::Report;
use crate::load::samples::Tally;
use crate::output::Failure;

/// Look users up as fast as they are found, or at a rate, and report throughput and latency
///
/// First claims a session for each user, as a gateway that has no devices; then looks users up that
/// are chosen by chance. A user counts when the session was found. At the end it deregisters, which
/// ends all of these sessions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard bench locate
  switchboard bench locate --read linearizable --batch 16
  switchboard bench locate --users 1000000 --rate 500000 --output json
  switchboard bench locate --unary --batch 1")]
pub(crate) struct Locate {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    batch: BatchArgs,
    /// How fresh the answers must be
    #[arg(long, value_enum, default_value = "lease")]
    read: Freshness,
    /// One call of its own for each batch, to the first node of --store, instead of streams to the
    /// leaders
    #[arg(long)]
    unary: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Freshness {
    Local,
    Lease,
    Linearizable,
}

impl From<Freshness> for Read {
    fn from(freshness: Freshness) -> Read {
        match freshness {
            Freshness::Local => Read::Local,
            Freshness::Lease => Read::Lease,
            Freshness::Linearizable => Read::Linearizable,
        }
    }
}

impl Locate {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        let pids = self.load.stores(&client).await;
        let people = People::new(self.batch.users);
        let (registration, lease) = register(&client).await?;
        if !self.load.quiet() {
            eprintln!("claiming sessions of {} users first", self.batch.users);
        }
        for users in people.all(ITEMS_PER_BATCH_MAX) {
            client
                .claim(lease.gateway_id, lease.incarnation, items(users))
                .await
                .map_err(|error| failure(&error))?;
        }
        let mut connections = Vec::new();
        for _ in 0..self.batch.connections {
            let way = if self.unary {
                let calls = SessionServiceClient::new(self.store.channel().await?);
                Way::Unary(calls.max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX))
            } else {
                Way::Stream(self.store.connect().await?)
            };
            let (read, batch) = (self.read.into(), self.batch.batch);
            connections.push(Arc::new(Lookups { way, people, batch, read }));
        }
        let plan = self.load.plan(self.batch.batch, pids);
        let outcome = drive(connections, &plan).await;
        registration.deregister().await;
        let calls = if self.unary { "unary" } else { "stream" };
        let settings = self.batch.settings("locate", "user", calls, self.load.in_flight());
        self.load.finish(global, &Report::new(settings, &plan, outcome))
    }
}

/// How batches travel.
enum Way {
    /// `LocateStream`, to the leader of each user's shard.
    Stream(Client),
    /// `Locate`, to one node, which passes on what belongs elsewhere.
    Unary(SessionServiceClient<Channel>),
}

/// Batches of look-ups over one connection.
struct Lookups {
    way: Way,
    people: People,
    batch: usize,
    read: Read,
}

impl Work for Lookups {
    async fn call(&self, call: u64) -> Tally {
        let users = self.people.batch(call, self.batch).collect();
        let mut tally = Tally::default();
        let results = match &self.way {
            Way::Stream(client) => client
                .locate(users, self.read)
                .await
                .map(|found| found.results)
                .map_err(|_| "FAILED"),
            Way::Unary(calls) => {
                let request = LocateRequest { users, read: self.read.into() };
                let answer = calls.clone().locate(request).await;
                answer.map(|answer| answer.into_inner().results).map_err(|status| word(&status))
            }
        };
        match results {
            Ok(results) => results.iter().for_each(|result| count(&mut tally, result)),
            Err(why) => tally.refuse(why, self.batch as u64),
        }
        tally
    }
}

fn count(tally: &mut Tally, result: &locate_response::Result) {
    match result.status() {
        ItemStatus::Ok if result.sessions.is_empty() => tally.refuse("NO_SESSION", 1),
        status => tally.count(status),
    }
}
