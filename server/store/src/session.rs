//! `SessionService`: the directory of live connections.

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use switchboard_api::{
    LocateStreamResponse, limits as contract,
    v1::{
        self, ItemStatus, forwarded_answer::Answer, forwarded_call::Call,
        session_service_server::SessionService,
    },
    validate,
};
use switchboard_engine::{
    Claim, Claimed, Command, GatewayInfo, GatewayKind, Release, Reply, Unregister,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    batch::Batch,
    convert, errors,
    forward::Wire,
    limits,
    service::{Service, check_batch, failed, user_of},
};

/// The service over a node.
#[derive(Clone)]
pub(crate) struct Sessions(pub(crate) Arc<Service>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SessionService for Sessions {
    async fn claim(
        &self,
        request: Request<v1::ClaimRequest>,
    ) -> Result<Response<v1::ClaimResponse>, Status> {
        let request = request.into_inner();
        check_batch(&request, request.items.len())?;
        let v1::ClaimRequest { items, gateway_id, incarnation } = request;
        let with = (gateway_id, incarnation);
        self.0.claim(with, items).await.map(|results| Response::new(v1::ClaimResponse { results }))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let is_operator = self.0.is_operator(&request);
        let request = request.into_inner();
        check_batch(&request, request.items.len())?;
        if !is_operator && request.items.iter().any(|item| item.epoch == 0) {
            return Err(errors::operators_only("Release without an epoch"));
        }
        let wire = Wire {
            call: |items| Call::Release(v1::ReleaseRequest { items }),
            results: |answer| match answer {
                Answer::Release(response) => Some(response.results),
                _ => None,
            },
            missing: |status| v1::release_response::Result { status: status.into() },
        };
        let local =
            async |items| Ok(self.0.release_here(v1::ReleaseRequest { items }).await?.results);
        let results = self.0.routed(request.items, |item| user_of(&item.device), wire, local);
        Ok(Response::new(v1::ReleaseResponse { results: results.await? }))
    }

    async fn unregister(
        &self,
        request: Request<v1::UnregisterRequest>,
    ) -> Result<Response<v1::UnregisterResponse>, Status> {
        let request = request.into_inner();
        check_batch(&request, request.items.len())?;
        let wire = Wire {
            call: |items| Call::Unregister(v1::UnregisterRequest { items }),
            results: |answer| match answer {
                Answer::Unregister(response) => Some(response.results),
                _ => None,
            },
            missing: |status| v1::unregister_response::Result { status: status.into() },
        };
        let local = async |items| {
            Ok(self.0.unregister_here(v1::UnregisterRequest { items }).await?.results)
        };
        let results = self.0.routed(request.items, |item| user_of(&item.device), wire, local);
        Ok(Response::new(v1::UnregisterResponse { results: results.await? }))
    }

    async fn locate(
        &self,
        request: Request<v1::LocateRequest>,
    ) -> Result<Response<v1::LocateResponse>, Status> {
        let request = request.into_inner();
        check_batch(&request, request.users.len())?;
        Ok(Response::new(self.0.locate(request).await))
    }

    type LocateStreamStream = Answers<LocateStreamResponse>;

    async fn locate_stream(
        &self,
        request: Request<Streaming<v1::LocateStreamRequest>>,
    ) -> Result<Response<Self::LocateStreamStream>, Status> {
        let (answers, receiver) = mpsc::channel(limits::STREAM_ANSWERS_MAX);
        let service = self.0.clone();
        self.0.shutdown.spawn(service.serve_locates(request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type WatchStream = Answers<v1::WatchResponse>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        validate::at_most("users", request.users.len(), contract::WATCH_USERS_MAX)
            .and_then(|()| request.users.iter().try_for_each(|user| validate::user(user)))
            .map_err(|fault| errors::invalid(&fault))?;
        if request.users.is_empty() && request.gateway_id == 0 {
            let fault = validate::Fault::Empty { field: "users" };
            return Err(errors::invalid(&fault));
        }
        let permit = self.0.watch_permit()?;
        let (events, receiver) = mpsc::channel(limits::STREAM_ANSWERS_MAX);
        let service = self.0.clone();
        self.0.shutdown.spawn(async move {
            service.events.serve(&service, request, events).await;
            drop(permit);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Service {
    /// Claims, each at the leader of its user's shard.
    async fn claim(
        &self,
        (gateway_id, incarnation): (u32, u64),
        items: Vec<v1::claim_request::Item>,
    ) -> Result<Vec<v1::claim_response::Result>, Status> {
        if self.peers.is_alone() {
            let request = v1::ClaimRequest { items, gateway_id, incarnation };
            return Ok(self.claim_here(request).await?.results);
        }
        let wire = Wire {
            // Who claims is told item by item, since a call is made of items alone.
            call: |items: Vec<(u32, u64, v1::claim_request::Item)>| {
                let (gateway_id, incarnation) =
                    items.first().map_or((0, 0), |(gateway_id, life, _)| (*gateway_id, *life));
                let items = items.into_iter().map(|(.., item)| item).collect();
                Call::Claim(v1::ClaimRequest { items, gateway_id, incarnation })
            },
            results: |answer| match answer {
                Answer::Claim(response) => Some(response.results),
                _ => None,
            },
            missing: |status| v1::claim_response::Result {
                status: status.into(),
                ..Default::default()
            },
        };
        let local = async |items: Vec<(u32, u64, v1::claim_request::Item)>| {
            let items = items.into_iter().map(|(.., item)| item).collect();
            let request = v1::ClaimRequest { items, gateway_id, incarnation };
            Ok(self.claim_here(request).await?.results)
        };
        let items = items.into_iter().map(|item| (gateway_id, incarnation, item)).collect();
        self.routed(items, |(.., item)| user_of(&item.device), wire, local).await
    }

    /// Claims users whose shards this node leads.
    pub(crate) async fn claim_here(
        &self,
        request: v1::ClaimRequest,
    ) -> Result<v1::ClaimResponse, Status> {
        let v1::ClaimRequest { items, gateway_id, incarnation } = request;
        self.wait_heard_of(gateway_id, incarnation).await;
        // A claim that passes here while the incarnation ends is hidden like its other sessions.
        let is_live = self.node.meta().shard().meta(|meta| {
            let is_gateway = |g: &GatewayInfo| g.kind == GatewayKind::Gateway;
            meta.is_live(gateway_id, incarnation)
                && meta.gateway(gateway_id).is_some_and(is_gateway)
        });
        let commands = items.into_iter().map(|item| {
            validate::claim_item(&item).map_err(|fault| fault.status())?;
            if !is_live {
                return Err(ItemStatus::UnknownGateway);
            }
            Ok(Command::Claim(Claim {
                device: convert::device_id(item.device),
                gateway_id,
                incarnation,
                connection_id: item.connection_id,
                push_token: item.push_token.into(),
            }))
        });
        let answers = Batch::submit(&self.node, commands).answers().await.for_call()?;
        let results = answers.into_iter().map(|answer| match answer {
            Ok(Reply::Claimed(claimed)) => self.claimed(claimed),
            other => {
                v1::claim_response::Result { status: failed(&other).into(), ..Default::default() }
            }
        });
        Ok(v1::ClaimResponse { results: results.collect() })
    }

    /// Gives the news of a registration, which another node may have answered just now, time to get
    /// here.
    async fn wait_heard_of(&self, gateway_id: u32, incarnation: u64) {
        if self.peers.is_alone() {
            return;
        }
        let mut applied = self.node.meta().watch_applied();
        let heard = async {
            loop {
                applied.borrow_and_update();
                let heard = self.node.meta().shard().meta(|meta| {
                    meta.is_live(gateway_id, incarnation) || meta.has_ended(gateway_id, incarnation)
                });
                if heard || applied.changed().await.is_err() {
                    return;
                }
            }
        };
        // Without news it is refused, like one that was never registered.
        let _ = tokio::time::timeout(limits::REGISTRATION_WAIT_MAX, heard).await;
    }

    /// Releases sessions of users whose shards this node leads.
    pub(crate) async fn release_here(
        &self,
        request: v1::ReleaseRequest,
    ) -> Result<v1::ReleaseResponse, Status> {
        let commands = request.items.into_iter().map(|item| {
            validate::release_item(&item).map_err(|fault| fault.status())?;
            let device = convert::device_id(item.device);
            Ok(Command::Release(Release { device, epoch: item.epoch }))
        });
        let answers = Batch::submit(&self.node, commands).answers().await.for_call()?;
        let results = answers.into_iter().map(|answer| {
            let status = match answer {
                Ok(Reply::Released(released)) => errors::item(released.status),
                other => failed(&other),
            };
            v1::release_response::Result { status: status.into() }
        });
        Ok(v1::ReleaseResponse { results: results.collect() })
    }

    /// Unregisters devices of users whose shards this node leads.
    pub(crate) async fn unregister_here(
        &self,
        request: v1::UnregisterRequest,
    ) -> Result<v1::UnregisterResponse, Status> {
        let commands = request.items.into_iter().map(|item| {
            validate::device("device", item.device.as_ref()).map_err(|fault| fault.status())?;
            Ok(Command::Unregister(Unregister { device: convert::device_id(item.device) }))
        });
        let answers = Batch::submit(&self.node, commands).answers().await.for_call()?;
        let results = answers.into_iter().map(|answer| {
            let status = match answer {
                Ok(Reply::Unregistered(unregistered)) => errors::item(unregistered.status),
                other => failed(&other),
            };
            v1::unregister_response::Result { status: status.into() }
        });
        Ok(v1::UnregisterResponse { results: results.collect() })
    }

    fn claimed(&self, claimed: Claimed) -> v1::claim_response::Result {
        // A session of an incarnation that has ended is nobody's to be told.
        let is_live = |s: &switchboard_engine::Session| {
            self.node.meta().shard().meta(|meta| !meta.has_ended(s.gateway_id, s.incarnation))
        };
        v1::claim_response::Result {
            status: errors::item(claimed.status).into(),
            epoch: claimed.epoch,
            replaced: claimed.replaced.filter(is_live).map(convert::session_info),
            tail: claimed.tail,
            backlog: claimed.backlog,
        }
    }
}
