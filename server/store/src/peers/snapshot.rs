//! A replica's state on its way: chunks of a file over a connection of its own, at a bounded rate.
//!
//! The file is read and written on threads that may block; a few chunks at a time are in memory. The
//! state is installed when all of it is there, and the engine checks it before. What came of a snapshot that was cut
//! off is kept, one of each group, and the sender asks for how much that is before it sends it again.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
};

use bytes::Bytes;
use parking_lot::Mutex;
use switchboard_api::{limits::GRPC_MESSAGE_BYTES_MAX, v1};
use switchboard_engine::GroupId;
use switchboard_raft::{Node, PartialSnapshot, RaftVote, SnapshotFile, decode_vote, encode_vote};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::link::Target;
use crate::{errors, limits};

/// Which snapshot it is: the life of the node that sends it, and its number there.
pub(super) type Id = (u64, u64);

/// The beginnings of snapshots that were cut off, one of each group. A lock, because each is received by a task of
/// its own; held to take or to put one.
#[derive(Default)]
pub(super) struct Partials(Mutex<BTreeMap<GroupId, (Id, PartialSnapshot)>>);

impl Partials {
    /// How much of a snapshot is here.
    pub(super) fn offset(&self, group: GroupId, id: Id) -> u64 {
        let partials = self.0.lock();
        let partial = partials.get(&group).filter(|(known, _)| *known == id);
        partial.map_or(0, |(_, partial)| partial.bytes())
    }

    /// What is here of a snapshot, if that is where its sender goes on. Of another one nothing is kept.
    fn take(&self, group: GroupId, id: Id, offset: u64) -> Option<PartialSnapshot> {
        let (known, partial) = self.0.lock().remove(&group)?;
        (known == id && partial.bytes() == offset).then_some(partial)
    }

    fn put(&self, group: GroupId, id: Id, partial: PartialSnapshot) {
        self.0.lock().insert(group, (id, partial));
    }
}

/// Sends a snapshot and returns the receiver's vote once it is installed there.
pub(super) async fn send(
    target: Target,
    group: GroupId,
    vote: RaftVote,
    sender_life: u64,
    snapshot: SnapshotFile,
    count: impl Fn(u64) + Send + 'static,
) -> Result<RaftVote, Status> {
    let channel = target
        .endpoint()
        .map_err(|error| Status::internal(error.to_string()))?
        .connect()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let mut client = v1::peer_service_client::PeerServiceClient::new(channel)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let (messages, receiver) = mpsc::channel(limits::SNAPSHOT_CHUNKS_AHEAD_MAX);
    let (hello, number) = (Some(target.hello), snapshot.number());
    let asked = v1::SnapshotOffsetRequest { hello: hello.clone(), group, sender_life, number };
    // A node of before this question has nothing of it either.
    let offset = timeout(limits::PEER_CONNECT_WAIT_MAX, client.snapshot_offset(asked)).await;
    let offset = offset.ok().and_then(Result::ok).map_or(0, |answer| answer.into_inner().offset);
    let vote = encode_vote(&vote);
    let header = v1::InstallSnapshotRequest {
        hello,
        group,
        vote,
        sender_life,
        number,
        offset,
        ..Default::default()
    };
    let feeding = tokio::spawn(feed(header, snapshot, messages, count));
    let answer = client.install_snapshot(ReceiverStream::new(receiver)).await;
    // Reading ends with the receiver, whatever came of it.
    feeding.abort();
    let answer = answer?.into_inner();
    decode_vote(&answer.vote).map_err(|error| Status::internal(error.to_string()))
}

