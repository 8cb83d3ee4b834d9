//! `backup restore FILE --data DIR`: the data directory of a new cluster's first node, offline.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use switchboard_store::RestoreOptions;

use super::{Group, groups_table, open, progress, words};
use crate::cli::Global;
use crate::output::{Failure, Output, print_line};

/// Make the data directory of a new cluster's first node from a backup
///
/// The backup is verified first. The directory must be missing or empty. Every position that the new
/// cluster hands out is above all that the old one did, because its generation is higher; gateways and
/// chat processes register again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard backup restore /backup/monday.sbb --data ./store-data
  switchboard store --data ./store-data --node-id 1 --single

The same backup a second time, after the first restored cluster has served:
  switchboard backup restore /backup/monday.sbb --data ./store-data \\
      --generation 2

A cluster of several nodes is restored on one of them.")]
pub(super) struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The data directory to make
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The node that will be started on it
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    node_id: u64,
    /// The generation of the new cluster's positions, above every one that has served
    /// [default: one above that of the backup]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=127))]
    generation: Option<u8>,
}

#[derive(Debug, Serialize)]
struct Report {
    data: String,
    node_id: u64,
    cluster_id: String,
    restored_from_cluster_id: String,
    generation: u8,
    messages: u64,
    groups: Vec<Group>,
}

impl Restore {
    pub(super) fn run(self, global: Global) -> Result<(), Failure> {
        let bar = progress(Some(0));
        let options = RestoreOptions {
            data_dir: self.data.clone(),
            node_id: self.node_id,
            generation: self.generation,
        };
        let mut opened = 0;
        let file = || {
            opened += 1;
            bar.set_message(if opened == 1 { "verifying" } else { "restoring" });
            open(&self.file, &bar)
        };
        let restored = switchboard_store::restore(file, &options, |_| {});
        bar.finish_and_clear();
        let restored = restored.map_err(|error| {
            let file = self.file.display();
            Failure::failed(format!("cannot restore {file}: {}", words(&error)))
        })?;
        let id = |id: &[u8; 16]| crate::command::name::id_text(id);
        let groups: Vec<Group> = restored.parts.iter().map(Group::of).collect();
        let report = Report {
            data: self.data.display().to_string(),
            node_id: self.node_id,
            cluster_id: id(&restored.cluster_id),
            restored_from_cluster_id: id(&restored.manifest.cluster_id),
            generation: restored.generation,
            messages: groups.iter().map(|group| group.messages).sum(),
            groups,
        };
        global.output.print(&report, |report| groups_table(&report.groups))?;
        if global.output == Output::Table {
            print_line(&format!(
                "restored with generation {}; start it with `switchboard store --data {} --node-id {} --single`",
                report.generation, report.data, report.node_id
            ))?;
        }
        Ok(())
    }
}
