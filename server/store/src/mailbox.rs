//! `MailboxService`: enqueue, fetch, acknowledge.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _, future::join_all, stream::FuturesUnordered};
use switchboard_api::{
    v1::{
        self, ItemStatus, forwarded_answer::Answer, forwarded_call::Call,
        mailbox_service_server::MailboxService,
    },
    validate,
};
use switchboard_engine::{Ack, Command, Enqueue, Position, Purge, Reply, Session};
use switchboard_raft::Consistency;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    batch::{self, Batch},
    convert, errors,
    forward::{Split, Wire, put, split},
    leaders::Home,
    limits,
    service::{Service, check_batch, failed, user_of},
};

/// The service over a node.
#[derive(Clone)]
pub(crate) struct Mailboxes(pub(crate) Arc<Service>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl MailboxService for Mailboxes {
    async fn enqueue(
        &self,
        request: Request<v1::EnqueueRequest>,
    ) -> Result<Response<v1::EnqueueResponse>, Status> {
        let request = request.into_inner();
        validate::enqueue_request(&request).map_err(|fault| errors::invalid(&fault))?;
        if self.0.peers.is_alone() {
            return self.0.enqueue_here(request).await.map(Response::new);
        }
        self.0.clone().enqueue(request, false).await.map(Response::new)
    }

    type EnqueueStreamStream = Answers<v1::EnqueueStreamResponse>;

    async fn enqueue_stream(
        &self,
        request: Request<Streaming<v1::EnqueueStreamRequest>>,
    ) -> Result<Response<Self::EnqueueStreamStream>, Status> {
        let (answers, receiver) = mpsc::channel(limits::STREAM_ANSWERS_MAX);
        let service = self.0.clone();
        self.0.shutdown.spawn(service.serve_enqueues(request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<v1::FetchResponse>, Status> {
        let request = request.into_inner();
        validate::device("device", request.device.as_ref())
            .map_err(|fault| errors::invalid(&fault))?;
        let Home::Elsewhere(leader) = self.0.home_of(user_of(&request.device))? else {
            return self.0.fetch_here(request).await.map(Response::new);
        };
        let take = |answer| match answer {
            Answer::Fetch(response) => Some(response),
            _ => None,
        };
        self.0.hop(leader, Call::Fetch(request), take).await.map(Response::new)
    }

    async fn ack(
        &self,
        request: Request<v1::AckRequest>,
    ) -> Result<Response<v1::AckResponse>, Status> {
        let is_operator = self.0.is_operator(&request);
        let request = request.into_inner();
        check_batch(&request, request.items.len())?;
        if !is_operator && request.items.iter().any(|item| item.epoch == 0) {
            return Err(errors::operators_only("Ack without an epoch"));
        }
        let wire = Wire {
            call: |items| Call::Ack(v1::AckRequest { items }),
            results: |answer| match answer {
                Answer::Ack(response) => Some(response.results),
                _ => None,
            },
            missing: |status| v1::ack_response::Result { status: status.into(), ack_floor: 0 },
        };
        let local = async |items| Ok(self.0.ack_here(v1::AckRequest { items }).await?.results);
        let results = self.0.routed(request.items, |item| user_of(&item.device), wire, local);
        Ok(Response::new(v1::AckResponse { results: results.await? }))
    }

    async fn stat(
        &self,
        request: Request<v1::StatRequest>,
    ) -> Result<Response<v1::StatResponse>, Status> {
        let request = request.into_inner();
        check_batch(&request, request.items.len())?;
        let wire = Wire {
            call: |items| Call::Stat(v1::StatRequest { items }),
            results: |answer| match answer {
                Answer::Stat(response) => Some(response.results),
                _ => None,
            },
            missing: |status| v1::stat_response::Result {
                status: status.into(),
                ..Default::default()
            },
        };
        let local = async |items| Ok(self.0.stat_here(v1::StatRequest { items }).results);
        let results =
            self.0.routed_if_absent(request.items, |item| user_of(&item.device), wire, local);
        Ok(Response::new(v1::StatResponse { results: results.await? }))
    }

    async fn purge(
        &self,
        request: Request<v1::PurgeRequest>,
    ) -> Result<Response<v1::PurgeResponse>, Status> {
        if !self.0.is_operator(&request) {
            return Err(errors::operators_only("Purge"));
        }
        let v1::PurgeRequest { device, reason } = request.into_inner();
        validate::device("device", device.as_ref())
            .and_then(|_| validate::purge_reason(&reason))
            .map_err(|fault| errors::invalid(&fault))?;
        let home = self.0.home_of(user_of(&device))?;
        let request = v1::PurgeRequest { device, reason };
        let Home::Elsewhere(leader) = home else {
            return self.0.purge_here(request).await.map(Response::new);
        };
        let take = |answer| match answer {
            Answer::Purge(response) => Some(response),
            _ => None,
        };
        self.0.hop(leader, Call::Purge(request), take).await.map(Response::new)
    }
}

impl Service {
    /// A page of a mailbox whose shard this node leads.
    pub(crate) async fn fetch_here(
        &self,
        request: v1::FetchRequest,
    ) -> Result<v1::FetchResponse, Status> {
        let device = convert::device_id(request.device);
        let group = self.group_of(&device.user)?;
        group.barrier(Consistency::Lease).await.map_err(|error| errors::barrier(&error))?;
        // A position is told only once it is applied, and the leader has now applied all that any
        // leader before it had: what lies ahead was given out by nobody.
        let position = Position::clamped(request.min_position);
        let applied = group.shard().applied().map_or(0, |id| id.index);
        if position.index() > applied {
            return Err(errors::unknown_position(request.min_position));
        }
        let messages_max = validate::page_messages(request.messages_max) as usize;
        let bytes_max = validate::page_bytes(request.bytes_max) as usize;
        let shard = group.shard().clone();
        // Old bodies may come from the disk: not on a thread of the runtime.
        let read = tokio::task::spawn_blocking(move || {
            shard.fetch(&device, request.after_seq, messages_max, bytes_max)
        });
        let page = match read.await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => return Err(errors::unreadable(&error)),
            Err(error) => return Err(errors::internal(format!("a fetch ended: {error}"))),
        };
        Ok(v1::FetchResponse {
            messages: page.messages.into_iter().map(convert::message).collect(),
            more: page.more,
            tail: page.tail,
        })
    }

    /// Acknowledges in mailboxes whose shards this node leads.
    pub(crate) async fn ack_here(
        &self,
        request: v1::AckRequest,
    ) -> Result<v1::AckResponse, Status> {
        let commands = request.items.into_iter().map(|item| {
            validate::ack_item(&item).map_err(|fault| fault.status())?;
            let v1::ack_request::Item { device, epoch, up_to_seq, seqs } = item;
            Ok(Command::Ack(Ack { device: convert::device_id(device), epoch, up_to_seq, seqs }))
        });
        let answers = Batch::submit(&self.node, commands).answers().await.for_call()?;
        let results = answers.into_iter().map(|answer| match answer {
            Ok(Reply::Acked(acked)) => v1::ack_response::Result {
                status: errors::item(acked.status).into(),
                ack_floor: acked.ack_floor,
            },
            other => v1::ack_response::Result { status: failed(&other).into(), ack_floor: 0 },
        });
        Ok(v1::AckResponse { results: results.collect() })
    }

    /// Empties a mailbox whose shard this node leads.
    pub(crate) async fn purge_here(
        &self,
        request: v1::PurgeRequest,
    ) -> Result<v1::PurgeResponse, Status> {
        let v1::PurgeRequest { device, reason } = request;
        let device = convert::device_id(device);
        let group = self.group_of(&device.user)?;
        let command = Command::Purge(Purge { device, reason: reason.clone().into() });
        let proposed = group.propose(vec![command]).map_err(errors::overloaded)?;
        let replies = proposed.await.map_err(|error| errors::proposal(&error))?;
        let Some(Reply::Purged(purged)) = replies.into_iter().next() else {
            return Err(errors::internal("Purge has no reply".to_owned()));
        };
        errors::refused(purged.status)?;
        // The audit line names no user: ids do not reach the log.
        tracing::warn!(reason, messages = purged.messages, bytes = purged.bytes, "mailbox purged");
        Ok(v1::PurgeResponse { messages: purged.messages, bytes: purged.bytes })
    }

    /// Enqueues for users whose shards this node leads.
    pub(crate) async fn enqueue_here(
        &self,
        request: v1::EnqueueRequest,
    ) -> Result<v1::EnqueueResponse, Status> {
        let answers = self.hand_over(request).answers().await.for_call()?;
        Ok(self.enqueued(answers))
    }

    /// Hands items over, each to the leader of its user's shard, in this call; the future resolves
    /// with the answers. On a stream items fail one by one, and never the stream.
    fn enqueue(
        self: Arc<Self>,
        request: v1::EnqueueRequest,
        on_stream: bool,
    ) -> impl Future<Output = Result<v1::EnqueueResponse, Status>> + Send {
        let count = request.items.len();
        let leaders = self.leaders_elsewhere();
        let Split { here, elsewhere } = split(request.items, |item| user_of(&item.to), &leaders);
        let only_here = elsewhere.is_empty();
        let batch = self.hand_over(v1::EnqueueRequest { items: here.items });
        let hops: Vec<_> = elsewhere
            .into_iter()
            .map(|(node, part)| {
                let call = Call::Enqueue(v1::EnqueueRequest { items: part.items });
                let answer = self.peers.forward(node, call);
                async move { (part.places, answer.await) }
            })
            .collect();
        async move {
            if only_here {
                let answers = batch.answers().await;
                let mine = if on_stream { answers.for_stream() } else { answers.for_call()? };
                return Ok(self.enqueued(mine));
            }
            let (answers, theirs) = tokio::join!(batch.answers(), join_all(hops));
            let mut all = vec![None; count];
            put(&mut all, &here.places, self.enqueued(answers.for_stream()).results);
            for (places, answer) in theirs {
                if let Ok(Answer::Enqueue(response)) = answer {
                    put(&mut all, &places, response.results);
                }
            }
            let is_undone = |result: &Option<v1::enqueue_response::Result>| {
                result.as_ref().is_none_or(|result| result.status() == ItemStatus::Unavailable)
            };
            if all.iter().any(is_undone) {
                self.leaders.doubt();
            }
            let missing = || refuse_all(ItemStatus::Unavailable, 1).results.pop();
            let results = all.into_iter().map(|found| found.or_else(missing).unwrap_or_default());
            Ok(v1::EnqueueResponse { results: results.collect() })
        }
    }

    /// Hands the items of a request over to their shards, in order, at once.
    fn hand_over(&self, request: v1::EnqueueRequest) -> Batch {
        let commands = request.items.into_iter().map(|item| {
            validate::enqueue_item(&item).map_err(|fault| fault.status())?;
            let v1::enqueue_request::Item { to, message_id, from, ttl_ms, kind, body } = item;
            let id = validate::message_id(&message_id).map_err(|fault| fault.status())?;
            let to = convert::device_id(to);
            Ok(Command::Enqueue(Enqueue {
                to_user: to.user,
                to_device: to.device,
                message_id: id,
                from: convert::device_id(from),
                ttl_ms: validate::ttl_ms(ttl_ms),
                kind: convert::message_kind(kind),
                body,
            }))
        });
        Batch::submit(&self.node, commands)
    }

    /// What a request answers once all of it is durable.
    fn enqueued(&self, answers: Vec<batch::Answer>) -> v1::EnqueueResponse {
        let results = self.node.meta().shard().meta(|meta| {
            let is_live = |s: &Session| !meta.has_ended(s.gateway_id, s.incarnation);
            let result = |answer| match answer {
                Ok(Reply::Enqueued(reply)) => convert::enqueued(reply, is_live),
                other => v1::enqueue_response::Result {
                    status: failed(&other).into(),
                    ..Default::default()
                },
            };
            answers.into_iter().map(result).collect()
        });
        v1::EnqueueResponse { results }
    }

    /// Serves one stream: requests are handed over as they are read, answers go as they come.
    async fn serve_enqueues(
        self: Arc<Self>,
        mut requests: Streaming<v1::EnqueueStreamRequest>,
        answers: mpsc::Sender<Result<v1::EnqueueStreamResponse, Status>>,
    ) {
        let mut under_way = FuturesUnordered::new();
        let mut items_under_way = 0;
        // What the stream ends with, once nothing more is read.
        let mut end: Option<Result<(), Status>> = None;
        let token = self.shutdown.token();
        while end.is_none() || !under_way.is_empty() {
            let has_room = under_way.len() < limits::STREAM_REQUESTS_MAX
                && items_under_way < limits::STREAM_ITEMS_MAX;
            tokio::select! {
                () = token.cancelled(), if end.is_none() => end = Some(Err(errors::stopping())),
                request = requests.message(), if end.is_none() && has_room => match request {
                    Ok(Some(request)) => {
                        let (items, answer) = self.clone().answer(request);
                        items_under_way += items;
                        under_way.push(async move { (items, answer.await) });
                    }
                    Ok(None) => end = Some(Ok(())),
                    Err(error) => end = Some(Err(errors::unreadable_request(error))),
                },
                Some((items, answer)) = under_way.next() => {
                    items_under_way -= items;
                    if answers.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            }
        }
        if let Some(Err(status)) = end {
            // The reader may be gone already.
            let _ = answers.send(Err(status)).await;
        }
    }

    /// Hands one request of a stream over now and answers it later; says how many items it has.
    fn answer(
        self: Arc<Self>,
        request: v1::EnqueueStreamRequest,
    ) -> (usize, impl Future<Output = v1::EnqueueStreamResponse>) {
        let id = request.id;
        let request = request.request.unwrap_or_default();
        let items = request.items.len();
        // A stream carries many callers' requests: one that breaks a limit fails alone.
        let checked = validate::enqueue_request(&request).map_err(|fault| fault.status());
        // Handed over here, not in the future below: requests keep their order.
        let enqueued = checked.map(|()| self.enqueue(request, true));
        let answer = async move {
            let response = match enqueued {
                Ok(enqueued) => {
                    enqueued.await.unwrap_or_else(|_| refuse_all(ItemStatus::Unavailable, items))
                }
                Err(status) => refuse_all(status, items),
            };
            v1::EnqueueStreamResponse { id, response: Some(response) }
        };
        (items, answer)
    }

    /// What this node's replicas know.
    pub(crate) fn stat_here(&self, request: v1::StatRequest) -> v1::StatResponse {
        let results = request.items.into_iter().map(|item| self.stat(item)).collect();
        v1::StatResponse { results }
    }

    fn stat(&self, item: v1::stat_request::Item) -> v1::stat_response::Result {
        let refused = |status: ItemStatus| v1::stat_response::Result {
            status: status.into(),
            ..Default::default()
        };
        if let Err(fault) = validate::device("device", item.device.as_ref()) {
            return refused(fault.status());
        }
        let device = convert::device_id(item.device);
        // A replica that still catches up has not got every mailbox.
        let group = self.node.shard_for(&device.user).filter(|group| !group.is_learner());
        let Some(group) = group else { return refused(ItemStatus::Unavailable) };
        let shard = group.shard();
        let stat = shard.stat(&device);
        let (mut connected, mut push_token) = (false, String::new());
        if item.with_push_token {
            let session = shard.session(&device.user, device.device);
            connected = session.is_some_and(|session| {
                let meta = self.node.meta().shard();
                meta.meta(|meta| !meta.has_ended(session.gateway_id, session.incarnation))
            });
            // A claim with a token that is no text was refused.
            let token = shard.push_token(&device).unwrap_or_default();
            push_token = String::from_utf8_lossy(&token).into_owned();
        }
        v1::stat_response::Result {
            status: ItemStatus::Ok.into(),
            messages: stat.messages,
            bytes: stat.bytes,
            oldest_at_ms: stat.oldest_at_ms,
            ack_floor: stat.ack_floor,
            tail: stat.tail,
            connected,
            push_token,
        }
    }
}

/// One answer an item; the decoder bounds how many a request has.
fn refuse_all(status: ItemStatus, items: usize) -> v1::EnqueueResponse {
    let refused = v1::enqueue_response::Result { status: status.into(), ..Default::default() };
    v1::EnqueueResponse { results: vec![refused; items] }
}
