//! `Backup` and `Verify`: this node's replicas read from beginning to end, while they go on serving.
//!
//! ```text
//!  for each group:  read point from the leader (its lease checked) ─▶ wait until it is applied here
//!                   ─▶ Shard::export on a thread of its own ─▶ chunks ─▶ stream
//! ```
//! Any replica will do, leader or follower: the read point makes it as fresh as the leader was when the
//! backup came to the group. A group is not checkpointed while it is read, so whoever takes the bytes
//! too slowly is cut off, and one node serves one backup at a time.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::BytesMut;
use futures::Stream;
use switchboard_api::v1::{
    self, backup_response::Content, forwarded_answer::Answer, forwarded_call::Call,
};
use switchboard_engine::{GroupId, META_GROUP, Shard, group_of_shard};
use switchboard_raft::{Consistency, Group};
use tokio::{runtime::Handle, sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::{errors, limits, service::Service};

type Messages<T> = mpsc::Sender<Result<T, Status>>;

impl Service {
    /// Streams the state of groups.
    pub(crate) fn backup(
        self: &Arc<Self>,
        groups: Vec<GroupId>,
    ) -> Result<impl Stream<Item = Result<v1::BackupResponse, Status>> + use<>, Status> {
        let groups = if groups.is_empty() { self.all_groups() } else { groups };
        let groups = self.replicas(groups)?;
        let permit = self.backup_permit()?;
        let (messages, receiver) = mpsc::channel(limits::BACKUP_CHUNKS_AHEAD_MAX);
        let service = self.clone();
        self.shutdown.spawn(async move {
            let token = service.shutdown.token();
            let sent = token.run_until_cancelled(service.send_backup(groups, &messages)).await;
            if let Err(status) = sent.unwrap_or_else(|| Err(errors::stopping())) {
                // Who asked may be gone.
                let _ = messages.try_send(Err(status));
            }
            drop(permit);
        });
        Ok(ReceiverStream::new(receiver))
    }

    async fn send_backup(
        &self,
        groups: Vec<Arc<Group>>,
        messages: &Messages<v1::BackupResponse>,
    ) -> Result<(), Status> {
        let cluster = self.node.meta().shard().meta(|meta| meta.cluster());
        let cluster = cluster.ok_or_else(errors::not_initialized)?;
        let manifest = v1::backup_response::Manifest {
            cluster_id: cluster.cluster_id.to_vec().into(),
            shards: cluster.shards,
            created_at_ms: self.clock.unix_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let first = v1::BackupResponse { content: Some(Content::Manifest(manifest)) };
        messages.send(Ok(first)).await.map_err(|_| errors::stopping())?;
        for group in groups {
            self.catch_up(&group).await?;
            let id = group.id();
            let (shard, sending) = (group.shard().clone(), Sending::new(id, messages.clone()));
            let exported = tokio::task::spawn_blocking(move || sending.export(&shard)).await;
            exported.map_err(|error| errors::internal(error.to_string()))?.map_err(|error| {
                tracing::warn!(group = id, %error, "a group was not backed up");
                errors::not_backed_up(id, &error)
            })?;
        }
        Ok(())
    }

    /// Waits until this replica has everything that was acknowledged by now.
    pub(crate) async fn catch_up(&self, group: &Group) -> Result<(), Status> {
        let deadline = Instant::now() + limits::READ_POINT_WAIT_MAX;
        let index = loop {
            let found = self.read_point(group).await;
            match found {
                Ok(index) => break index,
                Err(status) if status.code() != Code::Unavailable => return Err(status),
                Err(status) if Instant::now() >= deadline => return Err(status),
                Err(_) => tokio::time::sleep(limits::READ_POINT_PAUSE).await,
            }
        };
        let waited = group.wait_applied(index, deadline).await;
        waited.map_err(|error| errors::behind(group.id(), &error))
    }

    async fn read_point(&self, group: &Group) -> Result<u64, Status> {
        let request = v1::ReadPointRequest { group: group.id() };
        let answer = match self.elsewhere(group) {
            None => self.read_point_here(request).await?,
            Some(leader) => {
                let take = |answer| match answer {
                    Answer::ReadPoint(point) => Some(point),
                    _ => None,
                };
                self.hop(leader, Call::ReadPoint(request), take).await?
            }
        };
        Ok(answer.index)
    }

    /// How far this node has applied a group that it leads, its lease checked.
    pub(crate) async fn read_point_here(
        &self,
        request: v1::ReadPointRequest,
    ) -> Result<v1::ReadPointResponse, Status> {
        let group = self.replica(request.group)?;
        let fresh = group.barrier(Consistency::Lease).await.map_err(|e| errors::barrier(&e))?;
        Ok(v1::ReadPointResponse { index: fresh.applied.map_or(0, |at| at.index) })
    }

    /// Reads every message of groups and says what cannot be read.
    pub(crate) fn verify(
        self: &Arc<Self>,
        groups: Vec<GroupId>,
    ) -> Result<impl Stream<Item = Result<v1::VerifyResponse, Status>> + use<>, Status> {
        let groups = self.replicas(groups)?;
        let permit = self.backup_permit()?;
        let (messages, receiver) = mpsc::channel(limits::BACKUP_CHUNKS_AHEAD_MAX);
        let token = self.shutdown.token();
        self.shutdown.spawn(async move {
            for group in groups {
                let (id, shard) = (group.id(), group.shard().clone());
                let verified = tokio::task::spawn_blocking(move || verify_replica(id, &shard));
                let Some(Ok(verified)) = token.run_until_cancelled(verified).await else { break };
                if messages.send(Ok(verified)).await.is_err() {
                    break;
                }
            }
            drop(permit);
        });
        Ok(ReceiverStream::new(receiver))
    }

    fn backup_permit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Status> {
        Arc::clone(&self.backups).try_acquire_owned().map_err(|_| errors::backup_under_way())
    }

    /// The groups of the cluster, the meta group last: what a backup of all must not lack.
    fn all_groups(&self) -> Vec<GroupId> {
        let shards = u32::try_from(self.node.shard_table().len()).unwrap_or(0);
        (0..shards).map(group_of_shard).chain([META_GROUP]).collect()
    }

    /// The groups named, or all that this node has, the meta group last.
    fn replicas(&self, groups: Vec<GroupId>) -> Result<Vec<Arc<Group>>, Status> {
        if self.node.shard_table().is_empty() {
            return Err(errors::not_initialized());
        }
        if !groups.is_empty() {
            return groups.into_iter().map(|id| self.replica(id)).collect();
        }
        let mut all = self.node.groups();
        all.sort_by_key(|group| (group.id() == META_GROUP, group.id()));
        Ok(all)
    }

    fn replica(&self, id: GroupId) -> Result<Arc<Group>, Status> {
        self.node.group(id).ok_or_else(|| errors::no_replica(self.node.node_id(), id))
    }
}

fn verify_replica(group: GroupId, shard: &Shard) -> v1::VerifyResponse {
    let index = shard.applied().map_or(0, |at| at.index);
    let mut counted = Counted(0);
    let fault = shard.export(&mut counted).err().map_or_else(String::new, |e| e.to_string());
    v1::VerifyResponse { group, index, bytes: counted.0, fault }
}

/// Counts what is written to it.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An export on its way, chunk by chunk; written on a thread that may block.
struct Sending {
    group: GroupId,
    messages: Messages<v1::BackupResponse>,
    runtime: Handle,
    chunk: BytesMut,
    bytes: u64,
}

impl Sending {
    fn new(group: GroupId, messages: Messages<v1::BackupResponse>) -> Self {
        Self { group, messages, runtime: Handle::current(), chunk: BytesMut::new(), bytes: 0 }
    }

    fn export(mut self, shard: &Shard) -> io::Result<()> {
        shard.export(&mut self).map_err(io::Error::other)?;
        self.send_chunk()?;
        let bytes = self.bytes;
        self.send(Content::End(v1::backup_response::PartEnd { bytes }))
    }

    /// Sends what has been gathered. The first chunk holds the export's header, which says where the
    /// part stands.
    fn send_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = self.chunk.split().freeze();
        if self.bytes == 0 {
            let header = Shard::read_export_header(&mut &chunk[..]).map_err(io::Error::other)?;
            let at = header.at.unwrap_or_default();
            let (group, generation) = (self.group, u32::from(header.generation));
            let part =
                v1::backup_response::Part { group, term: at.term, index: at.index, generation };
            self.send(Content::Part(part))?;
        }
        self.bytes += chunk.len() as u64;
        self.send(Content::Chunk(chunk))
    }

    fn send(&self, content: Content) -> io::Result<()> {
        let message = v1::BackupResponse { content: Some(content) };
        let sent = async {
            tokio::time::timeout(limits::BACKUP_STALL_MAX, self.messages.send(Ok(message))).await
        };
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::other("who asked for it is gone")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "nobody takes the bytes")),
        }
    }
}

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = limits::BACKUP_CHUNK_BYTES.saturating_sub(self.chunk.len());
        let taken = bytes.len().min(room);
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() >= limits::BACKUP_CHUNK_BYTES {
            self.send_chunk()?;
        }
        Ok(taken)
    }

    /// The rest goes with the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
