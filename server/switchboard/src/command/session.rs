//! `session locate USER`: where a user is connected.

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use switchboard_api::limits::USER_BYTES_MAX;
use switchboard_api::v1::Read;

use super::name::{time_text, user_text};
use super::operator::{StoreArgs, check, failure};
use crate::cli::Global;
use crate::output::{Failure, Output, print_line, table};

/// Look into the session directory
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard session locate alice
  switchboard session locate alice --read local --output json")]
pub(crate) struct Session {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Locate(Locate),
}

/// Show which gateways hold a user's connections
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard session locate alice
  switchboard session locate alice --store 127.0.0.1:7400 --output json")]
struct Locate {
    /// The user
    user: String,
    /// How fresh the answer must be
    #[arg(long, value_enum, default_value = "linearizable")]
    read: Freshness,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Freshness {
    /// Any replica; says how stale it is
    Local,
    /// The leader, under its lease
    Lease,
    /// Confirmed with a quorum
    Linearizable,
}

#[derive(Debug, Serialize)]
struct Found {
    user: String,
    devices: Vec<u32>,
    sessions: Vec<FoundSession>,
    staleness_ms: u64,
}

#[derive(Debug, Serialize)]
struct FoundSession {
    device: u32,
    gateway_id: u32,
    incarnation: u64,
    connection_id: u64,
    epoch: u64,
    connected_at_ms: u64,
}

impl Session {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        let Command::Locate(locate) = self.command;
        locate.run(global).await
    }
}

impl Locate {
    async fn run(self, global: Global) -> Result<(), Failure> {
        if !(1..=USER_BYTES_MAX).contains(&self.user.len()) {
            return Err(Failure::usage(format!("a user has 1 to {USER_BYTES_MAX} bytes")));
        }
        let read = match self.read {
            Freshness::Local => Read::Local,
            Freshness::Lease => Read::Lease,
            Freshness::Linearizable => Read::Linearizable,
        };
        let user = Bytes::from(self.user.into_bytes());
        let client = self.store.connect().await?;
        let located = client.locate(vec![user.clone()], read).await.map_err(|e| failure(&e))?;
        let result = located.results.into_iter().next().unwrap_or_default();
        check(result.status())?;
        let sessions = result.sessions.into_iter().map(|session| FoundSession {
            device: session.device.map_or(0, |device| device.device),
            gateway_id: session.gateway_id,
            incarnation: session.incarnation,
            connection_id: session.connection_id,
            epoch: session.epoch,
            connected_at_ms: session.connected_at_ms,
        });
        let found = Found {
            user: user_text(&user),
            devices: result.devices,
            sessions: sessions.collect(),
            staleness_ms: located.staleness_ms,
        };
        global.output.print(&found, |found| {
            let mut table = table(["device", "gateway", "incarnation", "connection", "since"]);
            for device in &found.devices {
                let session = found.sessions.iter().find(|session| session.device == *device);
                let cell = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
                table.add_row([
                    device.to_string(),
                    cell(session.map(|s| s.gateway_id.to_string())),
                    cell(session.map(|s| s.incarnation.to_string())),
                    cell(session.map(|s| s.connection_id.to_string())),
                    session.map_or("offline".to_owned(), |s| time_text(s.connected_at_ms)),
                ]);
            }
            table
        })?;
        if matches!(self.read, Freshness::Local) && global.output == Output::Table {
            print_line(&format!("at most {} ms old", found.staleness_ms))?;
        }
        Ok(())
    }
}
