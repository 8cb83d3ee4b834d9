//! `backup create FILE`: a running cluster into a file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use switchboard_api::v1::{
    self, backup_response::Content, cluster_service_client::ClusterServiceClient,
};
use switchboard_engine::LogId;
use switchboard_engine::backup::{BackupWriter, Manifest, Part};
use tonic::{Status, Streaming};

use super::{BUFFER_BYTES, progress};
use crate::cli::Global;
use crate::command::operator::StoreArgs;
use crate::output::{Failure, table};

/// Back a running cluster up into a file, while it serves
///
/// Everything acknowledged before the command is in it. The node named by --store reads its own
/// replicas, as fresh as their leaders; name a follower to keep the load off leaders. The file gets
/// its name when it is whole.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard backup create /backup/monday.sbb
  switchboard backup create /backup/monday.sbb --store 10.0.0.3:7400 --output json")]
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
        let channel = self.store.channel().await?;
        let mut client = ClusterServiceClient::new(channel);
        let stream =
            client.backup(v1::BackupRequest::default()).await.map_err(|status| refused(&status))?;
        let staged = staged(&self.file);
        let mut out = File::create(&staged).map_err(unwritable)?;
        let bar = progress(None).with_message("backing up");
        let written = write(stream.into_inner(), &mut out, &bar).await;
        bar.finish_and_clear();
        let manifest = written.inspect_err(|_| drop(std::fs::remove_file(&staged)))?;
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

/// Writes what comes, chunk by chunk.
async fn write(
    mut stream: Streaming<v1::BackupResponse>,
    out: &mut File,
    bar: &ProgressBar,
) -> Result<Manifest, Failure> {
    let unwritable =
        |error: io::Error| Failure::failed(format!("the backup cannot be written: {error}"));
    let nonsense = || Failure::failed("the store sent something that is no backup");
    let first =
        stream.message().await.map_err(|status| refused(&status))?.and_then(|first| first.content);
    let Some(Content::Manifest(sent)) = first else { return Err(nonsense()) };
    let manifest = Manifest {
        cluster_id: <[u8; 16]>::try_from(&sent.cluster_id[..]).map_err(|_| nonsense())?,
        shards: sent.shards,
        created_at_ms: sent.created_at_ms,
        made_by: format!("switchboard {}", sent.version),
    };
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
    let mut backup = BackupWriter::new(&mut out, &manifest).map_err(unwritable)?;
    let (mut parts, mut bytes) = (0, 0);
    while let Some(message) = stream.message().await.map_err(|status| refused(&status))? {
        let done = match message.content {
            Some(Content::Part(part)) => {
                bytes = 0;
                let generation = u8::try_from(part.generation).map_err(|_| nonsense())?;
                let at = LogId::new(part.term, part.index);
                backup.begin(&Part { group: part.group, at, generation })
            }
            Some(Content::Chunk(chunk)) => {
                bytes += chunk.len() as u64;
                bar.inc(chunk.len() as u64);
                backup.bytes(&chunk)
            }
            Some(Content::End(end)) if end.bytes == bytes => {
                parts += 1;
                bar.set_message(format!("backing up: {parts} of {}", manifest.shards + 1));
                backup.end()
            }
            _ => return Err(nonsense()),
        };
        done.map_err(unwritable)?;
    }
    if parts != manifest.shards + 1 {
        return Err(Failure::failed("the store ended before every shard was through"));
    }
    backup.finish().map_err(unwritable)?;
    out.flush().map_err(unwritable)?;
    Ok(manifest)
}

fn refused(status: &Status) -> Failure {
    Failure::failed(format!("no backup was made: {}", status.message()))
}
