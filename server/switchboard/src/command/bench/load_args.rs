//! The options that all load tests share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use switchboard_api::limits::ITEMS_PER_BATCH_MAX;
use switchboard_api::v1::register_request::Kind;
use switchboard_device::GatewayAddress;
use switchboard_sdk::Client;

use super::{seconds, within, write_json};
use crate::cli::Global;
use crate::limits::{LOAD_CONNECTIONS_MAX, LOAD_IN_FLIGHT_MAX, LOAD_USERS_MAX};
use crate::load::drive::Plan;
use crate::load::report::{Report, Settings};
use crate::load::servers;
use crate::output::Failure;

/// How much load, for how long, and what is looked at meanwhile.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    /// How long to measure, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// How long to run before that, in seconds
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    warmup: f64,
    /// Open loop: offer so many items a second, whatever the answers; a latency counts from when a
    /// call was due. Without it each call follows the answer to the one before
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// Calls under way on each connection
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = in_flight)]
    in_flight: usize,
    /// Server processes whose CPU and memory are reported; found by the addresses that the store
    /// names, if they run on this machine
    #[arg(long, value_name = "P[,P]", value_delimiter = ',')]
    pid: Vec<u32>,
    /// Also write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Show no live line
    #[arg(long, short)]
    quiet: bool,
}

impl LoadArgs {
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn quiet(&self) -> bool {
        self.quiet
    }

    /// The plan of a run whose calls carry `batch` items each.
    pub(crate) fn plan(&self, batch: usize, pids: Vec<u32>) -> Plan {
        Plan {
            warmup: Duration::from_secs_f64(self.warmup),
            measured: Duration::from_secs_f64(self.seconds.max(0.1)),
            in_flight: self.in_flight,
            calls_per_s: self.rate.map(|items| items / batch as f64),
            pids,
            quiet: self.quiet,
        }
    }

    /// The processes that were named, or the stores of the cluster that run here.
    pub(crate) async fn stores(&self, client: &Client) -> Vec<u32> {
        if !self.pid.is_empty() {
            return self.pid.clone();
        }
        // Where they are is told for the report only: without an answer it names no server.
        let map = client.shard_map().await.unwrap_or_default();
        let addresses: Vec<String> = map.nodes.into_iter().map(|node| node.address).collect();
        servers::listening_on(&addresses)
    }

    /// The processes that were named, or the stores, gateways and chats of the cluster that run
    /// here.
    pub(crate) async fn all_servers(&self, client: &Client) -> Vec<u32> {
        let mut pids = self.stores(client).await;
        if !self.pid.is_empty() {
            return pids;
        }
        let mut addresses = Vec::new();
        for kind in [Kind::Gateway, Kind::Chat] {
            let found = client.list_gateways(kind, false).await.unwrap_or_default();
            addresses.extend(found.into_iter().map(|info| info.address));
        }
        pids.extend(servers::listening_on(&addresses));
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Prints and writes the report; fails if nothing was done.
    pub(crate) fn finish(&self, global: Global, report: &Report) -> Result<(), Failure> {
        self.write(report)?;
        global.output.print(report, Report::table)?;
        if report.is_empty() {
            let why: Vec<String> =
                report.refused.iter().map(|(why, items)| format!("{items} {why}")).collect();
            return Err(Failure::failed(format!("nothing was done: {}", why.join(", "))));
        }
        Ok(())
    }

    fn write(&self, report: &impl Serialize) -> Result<(), Failure> {
        self.json.as_ref().map_or(Ok(()), |path| write_json(report, path))
    }
}

/// How calls to the store are made up.
#[derive(Debug, Clone, Args)]
pub(crate) struct BatchArgs {
    /// Connections to each server
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = connections)]
    pub(crate) connections: usize,
    /// Users that take part; their names begin with `bench-`
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = users)]
    pub(crate) users: u64,
    /// Items of each call
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = batch)]
    pub(crate) batch: usize,
}

impl BatchArgs {
    /// What a report says of a run with these options.
    pub(crate) fn settings(
        &self,
        command: &'static str,
        item: &'static str,
        calls: &'static str,
        in_flight: usize,
    ) -> Settings {
        let Self { connections, users, batch } = *self;
        Settings { command, item, calls, connections, in_flight, batch, users, size: None }
    }
}

/// Where devices connect, and as whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct GatewayArgs {
    /// Gateways, as host:port or ws://host:port; devices are spread over them
    #[arg(
        long,
        value_name = "A[,A]",
        value_delimiter = ',',
        default_value = "127.0.0.1:7410",
        env = "SWITCHBOARD_GATEWAY"
    )]
    pub(crate) gateway: Vec<GatewayAddress>,
    /// What devices present to the gateway
    #[arg(long, default_value = "", env = "SWITCHBOARD_TOKEN", hide_env_values = true)]
    pub(crate) token: String,
}

fn batch(text: &str) -> Result<usize, String> {
    count(text, ITEMS_PER_BATCH_MAX as u64).map(|count| count as usize)
}

fn connections(text: &str) -> Result<usize, String> {
    count(text, LOAD_CONNECTIONS_MAX as u64).map(|count| count as usize)
}

fn in_flight(text: &str) -> Result<usize, String> {
    count(text, LOAD_IN_FLIGHT_MAX as u64).map(|count| count as usize)
}

fn users(text: &str) -> Result<u64, String> {
    count(text, LOAD_USERS_MAX)
}

fn rate(text: &str) -> Result<f64, String> {
    within(text, 0.1, 1e9)
}

fn count(text: &str, max: u64) -> Result<u64, String> {
    let number: u64 = text.parse().map_err(|_| "not a whole number".to_owned())?;
    if (1..=max).contains(&number) { Ok(number) } else { Err(format!("must be from 1 to {max}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_out_of_bounds_are_refused() {
        assert_eq!(batch("1024"), Ok(1024));
        for bad in ["0", "1025", "-1", "x", ""] {
            assert!(batch(bad).is_err(), "{bad}");
        }
        assert!(rate("0").is_err());
    }
}
