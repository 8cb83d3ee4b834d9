//! `bench …`: load, and what it did.

mod claim;
mod connections;
mod enqueue;
mod load_args;
mod locate;
mod message;
mod replay;
mod storm;

use std::path::Path;

use clap::{Args, Subcommand};

use super::runtime;
use crate::cli::Global;
use crate::output::Failure;

/// Put load on a running system, and report or check what it does
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard bench enqueue --seconds 10
  switchboard bench locate --users 1000000 --rate 200000
  switchboard bench claim --output json
  switchboard bench connections --count 15000 --pid 4711
  switchboard bench message --rate 2000
  switchboard bench storm --devices 20000 --gateways 3
  switchboard bench replay conversations.jsonl.gz")]
pub(crate) struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Locate(Box<locate::Locate>),
    Claim(Box<claim::Claim>),
    Enqueue(Box<enqueue::Enqueue>),
    Connections(Box<connections::Connections>),
    Message(Box<message::Message>),
    Storm(Box<storm::Storm>),
    Replay(Box<replay::Replay>),
}

impl Bench {
    pub(crate) fn run(self, global: Global) -> Result<(), Failure> {
        match self.command {
            Command::Locate(locate) => runtime()?.block_on(locate.run(global)),
            Command::Claim(claim) => runtime()?.block_on(claim.run(global)),
            Command::Enqueue(enqueue) => runtime()?.block_on(enqueue.run(global)),
            Command::Connections(connections) => runtime()?.block_on(connections.run(global)),
            Command::Message(message) => runtime()?.block_on(message.run(global)),
            Command::Storm(storm) => runtime()?.block_on(storm.run(global)),
            Command::Replay(replay) => replay.run(global),
        }
    }
}

/// Longest time that an option may name: a day.
const SECONDS_MAX: f64 = 86_400.0;

fn seconds(text: &str) -> Result<f64, String> {
    within(text, 0.0, SECONDS_MAX)
}

fn within(text: &str, min: f64, max: f64) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(format!("must be from {min} to {max}"))
    }
}

fn write_json(report: &impl serde::Serialize, path: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::failed(format!("cannot write {}: {error}", path.display()))
    };
    let mut text = serde_json::to_string_pretty(report).map_err(|error| failed(error.into()))?;
    text.push('\n');
    std::fs::write(path, text).map_err(failed)
}
