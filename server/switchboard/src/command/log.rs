//! `log inspect DIR`: what is in a log, offline. `log scrub DIR` is in `log/scrub.rs`.

mod scrub;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use switchboard_engine::LogId;
use switchboard_engine::fs::RealFiles;
use switchboard_engine::log::inspect::{self, FrameReport, LogReport};

use crate::cli::Global;
use crate::output::{Failure, Output, print_line, table};

/// Look at a store's data while no process has it open
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard log inspect ./store-data
  switchboard log inspect ./store-data --frames --output json
  switchboard log scrub ./store-data")]
pub(crate) struct Log {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Inspect(Inspect),
    Scrub(scrub::Scrub),
}

/// Show segments and groups, what is damaged and where
///
/// Changes nothing. Exit code 1 if the log would not open.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard log inspect ./store-data
  switchboard log inspect ./store-data --frames | less")]
struct Inspect {
    /// A store's data directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Show every frame and record too, one JSON object a line
    #[arg(long)]
    frames: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    disk_id: Option<String>,
    segments: Vec<Segment>,
    groups: Vec<Group>,
    refused: Option<String>,
}

#[derive(Debug, Serialize)]
struct Segment {
    sequence: u64,
    file: String,
    bytes: u64,
    used_bytes: u64,
    has_header: bool,
    frames: u64,
    records: u64,
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
struct Problem {
    offset: u64,
    what: String,
    was_durable: bool,
}

#[derive(Debug, Serialize)]
struct Group {
    group: u32,
    life: u32,
    purged: Option<String>,
    checkpoint: Option<String>,
    committed: Option<String>,
    last: Option<String>,
}

#[derive(Debug, Serialize)]
struct Frame {
    segment: u64,
    offset: u64,
    bytes: u64,
    is_header: bool,
    records: Vec<Record>,
}

#[derive(Debug, Serialize)]
struct Record {
    offset: u64,
    kind: &'static str,
    group: u32,
    life: u32,
    log_id: Option<String>,
    payload_bytes: u32,
}

impl Log {
    pub(crate) fn run(self, global: Global) -> Result<(), Failure> {
        match self.command {
            Command::Inspect(inspect) => inspect.run(global.output),
            Command::Scrub(scrub) => scrub.run(global.output),
        }
    }
}

impl Inspect {
    fn run(self, output: Output) -> Result<(), Failure> {
        let dir = self.dir;
        let failed = |error: &dyn std::error::Error| Failure::failed(error.to_string());
        if self.frames {
            let mut written = Ok(());
            let mut visit = |frame: FrameReport| {
                if written.is_ok() {
                    written = print_frame(frame);
                }
            };
            inspect::frames(&RealFiles, &dir, None, &mut visit).map_err(|e| failed(&e))?;
            return written;
        }
        let report = inspect::inspect(&RealFiles, &dir).map_err(|e| failed(&e))?;
        if report.segments.is_empty() {
            return Err(Failure::failed(format!("{} holds no log", dir.display())));
        }
        let report = Report::new(report);
        output.print(&report, segments_table)?;
        if output == Output::Table {
            print_line(&groups_table(&report).to_string())?;
            for segment in &report.segments {
                for problem in &segment.problems {
                    let durable = if problem.was_durable { "was durable" } else { "never synced" };
                    eprintln!("{}+{}: {} ({durable})", segment.file, problem.offset, problem.what);
                }
            }
        }
        match &report.refused {
            Some(why) => Err(Failure::failed(format!("the log does not open: {why}"))),
            None => Ok(()),
        }
    }
}

fn id(id: LogId) -> String {
    format!("{}/{}", id.term, id.index)
}

impl Report {
    fn new(report: LogReport) -> Report {
        let segment = |segment: inspect::SegmentReport| Segment {
            sequence: segment.sequence,
            file: segment.file,
            bytes: segment.bytes,
            used_bytes: segment.used_bytes,
            has_header: segment.has_header,
            frames: segment.frames,
            records: segment.records,
            problems: segment
                .problems
                .into_iter()
                .map(|problem| Problem {
                    offset: problem.offset,
                    what: problem.what,
                    was_durable: problem.was_durable,
                })
                .collect(),
        };
        let groups = report.groups.into_iter().map(|(group, state)| Group {
            group,
            life: state.life,
            purged: state.purged.map(id),
            checkpoint: state.checkpoint.map(id),
            committed: state.committed.map(id),
            last: state.last.map(id),
        });
        Report {
            disk_id: report.disk_id.map(|id| crate::command::name::id_text(&id)),
            groups: groups.collect(),
            segments: report.segments.into_iter().map(segment).collect(),
            refused: report.refused,
        }
    }
}

fn segments_table(report: &Report) -> comfy_table::Table {
    let mut table = table(["segment", "bytes", "used", "frames", "records", "problems"]);
    for segment in &report.segments {
        table.add_row([
            segment.file.clone(),
            segment.bytes.to_string(),
            segment.used_bytes.to_string(),
            segment.frames.to_string(),
            segment.records.to_string(),
            segment.problems.len().to_string(),
        ]);
    }
    table
}

fn groups_table(report: &Report) -> comfy_table::Table {
    let mut table =
        table(["group", "life", "purged", "checkpoint", "committed", "last (term/index)"]);
    let cell = |id: &Option<String>| id.clone().unwrap_or_else(|| "-".to_owned());
    for group in &report.groups {
        table.add_row([
            group.group.to_string(),
            group.life.to_string(),
            cell(&group.purged),
            cell(&group.checkpoint),
            cell(&group.committed),
            cell(&group.last),
        ]);
    }
    table
}

fn print_frame(frame: FrameReport) -> Result<(), Failure> {
    let records = frame.records.into_iter().map(|record| Record {
        offset: record.offset,
        kind: record.kind,
        group: record.group,
        life: record.life,
        log_id: record.log_id.map(id),
        payload_bytes: record.payload_bytes,
    });
    let frame = Frame {
        segment: frame.place.segment,
        offset: frame.place.offset,
        bytes: frame.bytes,
        is_header: frame.is_header,
        records: records.collect(),
    };
    let line = serde_json::to_string(&frame)
        .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
    print_line(&line)
}
