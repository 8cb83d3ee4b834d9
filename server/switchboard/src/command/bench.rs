//! `bench …`: load and its check.

mod replay;

use clap::{Args, Subcommand};

use crate::cli::Global;
use crate::output::Failure;

/// Put load on a running system and check what it does
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard bench replay conversations.jsonl.gz
  switchboard bench replay --help")]
pub(crate) struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Replay(Box<replay::Replay>),
}

impl Bench {
    pub(crate) fn run(self, global: Global) -> Result<(), Failure> {
        match self.command {
            Command::Replay(replay) => replay.run(global),
        }
    }
}
