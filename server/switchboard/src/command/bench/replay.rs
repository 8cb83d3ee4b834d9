//! `bench replay FILE`: conversations through real device connections, checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::load_args::GatewayArgs;
use super::{seconds, within, write_json};
use crate::cli::Global;
use crate::command::runtime;
use crate::output::Failure;
use crate::replay::corpus::Corpus;
use crate::replay::load;
use crate::replay::plan::PlanOptions;
use crate::replay::progress::Progress;
use crate::replay::run::{self, RunOptions};

/// Replay conversations through real device connections and check that nothing is lost
///
/// Every user of the file is a device with a connection of its own. Conversations run side by side,
/// each with its messages in order; users go offline and come back, with a goodbye or without. At
/// the end every message must have been accepted, shown once, whole and in order, and every receipt
/// must have come back. Messages that their recipient answers later count as read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard bench replay conversations.jsonl.gz
  switchboard bench replay conversations.jsonl.gz --limit 10000 \\
      --speedup 40 --output json
  switchboard bench replay conversations.jsonl \\
      --gateway 127.0.0.1:7410,ws://127.0.0.1:7412

  pip download --no-deps chitchat-dataset==0.9.0
  unzip chitchat_dataset-0.9.0-*.whl
  switchboard bench replay chitchat_dataset/dataset.json
  switchboard bench replay chitchat_dataset/dataset.json \\
      --convert chitchat.jsonl.gz")]
pub(crate) struct Replay {
    /// JSON lines {"conversation", "n", "at", "from", "to", "text"}, or the dataset.json of the
    /// PyPI package chitchat-dataset; gzipped or not. `conversation` is a text, `n` counts its
    /// messages from 0, and `at` is in Unix seconds
    file: PathBuf,
    #[command(flatten)]
    gateways: GatewayArgs,
    /// Divide all pauses by this
    #[arg(long, value_name = "X", default_value_t = 12.0, value_parser = speedup)]
    speedup: f64,
    /// Cut pauses between two messages to this many seconds, before --speedup divides them
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    pause_max: f64,
    /// Share of the time that each user is offline
    #[arg(long, value_name = "F", default_value_t = 0.3, value_parser = fraction)]
    offline_fraction: f64,
    /// Mean length of a stretch offline, in seconds; stretches are random
    #[arg(long, value_name = "S", default_value_t = 4.0, value_parser = seconds)]
    offline_mean: f64,
    /// Unacknowledged deliveries that a device takes; 0: what the gateway proposes
    #[arg(long, value_name = "N", default_value_t = 0)]
    window: u32,
    /// Seeds all that is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Take the first conversations only, up to this many messages
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Fail when not everything is in this many seconds after the last message was sent, or when
    /// nothing at all moves for as long
    #[arg(long, value_name = "S", default_value_t = 90.0, value_parser = seconds)]
    drain_timeout: f64,
    /// Fail when nothing was repeated: for replays during which processes are killed, which prove
    /// nothing if nothing was in flight
    #[arg(long)]
    require_repeats: bool,
    /// Also write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    /// Write FILE as JSON lines to OUT (gzipped if it ends in .gz) instead of replaying it
    #[arg(long, value_name = "OUT")]
    convert: Option<PathBuf>,
}

impl Replay {
    pub(crate) fn run(self, global: Global) -> Result<(), Failure> {
        let corpus = self.load()?;
        if let Some(out) = &self.convert {
            return convert(&corpus, out);
        }
        let options = self.options();
        let progress = Progress::new(corpus.messages() as u64, self.quiet);
        let report = runtime()?.block_on(run::run(corpus, &options, &progress)).map_err(|why| {
            Failure::failed(why)
                .help("start one with `switchboard dev`, or name another by --gateway")
        })?;
        if let Some(path) = &self.json {
            write_json(&report, path)?;
        }
        global.output.print(&report, |report| report.table())?;
        if report.passed {
            return Ok(());
        }
        Err(Failure::failed(format!("the replay failed:\n  {}", report.failures.join("\n  "))))
    }

    fn load(&self) -> Result<Corpus, Failure> {
        let corpus = load::load(&self.file).map_err(|error| Failure::failed(error.to_string()))?;
        let corpus = match self.limit {
            Some(messages_max) => corpus.limit(messages_max),
            None => corpus,
        };
        if corpus.messages() == 0 {
            return Err(Failure::failed(format!("{} holds no message", self.file.display())));
        }
        Ok(corpus)
    }

    fn options(&self) -> RunOptions {
        RunOptions {
            gateways: self.gateways.gateway.clone(),
            token: self.gateways.token.clone(),
            window: self.window,
            plan: PlanOptions {
                pause_max: Duration::from_secs_f64(self.pause_max),
                speedup: self.speedup,
                offline_fraction: self.offline_fraction,
                offline_mean: Duration::from_secs_f64(self.offline_mean),
                seed: self.seed,
            },
            drain_timeout: Duration::from_secs_f64(self.drain_timeout),
            repeats_required: self.require_repeats,
        }
    }
}

fn convert(corpus: &Corpus, out: &Path) -> Result<(), Failure> {
    load::save(corpus, out)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", out.display())))?;
    eprintln!(
        "wrote {} messages of {} conversations between {} users to {}",
        corpus.messages(),
        corpus.conversations.len(),
        corpus.users.len(),
        out.display()
    );
    Ok(())
}

fn speedup(text: &str) -> Result<f64, String> {
    within(text, 0.01, 1_000_000.0)
}

fn fraction(text: &str) -> Result<f64, String> {
    within(text, 0.0, 0.9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_bounds_are_refused() {
        for bad in ["x", "nan", "inf", "-1", "0.95", "1e9"] {
            assert!(fraction(bad).is_err(), "{bad}");
        }
        assert_eq!(fraction("0.3"), Ok(0.3));
        assert!(speedup("0").is_err());
        assert!(seconds("86401").is_err());
    }
}
