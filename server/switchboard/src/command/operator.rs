//! What operator commands share: how they reach the store, and how its answers become words.

use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use switchboard_api::v1::cluster_service_client::ClusterServiceClient;
use switchboard_api::v1::{ItemStatus, ShardMapRequest};
use switchboard_sdk::{Client, ClientOptions, Error};
use tonic::transport::{Channel, Endpoint};

use crate::output::Failure;

/// How long a command waits for the store.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Where the store is.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreArgs {
    /// Addresses of store nodes, as host:port
    #[arg(
        long,
        value_name = "A[,A]",
        value_delimiter = ',',
        env = "SWITCHBOARD_STORE",
        default_value = "127.0.0.1:7400"
    )]
    store: Vec<String>,
}

impl StoreArgs {
    /// The addresses, as `--store` takes them.
    pub(crate) fn nodes(&self) -> String {
        self.store.join(",")
    }

    /// A client that may not reach the store, with so long for each call.
    pub(crate) fn client(&self, deadline: Duration) -> Result<Client, Failure> {
        let options = ClientOptions::default().with_deadline(deadline);
        Client::connect(&self.store, options)
            .map_err(|error| Failure::usage(format!("--store: {error}")))
    }

    /// A client that has reached the store.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        self.connect_for(WAIT_MAX).await
    }

    /// The same, with so long for each call.
    pub(crate) async fn connect_for(&self, deadline: Duration) -> Result<Client, Failure> {
        let client = self.client(deadline)?;
        let waiting = async {
            match self.waiting().await {
                Some(address) => address,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = client.ready(WAIT_MAX) => ready.map_err(|_| {
                Failure::failed(format!("no store answers at {}", self.store.join(", "))).help(
                    "start one with `switchboard dev`, or name another by --store or SWITCHBOARD_STORE",
                )
            })?,
            address = waiting => return Err(waits_for_cluster(address)),
        }
        Ok(client)
    }

    /// A node that answers and has no cluster yet, if none of those named has one.
    async fn waiting(&self) -> Option<&str> {
        let asked = self.store.iter().map(|address| async move {
            let mut node = ClusterServiceClient::new(channel_to(address).await.ok()?);
            let map = node.shard_map(ShardMapRequest {}).await.ok()?.into_inner();
            Some((address.as_str(), map.shards))
        });
        let answers: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        let (address, _) = *answers.first()?;
        answers.iter().all(|(_, shards)| *shards == 0).then_some(address)
    }

    /// A connection to the first node named, past the SDK.
    pub(crate) async fn channel(&self) -> Result<Channel, Failure> {
        channel_to(self.first()).await
    }

    /// The first node named.
    pub(crate) fn first(&self) -> &str {
        self.store.first().map(String::as_str).unwrap_or_default()
    }
}

/// A connection to one node, past the SDK.
pub(crate) async fn channel_to(address: &str) -> Result<Channel, Failure> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Failure::usage(format!("{address}: {error}")))?;
    endpoint
        .connect_timeout(WAIT_MAX)
        .tcp_nodelay(true)
        .connect()
        .await
        .map_err(|_| Failure::failed(format!("no store answers at {address}")))
}

/// Resolves when somebody at the terminal interrupts the command.
pub(crate) async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler the process ends by the signal itself.
        std::future::pending::<()>().await;
    }
}

fn waits_for_cluster(address: &str) -> Failure {
    Failure::failed(format!("the node at {address} waits for its cluster")).help(
        "make one with `switchboard cluster init`, or take the node into another with `switchboard \
         node add`, sent to a node of that",
    )
}

/// Words for an error of the SDK.
pub(crate) fn failure(error: &Error) -> Failure {
    match error {
        Error::Rejected { reason, message } => {
            Failure::failed(format!("the store refused: {message} ({reason})"))
        }
        Error::Retryable { reason, message, .. } => {
            let reason_text =
                if reason.is_empty() { String::new() } else { format!(" ({reason})") };
            let failure =
                Failure::failed(format!("the store cannot answer now: {message}{reason_text}"));
            match what_to_do(reason) {
                Some(help) => failure.help(help),
                None => failure,
            }
        }
        Error::OutcomeUnknown { message } => Failure::failed(format!(
            "the store did not answer, so it may or may not have happened: {message}"
        ))
        .help("look before you try again"),
    }
}

/// None: the message says it.
fn what_to_do(reason: &str) -> Option<&'static str> {
    match reason {
        "NO_CONNECTION" | "NOT_LEADER" | "NO_QUORUM" => Some(
            "nothing happened; `switchboard cluster status` shows which nodes cannot be reached",
        ),
        "NODE_UNREACHABLE" | "NOT_INITIALIZED" | "NOT_YET" | "STOPPING" | "BEHIND"
        | "BACKUP_UNDER_WAY" | "PROBE_UNDER_WAY" => None,
        _ => Some("try again"),
    }
}

/// Words for an item that was not answered OK.
pub(crate) fn check(status: ItemStatus) -> Result<(), Failure> {
    let words = match status {
        ItemStatus::Ok | ItemStatus::Duplicate => return Ok(()),
        ItemStatus::Invalid => "there is no such user or device",
        ItemStatus::Overloaded => "it has too much to do; try again",
        ItemStatus::Unavailable => {
            "no leader of the user's shard can be reached; `switchboard cluster status` shows which \
             nodes are away"
        }
        other => {
            return Err(Failure::failed(format!("the store answered {}", other.as_str_name())));
        }
    };
    Err(Failure::failed(format!("the store answered {}: {words}", status.as_str_name())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_reason_and_says_once_what_to_do() {
        let refused = |reason: &str| {
            let (reason, message) = (reason.to_owned(), "node 4 is away".to_owned());
            failure(&Error::Retryable { reason, retry_after: WAIT_MAX, message })
        };
        let away = refused("NODE_UNREACHABLE");
        assert!(away.message().ends_with("node 4 is away (NODE_UNREACHABLE)"), "{away:?}");
        assert!(!format!("{away:?}").contains("try again"), "{away:?}");
        let leaderless = refused("NOT_LEADER");
        assert!(format!("{leaderless:?}").contains("cluster status"), "{leaderless:?}");
        assert!(refused("").message().ends_with("node 4 is away"));
    }
}
