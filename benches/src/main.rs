//! `report` measures the rows of the design's part C; see the library for how.

#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use switchboard_benches::{child, plot, report, run::Run, soak};

/// The allocator of the Switchboard binary, so that memory is measured as it is there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Switchboard beside its peers.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures the rows of the design, prints a table and, if asked to, writes JSON and plots.
    Report(Report),
    /// Runs mixed traffic with a live set of constant size, and says whether anything grows.
    Soak(Soak),
    /// Draws a storm from the JSON of `switchboard bench storm`.
    PlotStorm(PlotStorm),
    /// Runs one measurement in this process; for the report itself.
    #[command(hide = true)]
    Probe { name: String, arguments: String },
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: switchboard-benches report --only C1,C2 --json report.json")]
struct Report {
    /// Rows to measure, such as C1,C2; all by default.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Writes the entries to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// A twentieth of the work, to see that it runs.
    #[arg(long)]
    quick: bool,
    /// Draws the entries into this directory, a file a row.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Where files are written; must be on the disk that is to be measured.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: switchboard-benches soak --minutes 10 --plot soak.svg")]
struct Soak {
    /// How long; a verdict takes nine minutes at least.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Writes samples and verdict to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draws the samples into this file.
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Twenty seconds and no verdict, to see that it runs.
    #[arg(long)]
    quick: bool,
    /// Where files are written.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: switchboard-benches plot-storm storm.json storm.svg")]
struct PlotStorm {
    /// What `switchboard bench storm --json` wrote.
    json: PathBuf,
    /// Where to draw.
    plot: PathBuf,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Report(Report { only, json, quick, plots, dir }) => {
            let run = Run::new(dir, quick)?;
            report::report(&run, &only, json.as_deref(), plots.as_deref())
        }
        Command::Soak(Soak { minutes, json, plot, quick, dir }) => {
            soak::soak(&Run::new(dir, quick)?, minutes, json.as_deref(), plot.as_deref())
        }
        Command::PlotStorm(PlotStorm { json, plot }) => {
            let read = std::fs::read_to_string(&json);
            let text = read.with_context(|| format!("cannot read {}", json.display()))?;
            let drawn = plot::storm(&serde_json::from_str(&text)?);
            std::fs::write(&plot, drawn).with_context(|| format!("cannot write {}", plot.display()))
        }
        Command::Probe { name, arguments } => child::main(&name, &arguments),
    }
}
