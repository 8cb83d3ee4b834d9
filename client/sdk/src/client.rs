//! The client: every call of the store that a gateway, a chat or an application makes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use switchboard_api::{
    limits, v1,
    v1::{
        DeviceRef, ItemStatus, Read, ack_request, ack_response, claim_request, claim_response,
        enqueue_request, enqueue_response, locate_response, register_request, release_request,
        release_response, stat_request, stat_response, unregister_request, unregister_response,
    },
    validate,
};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::DropGuard;

use crate::{
    ClientOptions, Error, SessionWatch,
    batch::batch,
    calls::{Enqueue, Locate},
    core::{Core, Repeat},
    error,
    gateways::GatewayWatches,
    lane::{Answers, Call as _},
    locate, resend,
    route::{Merge, Part, split},
};

/// What `locate` found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Located {
    /// One per user, in the order asked.
    pub results: Vec<locate_response::Result>,
    /// An upper bound on the age of what was read; 0 for LEASE and LINEARIZABLE.
    pub staleness_ms: u64,
}

/// A client of the store. Cheap to clone; its tasks end with the last clone.
///
/// Calls go straight to the leader of each user's shard, by the shard map, which is watched. The
/// connections are made when they are needed and again, for ever, when they break. A batch has at
/// most 1,024 items and answers item by item: `OVERLOADED` means that nothing happened,
/// `UNAVAILABLE` that the outcome is not known.
///
/// Calls are retried inside, with jittered exponential backoff, until the deadline, as long as the
/// retry budget lasts. `enqueue`, `enqueue_then` and `locate` are pipelined over one long-lived stream
/// per node; of these, `enqueue` alone is retried: whoever keeps several batches under way decides
/// himself what has to wait for one that is sent again.
///
/// ```no_run
/// use switchboard_api::v1::{DeviceRef, Read, enqueue_request::Item};
/// use switchboard_sdk::{Client, ClientOptions};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), switchboard_sdk::Error> {
/// let client = Client::connect(&["127.0.0.1:7400".to_owned()], ClientOptions::default())?;
/// let to = DeviceRef { user: "bob".into(), device: 0 };
/// let from = DeviceRef { user: "alice".into(), device: 1 };
/// let item = Item {
///     to: Some(to),
///     from: Some(from),
///     message_id: vec![7; 16].into(),
///     body: "hello".into(),
///     ..Item::default()
/// };
/// let results = client.enqueue(vec![item]).await?;
/// println!("{:?}, pushed to {} sessions", results[0].status(), results[0].sessions.len());
/// let located = client.locate(vec!["bob".into()], Read::Lease).await?;
/// println!("bob is at {:?}", located.results[0].sessions);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
    watches: Arc<GatewayWatches>,
    _stop: Arc<DropGuard>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// A client that starts from the given `host:port` addresses of store nodes. Returns at once,
    /// whether or not a node can be reached; see [`Client::ready`].
    ///
    /// # Errors
    /// `Rejected` for no address or a malformed one.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(addresses: &[String], options: ClientOptions) -> Result<Self, Error> {
        validate::at_most("addresses", addresses.len(), crate::limits::SEEDS_MAX)?;
        let core = Core::start(addresses, options)?;
        let stop = core.stop.clone().drop_guard();
        let watches = Arc::new(GatewayWatches::new(core.clone()));
        Ok(Self { core, watches, _stop: Arc::new(stop) })
    }

    /// Waits until the shard map is known, that is, until a node has answered.
    pub async fn ready(&self, wait_max: Duration) -> Result<(), Error> {
        let mut map = self.core.map();
        let known = timeout(wait_max, map.wait_for(Option::is_some)).await;
        match known {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Retryable {
                reason: error::NO_CONNECTION.to_owned(),
                retry_after: self.core.options.backoff_max,
                message: "no store node answers".to_owned(),
            }),
        }
    }

    /// Records that devices are connected to a gateway now. See `SessionService.Claim`.
    pub async fn claim(
        &self,
        gateway_id: u32,
        incarnation: u64,
        items: Vec<claim_request::Item>,
    ) -> Result<Vec<claim_response::Result>, Error> {
        batch(
            &self.core,
            items,
            |item| user_of(item.device.as_ref()),
            |node, items| async move {
                let request = v1::ClaimRequest { items, gateway_id, incarnation };
                Ok(node.sessions().claim(request).await?.into_inner().results)
            },
            |status| claim_response::Result { status: status.into(), ..Default::default() },
        )
        .await
    }

    /// Ends sessions, each if its epoch is still the one given. See `SessionService.Release`.
    pub async fn release(
        &self,
        items: Vec<release_request::Item>,
    ) -> Result<Vec<release_response::Result>, Error> {
        batch(
            &self.core,
            items,
            |item| user_of(item.device.as_ref()),
            |node, items| async move {
                let request = v1::ReleaseRequest { items };
                Ok(node.sessions().release(request).await?.into_inner().results)
            },
            |status| release_response::Result { status: status.into() },
        )
        .await
    }

    /// Removes devices with session and mailbox. See `SessionService.Unregister`.
    pub async fn unregister(
        &self,
        items: Vec<unregister_request::Item>,
    ) -> Result<Vec<unregister_response::Result>, Error> {
        batch(
            &self.core,
            items,
            |item| user_of(item.device.as_ref()),
            |node, items| async move {
                let request = v1::UnregisterRequest { items };
                Ok(node.sessions().unregister(request).await?.into_inner().results)
            },
            |status| unregister_response::Result { status: status.into() },
        )
        .await
    }

    /// Removes messages from mailboxes. See `MailboxService.Ack`.
    pub async fn ack(
        &self,
        items: Vec<ack_request::Item>,
    ) -> Result<Vec<ack_response::Result>, Error> {
        batch(
            &self.core,
            items,
            |item| user_of(item.device.as_ref()),
            |node, items| async move {
                let request = v1::AckRequest { items };
                Ok(node.mailboxes().ack(request).await?.into_inner().results)
            },
            |status| ack_response::Result { status: status.into(), ack_floor: 0 },
        )
        .await
    }

    /// The state of mailboxes. See `MailboxService.Stat`.
    pub async fn stat(
        &self,
        items: Vec<stat_request::Item>,
    ) -> Result<Vec<stat_response::Result>, Error> {
        batch(
            &self.core,
            items,
            |item| user_of(item.device.as_ref()),
            |node, items| async move {
                let request = v1::StatRequest { items };
                Ok(node.mailboxes().stat(request).await?.into_inner().results)
            },
            |status| stat_response::Result { status: status.into(), ..Default::default() },
        )
        .await
    }

    /// Stores messages and looks their recipients up, in one step. Items for one shard are stored
    /// in the order given. Items that nobody answers, as while a shard has no leader, are sent again
    /// inside, by their message ids; one that had been stored by then is answered `DUPLICATE`. An item
    /// answered `UNAVAILABLE` in the end may have been stored: send it again with the same message id.
    ///
    /// # Errors
    /// `Rejected` for more than 1,024 items or 4 MiB.
    pub async fn enqueue(
        &self,
        items: Vec<enqueue_request::Item>,
    ) -> Result<Vec<enqueue_response::Result>, Error> {
        let Core { options, budget, .. } = &*self.core;
        let map = self.core.map();
        resend::enqueue(items, options, budget, map, |items| self.enqueue_once(items)).await
    }

    async fn enqueue_once(
        &self,
        items: Vec<enqueue_request::Item>,
    ) -> Result<Vec<enqueue_response::Result>, Error> {
        let (done, answers) = tokio::sync::oneshot::channel();
        self.enqueue_then(items, |answers| {
            // The caller may have gone; then nobody waits for the answers.
            let _ = done.send(answers);
        })?;
        answers.await.map_err(|_| Error::OutcomeUnknown { message: "the client has ended".into() })
    }

    /// Like [`Client::enqueue`], for callers that keep many batches under way, and without sending
    /// anything again: hands the items over before it returns, so the order of calls is the order on the stream to a node. `done` is
    /// called exactly once with one result per item, on a task of the client, in the order in which
    /// the node answers; when the items are refused at once, before this returns. It must not
    /// block.
    ///
    /// # Errors
    /// `Rejected` for more than 1,024 items or 4 MiB; then `done` is not called.
    pub fn enqueue_then(
        &self,
        items: Vec<enqueue_request::Item>,
        done: impl FnOnce(Vec<enqueue_response::Result>) + Send + 'static,
    ) -> Result<(), Error> {
        validate::items(items.len())?;
        validate::request_bytes(items.iter().map(Enqueue::item_bytes).sum())?;
        let mut parts = split(&self.core.routes(), items, 0, |item| user_of(item.to.as_ref()));
        match parts.len() {
            0 => done(Vec::new()),
            1 => {
                let Part { node, items, .. } = parts.remove(0);
                node.enqueue.submit((), items, Box::new(|answers| done(answers.answers)));
            }
            _ => {
                let count = parts.iter().map(|part| part.items.len()).sum();
                let merge = Merge::new(count, parts.len());
                let whole = Arc::new(Mutex::new(Some((merge, done))));
                for Part { node, items, places } in parts {
                    let whole = whole.clone();
                    let part_done = move |answers: Answers<_>| {
                        let mut guard = whole.lock();
                        let complete = guard
                            .as_mut()
                            .is_some_and(|(merge, _)| merge.add(&places, answers.answers));
                        let finished = if complete { guard.take() } else { None };
                        drop(guard);
                        if let Some((merge, done)) = finished {
                            done(merge.finish(|| Enqueue::refused(ItemStatus::Unavailable)));
                        }
                    };
                    node.enqueue.submit((), items, Box::new(part_done));
                }
            }
        }
        Ok(())
    }

    /// Deals items out by the node that takes them now, for callers that want each node's answers
    /// without waiting for another's. The items of one user stay together and in order.
    pub fn by_node<T>(&self, items: Vec<T>, user: impl Fn(&T) -> &[u8]) -> Vec<Vec<T>> {
        split(&self.core.routes(), items, 0, user).into_iter().map(|part| part.items).collect()
    }

    /// The live sessions and registered devices of users. See `SessionService.Locate`. Users whose
    /// node gave no answer have the status `UNAVAILABLE` or `OVERLOADED`. A LOCAL read asks every
    /// other node, once, for those of whom a node cannot tell.
    ///
    /// # Errors
    /// `Rejected` for more than 1,024 users.
    pub async fn locate(&self, users: Vec<Bytes>, read: Read) -> Result<Located, Error> {
        validate::at_most("users", users.len(), limits::ITEMS_PER_BATCH_MAX)?;
        let (count, routes) = (users.len(), self.core.routes());
        let parts = split(&routes, users, 0, |user| user);
        let mut merge = Merge::new(count, parts.len());
        let waiting = parts.into_iter().map(|part| locate::part(&self.core, &routes, part, read));
        let mut staleness_ms = 0;
        for (places, found) in join_all(waiting).await {
            staleness_ms = staleness_ms.max(found.staleness_ms);
            merge.add(&places, found.answers);
        }
        let missing = || Locate::refused(ItemStatus::Unavailable);
        Ok(Located { results: merge.finish(missing), staleness_ms })
    }

    /// A page of waiting messages. See `MailboxService.Fetch`.
    pub async fn fetch(&self, request: v1::FetchRequest) -> Result<v1::FetchResponse, Error> {
        self.core
            .retrying(Repeat::Harmless, |attempt| {
                let routes = self.core.routes();
                let node = routes.for_user(user_of(request.device.as_ref()), attempt).clone();
                let (mut mailboxes, request) = (node.mailboxes(), request.clone());
                (node, async move { Ok(mailboxes.fetch(request).await?.into_inner()) })
            })
            .await
    }

    /// Empties a mailbox, for operators. See `MailboxService.Purge`.
    pub async fn purge(
        &self,
        device: DeviceRef,
        reason: impl Into<String>,
    ) -> Result<v1::PurgeResponse, Error> {
        let request = v1::PurgeRequest { device: Some(device), reason: reason.into() };
        self.core
            .retrying(Repeat::Harmful, |attempt| {
                let routes = self.core.routes();
                let node = routes.for_user(user_of(request.device.as_ref()), attempt).clone();
                let (mut mailboxes, request) = (node.mailboxes(), request.clone());
                (node, async move { Ok(mailboxes.purge(request).await?.into_inner()) })
            })
            .await
    }

    /// The shard map, asked for anew. See `ClusterService.ShardMap`.
    pub async fn shard_map(&self) -> Result<v1::ShardMapResponse, Error> {
        self.core
            .retrying(Repeat::Harmless, |attempt| {
                let node = self.core.routes().any(attempt).clone();
                let mut cluster = node.cluster();
                (node, async move {
                    Ok(cluster.shard_map(v1::ShardMapRequest {}).await?.into_inner())
                })
            })
            .await
    }

    /// What one node knows of the cluster and of itself. See `ClusterService.Status`.
    pub async fn status(&self) -> Result<v1::StatusResponse, Error> {
        self.core
            .retrying(Repeat::Harmless, |attempt| {
                let node = self.core.routes().any(attempt).clone();
                let mut cluster = node.cluster();
                (node, async move { Ok(cluster.status(v1::StatusRequest {}).await?.into_inner()) })
            })
            .await
    }

    /// Gateway or chat processes. See `GatewayService.List`.
    pub async fn list_gateways(
        &self,
        kind: register_request::Kind,
        include_ended: bool,
    ) -> Result<Vec<v1::GatewayInfo>, Error> {
        let request = v1::ListRequest { kind: kind.into(), include_ended };
        self.core
            .retrying(Repeat::Harmless, |attempt| {
                let node = self.core.routes().any(attempt).clone();
                let mut gateways = node.gateways();
                (node, async move { Ok(gateways.list(request).await?.into_inner().gateways) })
            })
            .await
    }

    /// The live gateway or chat processes, kept up to date in the background for as long as the
    /// client lives; empty until the store has answered. All receivers of a kind share one stream.
    #[must_use]
    pub fn watch_gateways(
        &self,
        kind: register_request::Kind,
    ) -> watch::Receiver<Arc<Vec<v1::GatewayInfo>>> {
        self.watches.watch(kind)
    }

    /// Changes of sessions, of some users or of one gateway, from now on or from where an earlier
    /// watch ended. See `SessionService.Watch`.
    ///
    /// # Errors
    /// `Rejected` for more than 1,024 users.
    pub fn watch_sessions(&self, request: v1::WatchRequest) -> Result<SessionWatch, Error> {
        validate::at_most("users", request.users.len(), limits::WATCH_USERS_MAX)?;
        Ok(SessionWatch::start(self.core.clone(), request))
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

/// An item without a device goes anywhere; the store says what is wrong with it.
fn user_of(device: Option<&DeviceRef>) -> &[u8] {
    device.map_or(&[], |device| &device.user)
}
