//! Gathers the groups of a cluster into one backup, from the nodes that have them.
//!
//! Nodes may go and replicas may move meanwhile: as long as no group is in the middle, its bytes half
//! written, another node is asked for what is missing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter};

use indicatif::ProgressBar;
use switchboard_api::v1::{
    self, backup_response::Content, cluster_service_client::ClusterServiceClient,
};
use switchboard_engine::LogId;
use switchboard_engine::backup::{BackupWriter, Manifest, Part};
use tonic::Streaming;
use tonic::transport::Channel;

use super::sources::{Source, Sources};
use crate::command::operator::{StoreArgs, channel_to};
use crate::output::Failure;

/// How often other nodes are asked after a failure: replicas that move are found again at the first.
const FAILURES_MAX: usize = 8;

/// The node that the operator named.
pub(super) struct Asked {
    pub(super) store: StoreArgs,
}

impl Asked {
    /// Who has what, as this node knows it.
    pub(super) async fn sources(&self) -> Result<Sources, Failure> {
        let mut client = ClusterServiceClient::new(self.store.channel().await?);
        let asked = async {
            let named = client.status(v1::StatusRequest {}).await?.into_inner().node_id;
            let nodes = client.list_nodes(v1::ListNodesRequest {}).await?.into_inner().nodes;
            let shards = client.list_shards(v1::ListShardsRequest {}).await?.into_inner().shards;
            Ok::<_, tonic::Status>((named, nodes, shards))
        };
        let asked = asked.await;
        let (named, nodes, shards) = asked.map_err(|status| not_made(status.message()))?;
        Ok(Sources::new(named, self.store.first(), nodes, shards))
    }
}

/// Takes every group from a node that has it, and ends the file.
pub(super) async fn collect(
    asked: &Asked,
    mut sources: Sources,
    out: &mut BufWriter<File>,
    bar: &ProgressBar,
) -> Result<Manifest, Failure> {
    let mut growing = Growing { out: Some(out), begun: None, missing: sources.groups(), bar };
    let (mut failed, mut why) = (BTreeSet::new(), String::new());
    while !growing.missing.is_empty() {
        let Some(source) =
            sources.next(&growing.missing, &failed).filter(|_| failed.len() < FAILURES_MAX)
        else {
            return Err(not_made(&format!("nobody gives {}: {why}", names(&growing.missing))));
        };
        match growing.take_from(&source).await {
            Ok(()) => {}
            Err(Fault::Ends(failure)) => return Err(failure),
            Err(Fault::AskOthers(fault)) => {
                why = format!("node {}: {fault}", source.node_id);
                failed.insert(source.node_id);
                sources = asked.sources().await?;
            }
        }
    }
    growing.finish()
}

/// Why a node did not give all that it was asked for.
enum Fault {
    /// No group is half written.
    AskOthers(String),
    Ends(Failure),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Ends(not_made(&format!("it cannot be written: {error}")))
    }
}

/// A backup that is not whole yet.
struct Growing<'a> {
    /// Until the first node has told of which cluster it is.
    out: Option<&'a mut BufWriter<File>>,
    begun: Option<(Manifest, BackupWriter<'a>)>,
    missing: BTreeSet<u32>,
    bar: &'a ProgressBar,
}

impl Growing<'_> {
    async fn take_from(&mut self, source: &Source) -> Result<(), Fault> {
        let mut stream = open(source).await.map_err(Fault::AskOthers)?;
        let first = stream.message().await.map_err(|status| others(&status))?;
        let Some(Content::Manifest(sent)) = first.and_then(|first| first.content) else {
            return Err(nonsense());
        };
        self.begin(&sent)?;
        let mut part = None;
        loop {
            let message = match (stream.message().await, part) {
                (Ok(message), _) => message,
                (Err(status), None) => return Err(others(&status)),
                (Err(status), Some(_)) => return Err(Fault::Ends(not_made(status.message()))),
            };
            match (message.map(|message| message.content), part) {
                (None, None) => return Ok(()),
                (Some(Some(content)), _) => part = self.write(content, part)?,
                _ => return Err(nonsense()),
            }
        }
    }

    /// All nodes are of one cluster, whose shards are those that are asked for.
    fn begin(&mut self, sent: &v1::backup_response::Manifest) -> Result<(), Fault> {
        let manifest = Manifest {
            cluster_id: <[u8; 16]>::try_from(&sent.cluster_id[..]).map_err(|_| nonsense())?,
            shards: sent.shards,
            created_at_ms: sent.created_at_ms,
            made_by: format!("switchboard {}", sent.version),
        };
        match (&self.begun, self.out.take()) {
            (Some((first, _)), _) if first.cluster_id == manifest.cluster_id => Ok(()),
            (None, Some(out)) if self.missing.len() as u64 == u64::from(manifest.shards) + 1 => {
                let backup = BackupWriter::new(out, &manifest)?;
                self.begun = Some((manifest, backup));
                Ok(())
            }
            _ => Err(nonsense()),
        }
    }

    /// Writes a message; the part that is open after it, with its bytes so far.
    fn write(
        &mut self,
        content: Content,
        part: Option<(u32, u64)>,
    ) -> Result<Option<(u32, u64)>, Fault> {
        let (manifest, backup) = self.begun.as_mut().ok_or_else(nonsense)?;
        match (content, part) {
            (Content::Part(sent), None) if self.missing.contains(&sent.group) => {
                let generation = u8::try_from(sent.generation).map_err(|_| nonsense())?;
                let at = LogId::new(sent.term, sent.index);
                let begins = Part { group: sent.group, at, generation };
                backup.begin(&begins)?;
                Ok(Some((sent.group, 0)))
            }
            (Content::Chunk(chunk), Some((group, bytes))) => {
                self.bar.inc(chunk.len() as u64);
                backup.bytes(&chunk)?;
                Ok(Some((group, bytes + chunk.len() as u64)))
            }
            (Content::End(end), Some((group, bytes))) if end.bytes == bytes => {
                backup.end()?;
                self.missing.remove(&group);
                let all = manifest.shards as usize + 1;
                let done = all.saturating_sub(self.missing.len());
                self.bar.set_message(format!("backing up: {done} of {all}"));
                Ok(None)
            }
            _ => Err(nonsense()),
        }
    }

    fn finish(self) -> Result<Manifest, Failure> {
        let (manifest, backup) = self.begun.ok_or_else(|| not_made("there are no shards"))?;
        let finished = backup.finish();
        finished.map_err(|error| not_made(&format!("it cannot be written: {error}")))?;
        Ok(manifest)
    }
}

async fn open(source: &Source) -> Result<Streaming<v1::BackupResponse>, String> {
    let channel: Channel =
        channel_to(&source.address).await.map_err(|failure| failure.message().to_owned())?;
    let request = v1::BackupRequest { groups: source.groups.clone() };
    let stream = ClusterServiceClient::new(channel).backup(request).await;
    stream.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
}

/// Groups as people call them.
fn names(groups: &BTreeSet<u32>) -> String {
    let name = |group: &u32| match group.checked_sub(1) {
        None => "the meta group".to_owned(),
        Some(shard) => format!("shard {shard}"),
    };
    groups.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn others(status: &tonic::Status) -> Fault {
    Fault::AskOthers(status.message().to_owned())
}

fn nonsense() -> Fault {
    Fault::Ends(not_made("the store sent something that is no backup"))
}

fn not_made(why: &str) -> Failure {
    Failure::failed(format!("no backup was made: {why}"))
}
