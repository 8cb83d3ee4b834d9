//! `bench enqueue`: messages into the store, without gateways and devices.

use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use switchboard_api::limits::{BODY_BYTES_MAX, GRPC_MESSAGE_BYTES_MAX};
use switchboard_api::v1::enqueue_request::Item;
use switchboard_api::v1::mailbox_service_client::MailboxServiceClient;
use switchboard_api::v1::{DeviceRef, EnqueueRequest};
use switchboard_sdk::Client;
use tonic::transport::Channel;

use super::load_args::{BatchArgs, LoadArgs};
use super::{seconds, within};
use crate::cli::Global;
use crate::command::operator::StoreArgs;
use crate::load::drive::{Work, drive};
use crate::load::people::{self, People, message_ids};
use crate::load::report::{Report, Settings};
use crate::load::samples::Tally;
use crate::output::Failure;

/// Enqueue messages as fast as they are taken, or at a rate, and report throughput and latency
///
/// A message counts when the store has answered OK, that is, when it is durable on a majority. Each
/// call is a batch of messages to users chosen by chance. Nobody acknowledges them: they expire.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard bench enqueue
  switchboard bench enqueue --batch 1 --in-flight 1 --connections 1
  switchboard bench enqueue --rate 50000 --seconds 30 --output json
  switchboard bench enqueue --store 10.0.0.1:7400,10.0.0.2:7400 \\
      --size 1024 --json report.json")]
pub(crate) struct Enqueue {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    batch: BatchArgs,
    /// Bytes of each message's body
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = size)]
    size: usize,
    /// Messages expire after so many seconds
    #[arg(long, value_name = "S", default_value_t = 120.0, value_parser = seconds)]
    ttl: f64,
    /// One call of its own for each batch, to the first node of --store, instead of streams to the
    /// leaders
    #[arg(long)]
    unary: bool,
}

impl Enqueue {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        let pids = self.load.stores(&client).await;
        let run = people::run();
        let mut connections = Vec::new();
        for _ in 0..self.batch.connections {
            let way = if self.unary {
                let channel = self.store.channel().await?;
                let calls = MailboxServiceClient::new(channel);
                Way::Unary(calls.max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX))
            } else {
                Way::Stream(self.store.connect().await?)
            };
            connections.push(Arc::new(Messages {
                way,
                run,
                people: People::new(self.batch.users),
                batch: self.batch.batch,
                ttl_ms: (self.ttl * 1e3) as u64,
                body: noise(self.size),
            }));
        }
        let plan = self.load.plan(self.batch.batch, pids);
        let outcome = drive(connections, &plan).await;
        let calls = if self.unary { "unary" } else { "stream" };
        let settings = Settings {
            size: Some(self.size),
            ..self.batch.settings("enqueue", "message", calls, self.load.in_flight())
        };
        self.load.finish(global, &Report::new(settings, &plan, outcome))
    }
}

/// How batches travel.
enum Way {
    /// `EnqueueStream`, to the leader of each message's shard.
    Stream(Client),
    /// `Enqueue`, to one node, which passes on what belongs elsewhere.
    Unary(MailboxServiceClient<Channel>),
}

/// Batches of messages over one connection.
struct Messages {
    way: Way,
    /// Makes ids of messages differ between runs.
    run: u64,
    people: People,
    batch: usize,
    ttl_ms: u64,
    body: Bytes,
}

impl Messages {
    fn items(&self, call: u64) -> Vec<Item> {
        let users = self.people.batch(call, self.batch);
        let items = users.zip(message_ids(self.run, call, self.batch)).map(|(user, message_id)| {
            let from = DeviceRef { user: Bytes::from_static(b"bench-sender-001"), device: 1 };
            Item {
                to: Some(DeviceRef { user, device: 1 }),
                message_id,
                from: Some(from),
                ttl_ms: self.ttl_ms,
                body: self.body.clone(),
                ..Item::default()
            }
        });
        items.collect()
    }
}

impl Work for Messages {
    async fn call(&self, call: u64) -> Tally {
        let items = self.items(call);
        let mut tally = Tally::default();
        let results = match &self.way {
            Way::Stream(client) => client.enqueue(items).await.map_err(|_| "FAILED"),
            Way::Unary(calls) => {
                let answer = calls.clone().enqueue(EnqueueRequest { items }).await;
                answer.map(|answer| answer.into_inner().results).map_err(|status| word(&status))
            }
        };
        match results {
            Ok(results) => results.iter().for_each(|result| tally.count(result.status())),
            Err(why) => tally.refuse(why, self.batch as u64),
        }
        tally
    }
}

/// The word for a call that failed as a whole.
pub(super) fn word(status: &tonic::Status) -> &'static str {
    match status.code() {
        tonic::Code::ResourceExhausted => "OVERLOADED",
        tonic::Code::Unavailable => "UNAVAILABLE",
        tonic::Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        tonic::Code::InvalidArgument => "INVALID_ARGUMENT",
        _ => "FAILED",
    }
}

/// Bytes that do not compress, as ciphertext does not.
pub(super) fn noise(bytes: usize) -> Bytes {
    std::iter::repeat_with(rand::random::<u8>).take(bytes).collect()
}

fn size(text: &str) -> Result<usize, String> {
    within(text, 0.0, BODY_BYTES_MAX as f64).map(|size| size as usize)
}
