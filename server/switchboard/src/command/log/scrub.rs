//! `log scrub DIR`: reads everything in a data directory and says what is not as it was written.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use switchboard_engine::fs::RealFiles;
use switchboard_engine::scrub::{self, ScrubReport};

use crate::output::{Failure, Output, table};

/// Verify every byte of a data directory: log, checkpoints, message ids, old messages
///
/// Changes nothing. Exit code 1 if anything is damaged; each fault is shown with its file and offset.
/// While a store is running, or before the first start after a crash, files that are being written
/// can show as damaged.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard log scrub ./store-data
  switchboard log scrub ./store-data --output json")]
pub(super) struct Scrub {
    /// A store's data directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Threads that read; default: one for each processor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
}

#[derive(Debug, Serialize)]
struct Report {
    files: usize,
    bytes: u64,
    faults: Vec<Fault>,
}

#[derive(Debug, Serialize)]
struct Fault {
    file: String,
    offset: u64,
    what: String,
}

impl Scrub {
    pub(super) fn run(self, output: Output) -> Result<(), Failure> {
        let failed = |error: &dyn std::error::Error| Failure::failed(error.to_string());
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.map_or_else(processors, usize::from);
        let bytes = scrub::bytes(&RealFiles, &self.dir).map_err(|e| failed(&e))?;
        if bytes == 0 {
            return Err(Failure::failed(format!("{} holds no data", self.dir.display())));
        }
        // Draws on standard error, and only on a terminal.
        let bar = ProgressBar::new(bytes).with_style(style());
        let found = scrub::scrub(&RealFiles, &self.dir, threads, &|bytes| bar.inc(bytes));
        bar.finish_and_clear();
        let report = Report::new(found.map_err(|e| failed(&e))?);
        output.print(&report, |report| {
            let mut table = table(["file", "offset", "what is wrong"]);
            for fault in &report.faults {
                table.add_row([&fault.file, &fault.offset.to_string(), &fault.what]);
            }
            table
        })?;
        match report.faults.len() {
            0 => {
                if output == Output::Table {
                    eprintln!("{} files, {} bytes: whole", report.files, report.bytes);
                }
                Ok(())
            }
            faults => Err(Failure::failed(format!("{faults} faults in {}", self.dir.display()))),
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Report {
    fn new(report: ScrubReport) -> Report {
        let faults = report.faults.into_iter().map(|fault| Fault {
            file: fault.file.display().to_string(),
            offset: fault.offset,
            what: fault.what,
        });
        Report { files: report.files, bytes: report.bytes, faults: faults.collect() }
    }
}
