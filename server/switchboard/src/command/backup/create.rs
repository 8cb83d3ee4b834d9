//! `backup create FILE`: a running cluster into a file.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::collect::{Asked, collect};
use super::{BUFFER_BYTES, progress};
use crate::cli::Global;
use crate::command::operator::StoreArgs;
use crate::output::{Failure, table};

/// Back a running cluster up into a file, while it serves
///
/// Everything acknowledged before the command is in it. The node named by --store reads its own
/// replicas, as fresh as their leaders; name one that leads little. Shards that it has no replica of
/// come from other nodes, each once. The file gets its name when it is whole.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard backup create /backup/monday.sbb
  switchboard backup create /backup/monday.sbb --store 10.0.0.3:7400 \\
      --output json")]
pub(super) struct Create {
    /// The file to make; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    file: String,
    cluster_id: String,
    shards: u32,
    bytes: u64,
}

impl Create {
    pub(super) async fn run(self, global: Global) -> Result<(), Failure> {
        let file = self.file.display().to_string();
        let unwritable =
            |error: io::Error| Failure::failed(format!("cannot write {file}: {error}"));
        if self.file.exists() {
            return Err(Failure::failed(format!("{file} exists already"))
                .help("backups are never overwritten: name another file, or remove it"));
        }
        let asked = Asked { store: self.store };
        let sources = asked.sources().await?;
        let staged = staged(&self.file);
        let out = File::create(&staged).map_err(unwritable)?;
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
        let bar = progress(None).with_message("backing up");
        let collected = collect(&asked, sources, &mut out, &bar).await;
        bar.finish_and_clear();
        let manifest = collected.inspect_err(|_| drop(std::fs::remove_file(&staged)))?;
        let out = out.get_ref();
        out.sync_all().map_err(unwritable)?;
        let bytes = out.metadata().map_err(unwritable)?.len();
        std::fs::rename(&staged, &self.file).map_err(unwritable)?;
        sync_parent(&self.file).map_err(unwritable)?;
        let report = Report {
            file: file.clone(),
            cluster_id: crate::command::name::id_text(&manifest.cluster_id),
            shards: manifest.shards,
            bytes,
        };
        global.output.print(&report, |report| {
            let mut table = table(["backup", "shards", "bytes"]);
            table.add_row([
                report.file.clone(),
                report.shards.to_string(),
                report.bytes.to_string(),
            ]);
            table
        })
    }
}

/// Where the file is written before it gets its name.
fn staged(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    file.with_file_name(name)
}

fn sync_parent(file: &Path) -> io::Result<()> {
    match file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}
