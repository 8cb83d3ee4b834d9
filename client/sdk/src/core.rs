//! What all clones of a client share, and the task that keeps the shard map.

use std::{collections::HashMap, future::Future, pin::pin, sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use switchboard_api::v1::{ShardMapResponse, WatchShardMapRequest};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{debug, warn};

use crate::{
    ClientOptions, Error, error,
    limits::{ATTEMPT_MIN, ATTEMPTS_PER_DEADLINE},
    node::Node,
    retry::{Backoff, Budget},
    route::Routes,
};

pub(crate) struct Core {
    pub(crate) options: ClientOptions,
    pub(crate) stop: CancellationToken,
    pub(crate) budget: Budget,
    seeds: Vec<Arc<Node>>,
    /// The seeds and the nodes of the map, by address, so that a map that changes keeps
    /// connections. A lock, because `Core` is shared; only the map's task uses it.
    nodes: Mutex<HashMap<String, Arc<Node>>>,
    routes: RwLock<Arc<Routes>>,
    refresh: Arc<Notify>,
    map: watch::Sender<Option<ShardMapResponse>>,
}

/// Whether a call that may already have happened may be made again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Yes, and on another node as soon as one is slow.
    Harmless,
    /// Yes, but it may take long by itself: only once it has failed.
    AfterFailure,
    Harmful,
}

impl Core {
    pub(crate) fn start(addresses: &[String], options: ClientOptions) -> Result<Arc<Self>, Error> {
        let (stop, refresh) = (CancellationToken::new(), Arc::new(Notify::new()));
        let mut nodes = HashMap::new();
        let mut seeds: Vec<Arc<Node>> = Vec::new();
        for address in addresses {
            if !nodes.contains_key(address) {
                let node = Arc::new(Node::new(address, &options, refresh.clone(), &stop)?);
                nodes.insert(address.clone(), node.clone());
                seeds.push(node);
            }
        }
        if seeds.is_empty() {
            return Err(Error::rejected("ADDRESS", "no store address is given"));
        }
        let core = Arc::new(Self {
            options,
            stop: stop.clone(),
            budget: Budget::new(),
            nodes: Mutex::new(nodes),
            routes: RwLock::new(Arc::new(Routes::seeds(seeds.clone()))),
            seeds,
            refresh,
            map: watch::Sender::new(None),
        });
        let keeper = core.clone();
        tokio::spawn(async move {
            let _ = stop.run_until_cancelled(keeper.keep_map()).await;
        });
        Ok(core)
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes.read().clone()
    }

