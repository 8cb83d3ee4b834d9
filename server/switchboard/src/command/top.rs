//! `top`: a cluster while it runs, as its nodes tell it.
//!
//! ```text
//!  store ──ask──▶ Look ──Sample::of──▶ Sample ──keeping──▶ the last figures of who is silent
//!                                        │ rates(before, after)
//!                                        ▼
//!                          view (a terminal) or print (one sample)
//! ```
//!
//! It only reads. Whatever is shown was told by the store; nothing is estimated, and what did not
//! answer is named.

mod ask;
#[cfg(test)]
mod fixtures;
mod live;
mod print;
mod rates;
mod rows;
mod sample;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;

use super::operator::StoreArgs;
use crate::cli::Global;
use crate::output::{Failure, Output};

/// Shortest and longest time between two looks (seconds): each one asks every node.
const INTERVAL_SECONDS: std::ops::RangeInclusive<f64> = 0.1..=3_600.0;

/// Watch a cluster: nodes, shards, gateways, moves, and how fast entries are applied
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard top
  switchboard top --store 10.0.0.2:7400 --interval 5
  switchboard top --once
  switchboard top --once --output json

Keys: n, s, g, m or Tab choose a part, arrows and PgUp, PgDn scroll, space pauses, q or Esc ends it.
A node that does not answer keeps its last figures, dimmed. Where standard output is no terminal,
one sample is printed. A single sample has no rates: those need two.")]
pub(crate) struct Top {
    /// Seconds between two looks, from 0.1 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    interval: f64,
    /// Print one sample and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    store: StoreArgs,
}

impl Top {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        let why_once = match (self.once, global.output) {
            (true, _) => None,
            (false, Output::Json) => Some("JSON is asked for"),
            (false, Output::Table) if !std::io::stdout().is_terminal() => {
                Some("standard output is no terminal")
            }
            (false, Output::Table) => {
                return live::run(&self.store, Duration::from_secs_f64(self.interval)).await;
            }
        };
        if let Some(why) = why_once {
            eprintln!("{why}: one sample is printed, as with --once");
        }
        print::once(&self.store, global.output).await
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match INTERVAL_SECONDS.contains(&seconds) {
        true => Ok(seconds),
        false => {
            Err(format!("must be from {} to {}", INTERVAL_SECONDS.start(), INTERVAL_SECONDS.end()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_bounds() {
        assert_eq!(seconds("0.1"), Ok(0.1));
        assert_eq!(seconds("3600"), Ok(3_600.0));
        for wrong in ["", "x", "0", "0.09", "-1", "3601", "inf", "NaN"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
