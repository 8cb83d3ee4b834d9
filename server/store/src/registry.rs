//! `GatewayService`: the registry of gateway and chat processes and their leases.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use switchboard_api::{
    v1::{
        self, forwarded_answer::Answer, forwarded_call::Call,
        gateway_service_server::GatewayService, register_request,
    },
    validate,
};
use switchboard_engine::{
    Command, EndIncarnation, GatewayInfo, MetaState, RegisterGateway, Reply, command::GatewayKind,
};
use switchboard_raft::Consistency;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    convert, errors,
    leases::{Incarnation, Report},
    limits,
    service::Service,
};

/// The service over a node.
#[derive(Clone)]
pub(crate) struct Registry(pub(crate) Arc<Service>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl GatewayService for Registry {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let request = request.into_inner();
        validate::register(&request).map_err(|fault| errors::invalid(&fault))?;
        let Some(leader) = self.0.elsewhere(self.0.node.meta()) else {
            return self.0.register_here(request).await.map(Response::new);
        };
        let take = |answer| match answer {
            Answer::Register(response) => Some(response),
            _ => None,
        };
        self.0.hop(leader, Call::Register(request), take).await.map(Response::new)
    }

    type KeepAliveStream = Answers<v1::KeepAliveResponse>;

    async fn keep_alive(
        &self,
        request: Request<Streaming<v1::KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        let mut requests = request.into_inner();
        let (answers, receiver) = mpsc::channel(limits::STREAM_ANSWERS_MAX);
        let service = self.0.clone();
        let token = self.0.shutdown.token();
        self.0.shutdown.spawn(async move {
            loop {
                let answer = tokio::select! {
                    () = token.cancelled() => Err(errors::stopping()),
                    request = requests.message() => match request {
                        Ok(Some(request)) => service.keep_alive(request).await,
                        Ok(None) => return,
                        Err(error) => Err(errors::unreadable_request(error)),
                    },
                };
                let is_last = answer.is_err();
                if answers.send(answer).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn deregister(
        &self,
        request: Request<v1::DeregisterRequest>,
    ) -> Result<Response<v1::DeregisterResponse>, Status> {
        let request = request.into_inner();
        let Some(leader) = self.0.elsewhere(self.0.node.meta()) else {
            return self.0.deregister_here(request).await.map(Response::new);
        };
        let take = |answer| match answer {
            Answer::Deregister(response) => Some(response),
            _ => None,
        };
        self.0.hop(leader, Call::Deregister(request), take).await.map(Response::new)
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let request = request.into_inner();
        // Who leads the meta group times the leases, and hears what the processes report.
        let Some(leader) = self.0.elsewhere(self.0.node.meta()) else {
            return Ok(Response::new(self.0.list_here(request)));
        };
        let take = |answer| match answer {
            Answer::List(response) => Some(response),
            _ => None,
        };
        self.0.hop(leader, Call::List(request), take).await.map(Response::new)
    }

    type WatchStream = Answers<v1::WatchGatewaysResponse>;

    async fn watch(
        &self,
        request: Request<v1::WatchGatewaysRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let kind = request.into_inner().kind();
        let permit = self.0.watch_permit()?;
        let (lists, receiver) = mpsc::channel(1);
        let service = self.0.clone();
        self.0.shutdown.spawn(async move {
            service.serve_list(kind, lists).await;
            drop(permit);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Service {
    /// Registers a process, if this node leads the meta group.
    pub(crate) async fn register_here(
        &self,
        request: v1::RegisterRequest,
    ) -> Result<v1::RegisterResponse, Status> {
        let kind = convert::gateway_kind(request.kind());
        let v1::RegisterRequest { name, address, .. } = request;
        let command = Command::RegisterGateway(RegisterGateway { name, address, kind });
        let Reply::Registered(registered) = self.propose_meta(command).await? else {
            return Err(errors::internal("Register has no reply".to_owned()));
        };
        errors::refused(registered.status)?;
        let incarnation =
            Incarnation { gateway_id: registered.gateway_id, incarnation: registered.incarnation };
        // It has ended already if it registered again in between; its first renewal tells.
        self.leases.renew(incarnation, Report::default(), self.clock.monotonic());
        let lease = self.leases.length();
        Ok(v1::RegisterResponse {
            gateway_id: incarnation.gateway_id,
            incarnation: incarnation.incarnation,
            lease_ms: millis(lease),
        })
    }

    /// Ends an incarnation, if this node leads the meta group.
    pub(crate) async fn deregister_here(
        &self,
        request: v1::DeregisterRequest,
    ) -> Result<v1::DeregisterResponse, Status> {
        let v1::DeregisterRequest { gateway_id, incarnation } = request;
        let command = Command::EndIncarnation(EndIncarnation { gateway_id, incarnation });
        let Reply::Ended(status) = self.propose_meta(command).await? else {
            return Err(errors::internal("Deregister has no reply".to_owned()));
        };
        errors::refused(status)?;
        Ok(v1::DeregisterResponse {})
    }

    /// The processes of a kind, as this node knows them.
    pub(crate) fn list_here(&self, request: v1::ListRequest) -> v1::ListResponse {
        let gateways = self
            .node
            .meta()
            .shard()
            .meta(|meta| self.gateways(meta, request.kind(), request.include_ended));
        v1::ListResponse { gateways }
    }

    /// Renews a lease where leases are timed.
    async fn keep_alive(
        &self,
        request: v1::KeepAliveRequest,
    ) -> Result<v1::KeepAliveResponse, Status> {
        let Some(leader) = self.elsewhere(self.node.meta()) else {
            return self.keep_alive_here(request).await;
        };
        let take = |answer| match answer {
            Answer::KeepAlive(response) => Some(response),
            _ => None,
        };
        self.hop(leader, Call::KeepAlive(request), take).await
    }

    /// Renews a lease, if this node leads the meta group. A fresh leader answers once it has applied
    /// what the one before it committed: until then it knows less than was promised.
    pub(crate) async fn keep_alive_here(
        &self,
        request: v1::KeepAliveRequest,
    ) -> Result<v1::KeepAliveResponse, Status> {
        let led = self.node.meta().barrier(Consistency::Lease).await;
        led.map_err(|error| errors::barrier(&error))?;
        Ok(self.renew(&request))
    }

    /// Proposes one command to the meta group and waits for its reply.
    pub(crate) async fn propose_meta(&self, command: Command) -> Result<Reply, Status> {
        let proposed = self.node.meta().propose(vec![command]).map_err(errors::overloaded)?;
        let replies = proposed.await.map_err(|error| errors::proposal(&error))?;
        replies.into_iter().next().ok_or_else(|| errors::internal("no reply".to_owned()))
    }

    fn renew(&self, request: &v1::KeepAliveRequest) -> v1::KeepAliveResponse {
        let v1::KeepAliveRequest { gateway_id, incarnation, connections, load } = *request;
        let meta = self.node.meta().shard();
        if !meta.meta(|meta| meta.is_live(gateway_id, incarnation)) {
            return v1::KeepAliveResponse::default();
        }
        let report = Report { connections, load };
        let (incarnation, now) = (Incarnation { gateway_id, incarnation }, self.clock.monotonic());
        let renewed = self.leases.renew(incarnation, report, now);
        // Its end is being written already.
        let Some(lease) = renewed else { return v1::KeepAliveResponse::default() };
        v1::KeepAliveResponse {
            lease_ms_left: millis(lease),
            reconnect_budget_per_s: budget(
                self.logins_per_s,
                self.fullness(),
                self.gateways_heard(now),
            ),
        }
    }

    /// How many gateways take devices in, as far as renewals tell: one that has missed its last is likely dead,
    /// and its devices are what the others need their budget for.
    fn gateways_heard(&self, now: Duration) -> usize {
        let is_heard = |gateway: &&GatewayInfo| {
            let GatewayInfo { gateway_id, incarnation, live, kind, .. } = **gateway;
            let left = || self.leases.left(Incarnation { gateway_id, incarnation }, now).0;
            live && kind == GatewayKind::Gateway && left() > self.leases.length() / 2
        };
        self.node.meta().shard().meta(|meta| meta.gateways().filter(is_heard).count())
    }

    /// How full the fullest queue of proposals here is, from 0 to 1.
    fn fullness(&self) -> f64 {
        let options = self.node.options();
        let full = |waiting: usize, max: usize| waiting as f64 / max.max(1) as f64;
        let groups = self.node.groups();
        groups.iter().map(|group| group.status().proposer).fold(0.0, |fullest: f64, proposer| {
            let items = full(proposer.waiting_items, options.waiting_items_max);
            let bytes = full(proposer.waiting_bytes, options.waiting_bytes_max);
            fullest.max(items).max(bytes)
        })
    }

    /// The processes of a kind, by id.
    fn gateways(
        &self,
        meta: &MetaState,
        kind: register_request::Kind,
        include_ended: bool,
    ) -> Vec<v1::GatewayInfo> {
        let now = self.clock.monotonic();
        let wanted =
            |g: &&GatewayInfo| g.kind == convert::gateway_kind(kind) && (g.live || include_ended);
        let info = |gateway: &GatewayInfo| {
            let incarnation =
                Incarnation { gateway_id: gateway.gateway_id, incarnation: gateway.incarnation };
            let (left, report) = self.leases.left(incarnation, now);
            v1::GatewayInfo {
                gateway_id: gateway.gateway_id,
                incarnation: gateway.incarnation,
                name: gateway.name.clone(),
                address: gateway.address.clone(),
                kind: convert::wire_kind(gateway.kind).into(),
                live: gateway.live,
                connections: if gateway.live { report.connections } else { 0 },
                load: if gateway.live { report.load } else { 0.0 },
                lease_ms_left: if gateway.live { millis(left) } else { 0 },
                registered_at_ms: gateway.registered_at_ms,
            }
        };
        meta.gateways().filter(wanted).map(info).collect()
    }

    /// Sends the list of a kind's live processes now and whenever who is on it changes.
    async fn serve_list(
        &self,
        kind: register_request::Kind,
        lists: mpsc::Sender<Result<v1::WatchGatewaysResponse, Status>>,
    ) {
        let mut applied = self.node.meta().watch_applied();
        let token = self.shutdown.token();
        let mut last = None;
        loop {
            applied.borrow_and_update();
            let (version, gateways) = self
                .node
                .meta()
                .shard()
                .meta(|meta| (meta.version(), self.gateways(meta, kind, false)));
            let who: Vec<_> = gateways.iter().map(|g| (g.gateway_id, g.incarnation)).collect();
            if last.as_ref() != Some(&who) {
                last = Some(who);
                let list = v1::WatchGatewaysResponse { version, gateways };
                if lists.send(Ok(list)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = token.cancelled() => {
                    // The watcher may be gone already.
                    let _ = lists.send(Err(errors::stopping())).await;
                    return;
                }
                () = lists.closed() => return,
                changed = applied.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Ends incarnations whose lease has ended, until the shutdown.
    pub(crate) async fn end_lapsed(self: Arc<Self>) {
        let token = self.shutdown.token();
        let mut looks = tokio::time::interval(limits::LEASE_LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut last_look, mut led) = (Instant::now(), false);
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                _ = looks.tick() => {}
            }
            // Who could not run took no renewals, and who did not lead did not time them.
            let stalled = last_look.elapsed() > self.leases.length() / 2;
            let leads = self.node.meta().is_leader();
            if stalled || (leads && !led) {
                self.leases.start_over();
            }
            (last_look, led) = (Instant::now(), leads);
            if leads {
                self.end_lapsed_now().await;
            }
        }
    }

    async fn end_lapsed_now(&self) {
        let now = self.clock.monotonic();
        let lapsed = self.node.meta().shard().meta(|meta| self.leases.lapsed(meta, now));
        for Incarnation { gateway_id, incarnation } in lapsed {
            tracing::warn!(gateway_id, incarnation, "a lease has ended; its sessions are hidden");
            metrics::counter!("switchboard_store_lapsed_leases_total").increment(1);
            let command = Command::EndIncarnation(EndIncarnation { gateway_id, incarnation });
            // A failure is repeated at the next look.
            if let Err(error) = self.propose_meta(command).await {
                tracing::warn!(%error, gateway_id, "an incarnation could not be ended");
            }
        }
    }
}

/// How many logins a second one of `gateways` may make: an equal share of what there is room for out of `whole`.
fn budget(whole: u32, fullness: f64, gateways: usize) -> u32 {
    let room = 1.0 - fullness.clamp(0.0, 1.0);
    let all = (f64::from(whole) * room) as u32;
    let share = u32::try_from(gateways.max(1)).unwrap_or(u32::MAX);
    (all.max(limits::RECONNECT_BUDGET_MIN_PER_S) / share).max(1)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_share_what_there_is_room_for_and_each_gets_something() {
        let whole = 40_000;
        assert_eq!(budget(whole, 0.0, 1), whole);
        assert_eq!(budget(whole, 0.0, 8), whole / 8);
        assert_eq!(budget(whole, 0.5, 1), whole / 2);
        for full in [1.0, 7.0] {
            assert_eq!(budget(whole, full, 1), limits::RECONNECT_BUDGET_MIN_PER_S);
            assert_eq!(budget(whole, full, usize::MAX), 1);
        }
        assert_eq!(budget(whole, 0.0, 0), whole);
    }
}