    pub(crate) fn map(&self) -> watch::Receiver<Option<ShardMapResponse>> {
        self.map.subscribe()
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.options.backoff_base, self.options.backoff_max)
    }

    /// How long a node may take to answer before another is asked, if there is one.
    pub(crate) fn patience(&self) -> Duration {
        let deadline = self.options.deadline;
        if self.routes().is_single() {
            return deadline;
        }
        (deadline / ATTEMPTS_PER_DEADLINE).max(ATTEMPT_MIN)
    }

    /// Makes a call until it succeeds, is refused for good, or neither deadline nor budget allow
    /// another attempt. `call` gets the number of the attempt, to turn to another node. That happens
    /// to a harmless call when a node is slow, too; each next one is given more time, in case it is
    /// the store that is slow.
    pub(crate) async fn retrying<R, F>(
        &self,
        repeat: Repeat,
        mut call: impl FnMut(usize) -> (Arc<Node>, F),
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<R, Status>>,
    {
        let deadline = Instant::now() + self.options.deadline;
        let mut backoff = self.backoff();
        let mut patience = self.patience();
        // The last thing that a node said; that one could not be reached, while none has said anything.
        let mut told = None;
        for attempt in 0.. {
            let (node, answer) = call(attempt);
            let mut answer = pin!(answer);
            let until = deadline.min(Instant::now() + patience);
            let mut answered = timeout_at(until, answer.as_mut()).await;
            if answered.is_err() && until < deadline {
                if repeat != Repeat::AfterFailure {
                    node.health.silent();
                }
                if repeat == Repeat::Harmless && self.budget.spend() {
                    debug!(node = node.health.address(), attempt, "no answer for long");
                    patience *= 2;
                    continue;
                }
                answered = timeout_at(deadline, answer).await;
            }
            let status = match answered {
                Ok(Ok(answer)) => {
                    node.health.up();
                    self.budget.earn();
                    return Ok(answer);
                }
                Ok(Err(status)) => status,
                Err(_) if repeat == Repeat::Harmful => {
                    return Err(Error::OutcomeUnknown { message: silent(&node) });
                }
                Err(_) => return Err(told.unwrap_or_else(|| error::not_now("", silent(&node)))),
            };
            let connected = !error::never_sent(&status);
            let error = match connected {
                true => error::from_status(&status),
                false => error::no_connection(node.health.address(), &status),
            };
            let wait = match &error {
                Error::Rejected { .. } => return Err(error),
                Error::Retryable { retry_after, .. } if connected => {
                    backoff.next().max(*retry_after)
                }
                Error::OutcomeUnknown { .. } if repeat == Repeat::Harmful => {
                    node.health.down();
                    return Err(error);
                }
                Error::Retryable { .. } | Error::OutcomeUnknown { .. } => {
                    node.health.down();
                    backoff.next()
                }
            };
            node.health.changed();
            debug!(node = node.health.address(), attempt, %status, "a call failed");
            if connected || told.is_none() {
                told = Some(harmless(error, &status));
            }
            if Instant::now() + wait >= deadline || !self.budget.spend() {
                break;
            }
            sleep(wait).await;
        }
        Err(told.unwrap_or_else(|| error::not_now("", "the deadline has passed".to_owned())))
    }

    /// Watches the shard map on one node after another, for ever.
    async fn keep_map(&self) {
        let mut backoff = self.backoff();
        for attempt in 0.. {
            let node = self.routes().any(attempt).clone();
            match self.watch_map(&node).await {
                Ok(seen) => {
                    if seen {
                        backoff.reset();
                    }
                }
                Err(status) => {
                    debug!(node = node.health.address(), %status, "no shard map");
                }
            }
            sleep(backoff.next()).await;
        }
    }

    /// Until the stream ends or somebody asks for a fresh map; whether any map came.
    async fn watch_map(&self, node: &Node) -> Result<bool, Status> {
        let mut cluster = node.cluster();
        let opening = cluster.watch_shard_map(WatchShardMapRequest {});
        let Ok(opened) = timeout(self.options.connect_timeout, opening).await else {
            node.health.down();
            return Err(Status::deadline_exceeded("the node does not answer"));
        };
        let mut stream = opened?.into_inner();
        let mut seen = false;
        loop {
            tokio::select! {
                message = stream.message() => match message? {
                    Some(response) => {
                        if let Some(map) = response.map {
                            seen = true;
                            self.adopt(map);
                        }
                    }
                    None => return Ok(seen),
                },
                () = self.refresh.notified(), if seen => return Ok(seen),
            }
        }
    }

    fn adopt(&self, map: ShardMapResponse) {
        if !map.shards.is_power_of_two() {
            warn!(shards = map.shards, "a shard map without a power of two; left alone");
            return;
        }
        let mut nodes = self.nodes.lock();
        let routes = Routes::new(&map, &self.seeds, |address| {
            if let Some(node) = nodes.get(address) {
                return Some(node.clone());
            }
            let made = Node::new(address, &self.options, self.refresh.clone(), &self.stop);
            match made {
                Ok(node) => {
                    let node = Arc::new(node);
                    nodes.insert(address.to_owned(), node.clone());
                    Some(node)
                }
                Err(error) => {
                    warn!(address, %error, "the shard map names a node that cannot be reached");
                    None
                }
            }
        });
        let seeds = &self.seeds;
        nodes.retain(|address, _| {
            map.nodes.iter().any(|info| info.address == *address)
                || seeds.iter().any(|seed| seed.health.address() == address)
        });
        drop(nodes);
        *self.routes.write() = Arc::new(routes);
        self.map.send_replace(Some(map));
    }
}

fn silent(node: &Node) -> String {
    format!("the deadline has passed, and the node at {} has not answered", node.health.address())
}

/// A call that may be repeated without harm has no unknown outcome to worry about.
fn harmless(error: Error, status: &Status) -> Error {
    match error {
        Error::OutcomeUnknown { message } => error::not_now(&error::reason(status), message),
        other => other,
    }
}
