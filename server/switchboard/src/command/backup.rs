//! `backup create|verify|restore`: a cluster in a file, and back.

mod collect;
mod create;
mod restore;
mod sources;
mod verify;

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use switchboard_store::Verified;

use super::runtime;
use crate::cli::Global;
use crate::output::{Failure, table};

/// Bytes of a backup that are read or written at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Back a cluster up into a file, verify the file, restore it into a new cluster
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard backup create /backup/monday.sbb
  switchboard backup verify /backup/monday.sbb
  switchboard backup restore /backup/monday.sbb --data ./store-data")]
pub(crate) struct Backup {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::Create),
    Verify(verify::Verify),
    Restore(restore::Restore),
}

impl Backup {
    pub(crate) fn run(self, global: Global) -> Result<(), Failure> {
        match self.command {
            Command::Create(create) => runtime()?.block_on(create.run(global)),
            Command::Verify(verify) => verify.run(global),
            Command::Restore(restore) => restore.run(global),
        }
    }
}

/// One group in a backup, as it is shown.
#[derive(Debug, Serialize)]
struct Group {
    /// 0 is the meta group, shard `s` is `s + 1`.
    group: u32,
    index: u64,
    generation: u8,
    users: u64,
    messages: u64,
}

impl Group {
    fn of(verified: &Verified) -> Group {
        let Verified { part, stats } = verified;
        Group {
            group: part.group,
            index: part.at.index,
            generation: part.generation,
            users: stats.users,
            messages: stats.messages,
        }
    }
}

fn groups_table(groups: &[Group]) -> comfy_table::Table {
    let mut table = table(["part", "at index", "generation", "users", "messages"]);
    for group in groups {
        let part = match group.group.checked_sub(1) {
            None => "meta".to_owned(),
            Some(shard) => format!("shard {shard}"),
        };
        table.add_row([
            part,
            group.index.to_string(),
            group.generation.to_string(),
            group.users.to_string(),
            group.messages.to_string(),
        ]);
    }
    table
}

/// A bar on standard error, over bytes that are known or not.
fn progress(total: Option<u64>) -> ProgressBar {
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let template = match total {
        Some(_) => "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}",
        None => "{msg} {spinner} {bytes} {bytes_per_sec}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Opens a backup, its bytes counted by the bar.
fn open(file: &Path, bar: &ProgressBar) -> io::Result<Box<dyn Read>> {
    let file = std::fs::File::open(file)?;
    bar.set_length(file.metadata()?.len());
    bar.set_position(0);
    Ok(Box::new(io::BufReader::with_capacity(BUFFER_BYTES, bar.wrap_read(file))))
}

/// An error with its causes, each said once.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
