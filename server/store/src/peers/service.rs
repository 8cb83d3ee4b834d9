//! `PeerService`: what other nodes ask of this one.

use std::{pin::Pin, sync::Arc};

use futures::{FutureExt as _, Stream, StreamExt as _, stream::FuturesUnordered};
use switchboard_api::v1::{
    self, PeerAnswer, PeerAnswers, PeerCall, PeerCalls, peer_answer::Answer, peer_call::Call,
    peer_service_server::PeerService,
};
use switchboard_engine::META_GROUP;
use switchboard_raft::PeerRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Book, PROTOCOL, Refusal, check::check, snapshot};
use crate::{errors, events, limits, service::Service};

/// The service over a node.
#[derive(Clone)]
pub(crate) struct PeerServer(pub(crate) Arc<Service>);

#[tonic::async_trait]
impl PeerService for PeerServer {
    async fn identify(
        &self,
        _: Request<v1::IdentifyRequest>,
    ) -> Result<Response<v1::IdentifyResponse>, Status> {
        Ok(Response::new(self.0.identity()))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        self.0.join(request.into_inner()).await?;
        Ok(Response::new(v1::JoinResponse {}))
    }

    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<PeerAnswers, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<PeerCalls>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut calls = request.into_inner();
        let first = calls.message().await?.unwrap_or_default();
        self.0.check_peer(first.hello.as_ref())?;
        let (answers, receiver) = mpsc::channel(limits::STREAM_ANSWERS_MAX);
        let service = self.0.clone();
        // Not waited for with the calls of a shutdown, since these wait for what comes here.
        tokio::spawn(async move {
            let token = service.peers.disconnected();
            let left = has_left(service.clone(), first.hello);
            // A node that has stopped ends its streams: the others should not wait for its answers. Whoever
            // was removed is not listened to any longer.
            tokio::select! {
                () = token.cancelled() => {}
                () = left => {}
                () = serve(service, first.calls, calls, answers) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::InstallSnapshotRequest>>,
    ) -> Result<Response<v1::InstallSnapshotResponse>, Status> {
        let mut messages = request.into_inner();
        let header = messages.message().await?.unwrap_or_default();
        self.0.check_peer(header.hello.as_ref())?;
        let partials = &self.0.peers.partials;
        snapshot::receive(&self.0.node, partials, header, messages).await.map(Response::new)
    }

    async fn snapshot_offset(
        &self,
        request: Request<v1::SnapshotOffsetRequest>,
    ) -> Result<Response<v1::SnapshotOffsetResponse>, Status> {
        let v1::SnapshotOffsetRequest { hello, group, sender_life, number } = request.into_inner();
        self.0.check_peer(hello.as_ref())?;
        let offset = self.0.peers.partials.offset(group, (sender_life, number));
        Ok(Response::new(v1::SnapshotOffsetResponse { offset }))
    }

    type WatchShardStream = ReceiverStream<Result<v1::WatchResponse, Status>>;

    async fn watch_shard(
        &self,
        request: Request<v1::WatchShardRequest>,
    ) -> Result<Response<Self::WatchShardStream>, Status> {
        let request = request.into_inner();
        self.0.check_peer(request.hello.as_ref())?;
        let receiver = events::serve_shard(&self.0, request.shard)?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Resolves when the node that said this is a member no more.
async fn has_left(service: Arc<Service>, hello: Option<v1::PeerHello>) {
    let mut changes = service.peers.watch_members();
    while service.check_peer(hello.as_ref()).is_ok() {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Answers the calls of one stream: each is begun in the order in which it came, which is what Raft's
/// pipelining and the order of messages rest on, and answered when it is done.
async fn serve(
    service: Arc<Service>,
    first: Vec<PeerCall>,
    mut messages: Streaming<PeerCalls>,
    answers: mpsc::Sender<Result<PeerAnswers, Status>>,
) {
    let mut under_way = FuturesUnordered::new();
    let mut next = Some(first);
    loop {
        let mut done = Vec::new();
        for call in next.take().into_iter().flatten() {
            let mut answer = Box::pin(answer(service.clone(), call));
            match (&mut answer).now_or_never() {
                Some(answer) => done.push(answer),
                None => under_way.push(answer),
            }
        }
        // All that is done by now goes in one message.
        while let Some(Some(answer)) = under_way.next().now_or_never() {
            done.push(answer);
        }
        if !done.is_empty() && answers.send(Ok(PeerAnswers { answers: done })).await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            Some(answer) = under_way.next() => {
                let mut done = vec![answer];
                while let Some(Some(answer)) = under_way.next().now_or_never() {
                    done.push(answer);
                }
                if answers.send(Ok(PeerAnswers { answers: done })).await.is_err() {
                    return;
                }
            }
            message = messages.message(), if under_way.len() < limits::LINK_CALLS_MAX => {
                match message {
                    Ok(Some(message)) => next = Some(message.calls),
                    Ok(None) | Err(_) => return,
                }
            }
        }
    }
}

async fn answer(service: Arc<Service>, call: PeerCall) -> PeerAnswer {
    let answer = match call.call {
        Some(Call::Raft(raft)) => service.answer_raft(raft).await,
        Some(Call::Forwarded(v1::ForwardedCall { call: Some(call) })) => {
            Some(Answer::Forwarded(service.answer_forwarded(call).await))
        }
        Some(Call::Forwarded(_)) | None => None,
    };
    PeerAnswer { id: call.id, answer: Some(answer.unwrap_or(Answer::Unanswered(true))) }
}

impl Service {
    async fn answer_raft(&self, call: v1::RaftCall) -> Option<Answer> {
        let group = self.node.group(call.group)?;
        let request = PeerRequest::decode(call.request)
            .inspect_err(|error| tracing::error!(%error, "a node sends what cannot be read"))
            .ok()?;
        Some(Answer::Raft(group.receive(request).await.ok()?.encode()))
    }

    fn check_peer(&self, hello: Option<&v1::PeerHello>) -> Result<(), Status> {
        let hello = hello.cloned().unwrap_or_default();
        let book = self.peers.book();
        let (node_id, disk_id) = (self.node.node_id(), self.node.disk_id());
        check(&hello, book.as_deref(), node_id, disk_id, self.active_format()).map_err(|refusal| {
            // One of the two may know an older book than the other.
            self.peers.doubt();
            errors::peer_refused(&refusal)
        })
    }

    /// What this node says of itself to who makes a cluster.
    pub(crate) fn identity(&self) -> v1::IdentifyResponse {
        let book = self.peers.book();
        let of_book = book.as_ref().map(|book| book.cluster_id);
        let formats = self.node.formats();
        let of_meta = self.node.meta().shard().meta(|meta| meta.cluster()).map(|c| c.cluster_id);
        v1::IdentifyResponse {
            protocol: PROTOCOL,
            node_id: self.node.node_id(),
            disk_id: self.node.disk_id().to_vec().into(),
            cluster_id: of_book.or(of_meta).map_or_else(Vec::new, |id| id.to_vec()).into(),
            format_oldest: formats.oldest,
            format_newest: formats.newest,
            members: book.as_ref().map(|book| book.wire_members()).unwrap_or_default(),
            members_as_of: book.map_or(0, |book| book.as_of),
        }
    }

    async fn join(&self, request: v1::JoinRequest) -> Result<(), Status> {
        let refused = |refusal: Refusal| Err(errors::peer_refused(&refusal));
        if request.protocol != PROTOCOL {
            return refused(Refusal::Version { found: request.protocol });
        }
        let book = Book::of_wire(&request.cluster_id, request.as_of, &request.members);
        let book = book.ok_or_else(|| errors::peer_refused(&Refusal::NoCluster))?;
        let node = self.node.node_id();
        let Some(own) = book.member(node) else { return refused(Refusal::NotMember { node }) };
        if own.disk_id != self.node.disk_id() {
            return refused(Refusal::OtherDisk { node });
        }
        let known = self.identity().cluster_id;
        if !known.is_empty() && known != request.cluster_id {
            return refused(Refusal::OtherCluster);
        }
        // Entries without a book: the data of another cluster, whose meta group is not known yet.
        let has_entries = self.node.log().group_state(META_GROUP).last.is_some();
        if has_entries && self.peers.book().is_none() {
            return refused(Refusal::OtherCluster);
        }
        self.peers.join(book, self.node.disk_id()).await.map_err(|error| errors::book(&error))
    }
}
