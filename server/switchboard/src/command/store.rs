//! `store`: the process that keeps all state.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use switchboard_process::addresses;
use switchboard_store::StoreConfig;

use super::server::{self, ConfigArgs, is_unset};
use super::serving;
use crate::output::Failure;

/// Run a store: sessions, mailboxes and the registry of processes, durable on disk. Without --single
/// it waits for `switchboard cluster init`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard store --single --data ./store-data
  switchboard store --data ./store-data --node-id 2 --listen 10.0.0.2:7400 \\
      --insecure
  switchboard store --single --shards 4 --data ./store-data \\
      --listen 127.0.0.1:0 --http 127.0.0.1:0
  switchboard store --config /etc/switchboard/store.toml
  switchboard store --single --data ./store-data --print-config")]
pub(crate) struct Store {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Args, Serialize)]
struct Flags {
    /// Where everything is kept; made when it is missing
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The id of this node, 1 or more [default: 1]
    #[arg(long, value_name = "N")]
    node_id: Option<u64>,
    /// Make a one-node cluster of this node at its first start
    #[arg(long)]
    #[serde(skip_serializing_if = "is_unset")]
    single: bool,
    /// Shards of a new cluster: a power of two, fixed from then on [default: 16]
    #[arg(long, value_name = "N")]
    shards: Option<u32>,
    /// Where gRPC is served [default: 127.0.0.1:7400]
    #[arg(long, value_name = "A")]
    listen: Option<SocketAddr>,
    /// At which host:port others reach it [default: the address bound]
    #[arg(long, value_name = "A")]
    advertise: Option<String>,
    /// Health, metrics and status [default: 127.0.0.1:7401]
    #[arg(long, value_name = "A")]
    http: Option<SocketAddr>,
    /// Allow plain text beyond loopback, and let anyone do what operators may
    #[arg(long)]
    #[serde(skip_serializing_if = "is_unset")]
    insecure: bool,
}

impl Store {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Some(config) = self.config.load(&self.flags, |config: &StoreConfig| &config.log)?
        else {
            return Ok(());
        };
        serving(async {
            let data = config.data.clone();
            let store = start(config).await?;
            write_addresses(&data, store.addresses());
            let ended = server::run(store).await;
            addresses::remove(&data);
            ended
        })
    }
}

/// Starts a store, with words for what keeps it from starting.
pub(super) async fn start(config: StoreConfig) -> Result<switchboard_store::Running, Failure> {
    let (data, node_id) = (config.data.display().to_string(), config.node_id);
    switchboard_store::start(config).await.map_err(|error| {
        let failure = Failure::failed(format!("cannot start the store: {}", chain(&error)));
        match error {
            switchboard_store::StartError::Open(error) if error.is_damage() => {
                failure.help(format!(
                    "`switchboard log inspect {data}` shows what is there. If other nodes replicate the data: move \
                     {data} away, start this node with an empty directory, and run `switchboard node add {node_id} \
                     ADDRESS --lost-disk`; it gets everything from them. Otherwise restore a backup (`switchboard \
                     backup restore`)"
                ))
            }
            error if error.is_in_use() => failure
                .help("stop the other process, or give this one a directory of its own by --data"),
            error if error.is_of_another_node() => failure.help(
                "name the node that the data belongs to by --node-id, or another directory by --data",
            ),
            switchboard_store::StartError::Open(_) => {
                failure.help(format!("`switchboard log inspect {data}` shows what is there"))
            }
            _ => failure,
        }
    })
}

/// An error with its causes, but for those that its own words repeat.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

/// Writes `addresses.json`. Without it the store serves all the same.
pub(super) fn write_addresses(data: &std::path::Path, bound: &[(&'static str, SocketAddr)]) {
    if let Err(error) = addresses::write(data, bound) {
        tracing::warn!(%error, "cannot write {}", addresses::FILE_NAME);
    }
}
