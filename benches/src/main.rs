//! `report` measures the rows of the design's part C; see the library for how.

#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use switchboard_benches::{child, report, run::Run};

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
    /// Where files are written; must be on the disk that is to be measured.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
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
        Command::Report(Report { only, json, quick, dir }) => {
            report::report(&Run::new(dir, quick)?, &only, json.as_deref())?;
            Ok(())
        }
        Command::Probe { name, arguments } => child::main(&name, &arguments),
    }
}
