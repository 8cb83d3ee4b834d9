//! `backup verify FILE`: structure, checksums, and the state of every shard, offline.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{Group, groups_table, open, progress, words};
use crate::cli::Global;
use crate::output::Failure;

/// Read a backup whole and check it: structure, checksums, and the state of every shard
///
/// Needs no store. Exit code 1 if anything is damaged or missing; what and at which byte is said.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard backup verify /backup/monday.sbb
  switchboard backup verify /backup/monday.sbb --output json")]
pub(super) struct Verify {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Serialize)]
struct Report {
    cluster_id: String,
    shards: u32,
    created_at_ms: u64,
    made_by: String,
    messages: u64,
    groups: Vec<Group>,
}

impl Verify {
    pub(super) fn run(self, global: Global) -> Result<(), Failure> {
        let file = self.file.display();
        let bar = progress(Some(0)).with_message("verifying");
        let mut input = open(&self.file, &bar)
            .map_err(|error| Failure::failed(format!("cannot open {file}: {error}")))?;
        let verified = switchboard_store::verify(&mut input, |_| {});
        bar.finish_and_clear();
        let (manifest, parts) = verified.map_err(|error| {
            Failure::failed(format!("{file} is no sound backup: {}", words(&error)))
                .help("restore from another backup; this one is refused whole")
        })?;
        let groups: Vec<Group> = parts.iter().map(Group::of).collect();
        let report = Report {
            cluster_id: crate::command::name::id_text(&manifest.cluster_id),
            shards: manifest.shards,
            created_at_ms: manifest.created_at_ms,
            made_by: manifest.made_by,
            messages: groups.iter().map(|group| group.messages).sum(),
            groups,
        };
        global.output.print(&report, |report| groups_table(&report.groups))
    }
}
