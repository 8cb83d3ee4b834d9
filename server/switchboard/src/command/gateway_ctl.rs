//! `gateway-ctl`: the gateway and chat processes that the store knows.

mod drain;

use clap::{Args, Subcommand};
use serde::Serialize;
use switchboard_api::v1::register_request::Kind;

use super::name::time_text;
use super::operator::{StoreArgs, failure};
use crate::cli::Global;
use crate::output::{Failure, table};

/// Look after gateway and chat processes
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard gateway-ctl list
  switchboard gateway-ctl list --all --output json
  switchboard gateway-ctl drain gateway-1 --rate 500")]
pub(crate) struct GatewayCtl {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Drain(drain::Drain),
}

/// Show gateway and chat processes, their leases and their load
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard gateway-ctl list
  switchboard gateway-ctl list --all")]
struct List {
    /// Also those that have ended
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Serialize)]
struct Process {
    name: String,
    kind: &'static str,
    gateway_id: u32,
    incarnation: u64,
    address: String,
    live: bool,
    connections: u64,
    load: f64,
    lease_ms_left: u64,
    registered_at_ms: u64,
}

impl GatewayCtl {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run(global).await,
            Command::Drain(drain) => drain.run(global).await,
        }
    }
}

impl List {
    async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        let mut processes = Vec::new();
        for (kind, word) in [(Kind::Gateway, "gateway"), (Kind::Chat, "chat")] {
            let found = client.list_gateways(kind, self.all).await.map_err(|e| failure(&e))?;
            processes.extend(found.into_iter().map(|info| Process {
                name: info.name,
                kind: word,
                gateway_id: info.gateway_id,
                incarnation: info.incarnation,
                address: info.address,
                live: info.live,
                connections: info.connections,
                load: info.load,
                lease_ms_left: info.lease_ms_left,
                registered_at_ms: info.registered_at_ms,
            }));
        }
        global.output.print(&processes, |processes| {
            let mut table = table([
                "name",
                "kind",
                "id",
                "incarnation",
                "address",
                "connections",
                "lease",
                "since",
            ]);
            for process in processes {
                let lease = match process.live {
                    true => format!("{:.1} s", process.lease_ms_left as f64 / 1e3),
                    false => "ended".to_owned(),
                };
                table.add_row([
                    process.name.clone(),
                    process.kind.to_owned(),
                    process.gateway_id.to_string(),
                    process.incarnation.to_string(),
                    process.address.clone(),
                    process.connections.to_string(),
                    lease,
                    time_text(process.registered_at_ms),
                ]);
            }
            table
        })
    }
}