/// Reads the file chunk by chunk, no faster than the bound. It ends without the last message when the
/// file cannot be read, and the receiver drops what it has.
async fn feed(
    header: v1::InstallSnapshotRequest,
    snapshot: SnapshotFile,
    messages: mpsc::Sender<v1::InstallSnapshotRequest>,
    count: impl Fn(u64) + Send,
) {
    let offset = header.offset;
    if messages.send(header).await.is_err() {
        return;
    }
    let (chunks, mut ready) = mpsc::channel::<io::Result<Bytes>>(1);
    tokio::task::spawn_blocking(move || read(&snapshot, offset, &chunks));
    let (started, mut sent) = (Instant::now(), 0_u64);
    while let Some(chunk) = ready.recv().await {
        let Ok(chunk) =
            chunk.inspect_err(|error| tracing::error!(%error, "a snapshot is unreadable"))
        else {
            return;
        };
        sent += chunk.len() as u64;
        count(offset + sent);
        let last = chunk.is_empty();
        let message = v1::InstallSnapshotRequest { chunk, last, ..Default::default() };
        if messages.send(message).await.is_err() {
            return;
        }
        let due_ms = sent.saturating_mul(1_000) / limits::SNAPSHOT_BYTES_PER_S;
        tokio::time::sleep_until(started + std::time::Duration::from_millis(due_ms)).await;
    }
}

/// Ends with an empty chunk, or with an error.
fn read(snapshot: &SnapshotFile, offset: u64, chunks: &mpsc::Sender<io::Result<Bytes>>) {
    let mut reader = match snapshot.reader_from(offset) {
        Ok(reader) => reader,
        Err(error) => {
            // The sender may have given up.
            let _ = chunks.blocking_send(Err(error));
            return;
        }
    };
    loop {
        let mut chunk = Vec::with_capacity(limits::SNAPSHOT_CHUNK_BYTES);
        let read = (&mut reader).take(limits::SNAPSHOT_CHUNK_BYTES as u64).read_to_end(&mut chunk);
        let is_last = !matches!(read, Ok(1..));
        if chunks.blocking_send(read.map(|_| chunk.into())).is_err() || is_last {
            return;
        }
    }
}

/// Receives a snapshot whose header was checked, and installs it.
pub(super) async fn receive(
    node: &Node,
    partials: &Partials,
    header: v1::InstallSnapshotRequest,
    mut messages: Streaming<v1::InstallSnapshotRequest>,
) -> Result<v1::InstallSnapshotResponse, Status> {
    let v1::InstallSnapshotRequest { group: group_id, sender_life, number, offset, .. } = header;
    let (group, id) = (node.group(group_id), (sender_life, number));
    let group = group.ok_or_else(errors::not_initialized)?;
    let vote = decode_vote(&header.vote).map_err(|error| errors::peer_nonsense(&error))?;
    let begun = match partials.take(group_id, id, offset) {
        Some(partial) => Ok(partial),
        None if offset == 0 => node.begin_snapshot(),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    let begun = begun.map_err(|error| errors::peer_nonsense(&error))?;
    let (chunks, ready) = mpsc::channel::<Bytes>(limits::SNAPSHOT_CHUNKS_AHEAD_MAX);
    let filling = tokio::task::spawn_blocking(move || fill(begun, ready));
    let receiving = async {
        while let Some(message) = messages.message().await? {
            let v1::InstallSnapshotRequest { chunk, last, .. } = message;
            // An empty chunk that is not the last one says nothing.
            let says_something = last || !chunk.is_empty();
            if says_something && chunks.send(chunk).await.is_err() {
                break;
            }
        }
        drop(chunks);
        Ok::<(), Status>(())
    };
    let (filled, received) = tokio::join!(filling, receiving);
    let filled = filled.map_err(|error| errors::peer_nonsense(&error))?;
    let file = match filled.map_err(|error| errors::peer_nonsense(&error))? {
        Filled::Whole(file) => file,
        Filled::CutOff(partial) => {
            partials.put(group_id, id, partial);
            received?;
            return Err(errors::peer_nonsense(&io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
    };
    let vote = group.receive_snapshot(vote, file).await;
    let vote = vote.map_err(|error| errors::peer_nonsense(&error))?;
    Ok(v1::InstallSnapshotResponse { vote: encode_vote(&vote) })
}

/// What became of a snapshot when its stream ended.
enum Filled {
    Whole(SnapshotFile),
    CutOff(PartialSnapshot),
}

/// Writes chunks until the empty one, which is the last.
fn fill(mut partial: PartialSnapshot, mut chunks: mpsc::Receiver<Bytes>) -> io::Result<Filled> {
    while let Some(chunk) = chunks.blocking_recv() {
        if chunk.is_empty() {
            return Ok(Filled::Whole(partial.finish()));
        }
        partial.write(&chunk)?;
    }
    Ok(Filled::CutOff(partial))
}
