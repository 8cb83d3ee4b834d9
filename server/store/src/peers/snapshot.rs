//! A replica's state on its way: chunks of a file over a connection of its own, at a bounded rate.
//!
//! The file is read and written on threads that may block; a few chunks at a time are in memory. The
//! state is installed when all of it is there, and the engine checks it before.

use std::io::{self, Read as _};

use bytes::Bytes;
use switchboard_api::{limits::GRPC_MESSAGE_BYTES_MAX, v1};
use switchboard_engine::GroupId;
use switchboard_raft::{Node, RaftVote, SnapshotFile, decode_vote, encode_vote};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::link::Target;
use crate::{errors, limits};

/// Sends a snapshot and returns the receiver's vote once it is installed there.
pub(super) async fn send(
    target: Target,
    group: GroupId,
    vote: RaftVote,
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
    let header = v1::InstallSnapshotRequest {
        hello: Some(target.hello),
        group,
        vote: encode_vote(&vote),
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
    if messages.send(header).await.is_err() {
        return;
    }
    let (chunks, mut ready) = mpsc::channel::<io::Result<Bytes>>(1);
    tokio::task::spawn_blocking(move || read(&snapshot, &chunks));
    let (started, mut sent) = (Instant::now(), 0_u64);
    while let Some(chunk) = ready.recv().await {
        let Ok(chunk) =
            chunk.inspect_err(|error| tracing::error!(%error, "a snapshot is unreadable"))
        else {
            return;
        };
        sent += chunk.len() as u64;
        count(sent);
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
fn read(snapshot: &SnapshotFile, chunks: &mpsc::Sender<io::Result<Bytes>>) {
    let mut reader = match snapshot.reader() {
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
    header: v1::InstallSnapshotRequest,
    mut messages: Streaming<v1::InstallSnapshotRequest>,
) -> Result<v1::InstallSnapshotResponse, Status> {
    let group = node.group(header.group).ok_or_else(errors::not_initialized)?;
    let vote = decode_vote(&header.vote).map_err(|error| errors::peer_nonsense(&error))?;
    let (chunks, mut ready) = mpsc::channel::<Bytes>(limits::SNAPSHOT_CHUNKS_AHEAD_MAX);
    let filling = node.snapshot_file(move |file| {
        while let Some(chunk) = ready.blocking_recv() {
            if chunk.is_empty() {
                return Ok(());
            }
            file.write_all(&chunk)?;
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    });
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
    let (file, received) = tokio::join!(filling, receiving);
    received?;
    let file = file.map_err(|error| errors::peer_nonsense(&error))?;
    let vote = group.receive_snapshot(vote, file).await;
    let vote = vote.map_err(|error| errors::peer_nonsense(&error))?;
    Ok(v1::InstallSnapshotResponse { vote: encode_vote(&vote) })
}
