//! Pushes to the gateways that hold the recipients' connections.
//!
//! A push is a hint that saves a fetch. It is dropped rather than waited for: the mailbox has the
//! message, and the gateway's reconciliation finds it.
//!
//! Each life of a gateway has an outlet with a bounded queue and a long-lived stream. Outlets
//! follow the watch of live gateways; a push for one that the watch has not shown yet makes an
//! outlet that waits a few seconds for it.

mod outlet;
mod push;
mod queue;

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use switchboard_api::v1::{GatewayInfo, deliver_request::Push, enqueue_request, enqueue_response};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use self::{
    outlet::Outlet,
    push::{GatewayKey, pushes},
};
use crate::{
    limits::{GATEWAY_UNKNOWN_MAX, GATEWAYS_MAX},
    meters::PushMeters,
    notifier::Notifier,
};

type Gateways = watch::Receiver<Arc<Vec<GatewayInfo>>>;

/// Finds the outlet of a push.
pub(crate) struct Dispatcher {
    /// A lock, because pushes look outlets up while the watch changes them; read-mostly.
    outlets: RwLock<HashMap<GatewayKey, Arc<Outlet>>>,
    gateways: Gateways,
    meters: Arc<PushMeters>,
    notifier: Option<Arc<Notifier>>,
    stop: CancellationToken,
}

impl Dispatcher {
    /// A dispatcher whose tasks end with `stop`. `notifier` hears of those whom a message did not find.
    pub(crate) fn start(
        gateways: Gateways,
        notifier: Option<Arc<Notifier>>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let dispatcher = Arc::new(Self {
            outlets: RwLock::new(HashMap::new()),
            gateways,
            meters: Arc::new(PushMeters::new()),
            notifier,
            stop: stop.clone(),
        });
        let follower = dispatcher.clone();
        tokio::spawn(async move { stop.run_until_cancelled(follower.follow()).await });
        dispatcher
    }

    /// Hands over the pushes that the answers of a call ask for. Never blocks.
    pub(crate) fn push_all<'a>(
        self: &Arc<Self>,
        answered: impl Iterator<Item = (&'a enqueue_request::Item, &'a enqueue_response::Result)>,
    ) {
        for (item, result) in answered {
            for (gateway, push) in pushes(item, result) {
                self.push(gateway, push);
            }
        }
    }

    fn push(self: &Arc<Self>, gateway: GatewayKey, push: Push) {
        let known = self.outlets.read().get(&gateway).cloned();
        match known.or_else(|| self.outlet(gateway)) {
            Some(outlet) => outlet.push(push),
            None => self.meters.dropped.increment(1),
        }
    }

    /// Opens an outlet to each live gateway as soon as the watch shows it.
    async fn follow(self: Arc<Self>) {
        let mut gateways = self.gateways.clone();
        loop {
            let live = gateways.borrow_and_update().clone();
            for gateway in live.iter() {
                self.outlet(key(gateway));
            }
            if gateways.changed().await.is_err() {
                return;
            }
        }
    }

    /// The outlet of a gateway, made if there is none; `None` when there are too many.
    fn outlet(self: &Arc<Self>, gateway: GatewayKey) -> Option<Arc<Outlet>> {
        let mut outlets = self.outlets.write();
        if let Some(outlet) = outlets.get(&gateway) {
            return Some(outlet.clone());
        }
        if outlets.len() >= GATEWAYS_MAX || self.stop.is_cancelled() {
            return None;
        }
        let outlet = Outlet::new(self.meters.clone(), self.notifier.clone());
        outlets.insert(gateway, outlet.clone());
        drop(outlets);
        let (dispatcher, kept) = (self.clone(), outlet.clone());
        tokio::spawn(async move {
            let stop = dispatcher.stop.clone();
            let _ = stop.run_until_cancelled(dispatcher.keep(gateway, &kept)).await;
            kept.close();
            dispatcher.outlets.write().remove(&gateway);
        });
        Some(outlet)
    }

    /// For as long as this life of the gateway lasts.
    async fn keep(&self, gateway: GatewayKey, outlet: &Arc<Outlet>) {
        let mut gateways = self.gateways.clone();
        let shown = gateways.wait_for(|live| find(live, gateway).is_some());
        let address = match timeout(GATEWAY_UNKNOWN_MAX, shown).await {
            Ok(Ok(live)) => match find(&live, gateway) {
                Some(info) => info.address.clone(),
                None => return,
            },
            Ok(Err(_)) | Err(_) => return,
        };
        tokio::select! {
            () = outlet.keep(&address) => {}
            _ = gateways.wait_for(|live| find(live, gateway).is_none()) => {}
        }
    }
}

fn key(gateway: &GatewayInfo) -> GatewayKey {
    GatewayKey { gateway_id: gateway.gateway_id, incarnation: gateway.incarnation }
}

fn find(live: &[GatewayInfo], gateway: GatewayKey) -> Option<&GatewayInfo> {
    live.iter().find(|info| key(info) == gateway)
}
