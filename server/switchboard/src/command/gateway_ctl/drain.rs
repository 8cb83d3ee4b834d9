//! `gateway-ctl drain`: empties a gateway before it is stopped.

use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use switchboard_api::v1::{
    DrainRequest, DrainResponse, drain_service_client::DrainServiceClient, register_request::Kind,
};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::super::operator::{StoreArgs, failure};
use crate::cli::Global;
use crate::output::{Failure, table};

/// How long the gateway may take to answer at all.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Send a gateway's devices to the others, at a rate, before it is stopped
///
/// While it runs, the gateway takes no device in. Interrupt it to abort: devices are taken in again.
/// When it is through, stop the gateway: only a restart lets it take devices in again. It must be reached on loopback, or run with --insecure.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard gateway-ctl drain gateway-1
  switchboard gateway-ctl drain gateway-1 --rate 500 --wait 600")]
pub(super) struct Drain {
    /// The gateway's name, as `gateway-ctl list` shows it
    name: String,
    /// Devices a second [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// Abort when devices are left after so many seconds
    #[arg(long, value_name = "S")]
    wait: Option<u64>,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    name: String,
    connections: u64,
    seconds: f64,
}

impl Drain {
    pub(super) async fn run(self, global: Global) -> Result<(), Failure> {
        let address = self.address().await?;
        let began = Instant::now();
        let answers = open(&address, self.rate.unwrap_or(0)).await?;
        let drained = follow(answers);
        let connections = match self.wait {
            None => drained.await?,
            // The stream is dropped, and with it the drain ends.
            Some(seconds) => {
                timeout(Duration::from_secs(seconds), drained).await.map_err(|_| {
                    Failure::failed(format!(
                        "devices are left after {seconds} s; the drain is aborted"
                    ))
                    .help("a higher --rate or a longer --wait")
                })??
            }
        };
        let seconds = began.elapsed().as_secs_f64();
        let report = Report { name: self.name, connections, seconds };
        global.output.print(&report, |report| {
            let mut table = table(["gateway", "devices sent away", "seconds"]);
            let seconds = format!("{:.1}", report.seconds);
            table.add_row([report.name.clone(), report.connections.to_string(), seconds]);
            table
        })
    }

    async fn address(&self) -> Result<String, Failure> {
        let client = self.store.connect().await?;
        let gateways = client.list_gateways(Kind::Gateway, false).await.map_err(|e| failure(&e))?;
        let found = gateways.into_iter().find(|gateway| gateway.name == self.name);
        found.map(|gateway| gateway.address).ok_or_else(|| {
            Failure::failed(format!("no live gateway has the name {}", self.name))
                .help("`switchboard gateway-ctl list` shows them")
        })
    }
}

async fn open(address: &str, rate_per_s: u32) -> Result<Streaming<DrainResponse>, Failure> {
    let answered = timeout(ANSWER_MAX, async {
        let mut gateway = DrainServiceClient::connect(format!("http://{address}"))
            .await
            .map_err(|error| Failure::failed(format!("{address} cannot be reached: {error}")))?;
        let answers = gateway.drain(DrainRequest { rate_per_s }).await;
        answers.map(tonic::Response::into_inner).map_err(|status| refused(address, &status))
    });
    answered.await.unwrap_or_else(|_| Err(Failure::failed(format!("{address} does not answer"))))
}

fn refused(address: &str, status: &Status) -> Failure {
    Failure::failed(format!("the gateway at {address} refused: {}", status.message()))
}

/// Shows how far it is until nobody is left; how many devices there were.
async fn follow(mut answers: Streaming<DrainResponse>) -> Result<u64, Failure> {
    // Draws on standard error, and only on a terminal.
    let bar = ProgressBar::new(0).with_style(style());
    loop {
        let answer = answers.message().await.map_err(|status| {
            Failure::failed(format!("the gateway is gone: {}", status.message()))
        })?;
        let Some(DrainResponse { connections, left, done }) = answer else {
            return Err(Failure::failed("the gateway ended the drain before its end"));
        };
        bar.set_length(connections);
        bar.set_position(connections.saturating_sub(left));
        if done {
            bar.finish_and_clear();
            return Ok(connections);
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{wide_bar} {pos}/{len} devices {per_sec} {eta}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
