//! A store in memory for tests of clients: it can be killed and started again, with what it had
//! stored, and it can die between storing and answering. It knows nothing of shards or logs.

#![allow(dead_code, reason = "each test uses a part")]

mod services;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use switchboard_api::v1::{
    GatewayInfo, ItemStatus, Message, SessionInfo, cluster_service_server::ClusterServiceServer,
    enqueue_request, enqueue_response, gateway_service_server::GatewayServiceServer,
    mailbox_service_server::MailboxServiceServer, session_service_server::SessionServiceServer,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
};
use tonic::transport::{Server, server::TcpIncoming};

/// What survives a kill.
#[derive(Default)]
pub(crate) struct Stored {
    /// By user; every user has device 1 only.
    pub(crate) mailboxes: HashMap<Bytes, Vec<Message>>,
    /// By sender and message id.
    pub(crate) seen: HashMap<(Bytes, Bytes), u64>,
    pub(crate) sessions: HashMap<Bytes, SessionInfo>,
    pub(crate) gateways: Vec<GatewayInfo>,
    pub(crate) duplicates: usize,
    next: u64,
}

impl Stored {
    pub(crate) fn position(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn enqueue(&mut self, item: enqueue_request::Item) -> enqueue_response::Result {
        let (Some(to), Some(from)) = (item.to.clone(), item.from.clone()) else {
            return result(ItemStatus::Invalid);
        };
        let key = (from.user.clone(), item.message_id.clone());
        let sessions = self.sessions.get(&to.user).cloned().into_iter().collect();
        if let Some(seq) = self.seen.get(&key).copied() {
            self.duplicates += 1;
            let stored = stored(seq, 0, ItemStatus::Duplicate);
            return enqueue_response::Result { stored, sessions, ..result(ItemStatus::Duplicate) };
        }
        let seq = self.position();
        self.seen.insert(key, seq);
        let mailbox = self.mailboxes.entry(to.user).or_default();
        let prev_seq = mailbox.last().map_or(0, |message| message.seq);
        mailbox.push(Message {
            message_id: item.message_id,
            from: Some(from),
            seq,
            prev_seq,
            enqueued_at_ms: seq,
            expires_at_ms: u64::MAX,
            kind: item.kind,
            body: item.body,
        });
        let stored = stored(seq, prev_seq, ItemStatus::Ok);
        enqueue_response::Result { stored, sessions, enqueued_at_ms: seq, ..result(ItemStatus::Ok) }
    }
}

fn stored(seq: u64, prev_seq: u64, status: ItemStatus) -> Vec<enqueue_response::Stored> {
    vec![enqueue_response::Stored { device: 1, seq, prev_seq, status: status.into() }]
}

pub(crate) fn result(status: ItemStatus) -> enqueue_response::Result {
    enqueue_response::Result { status: status.into(), ..Default::default() }
}

/// What the services share.
pub(crate) struct Shared {
    pub(crate) stored: Mutex<Stored>,
    /// Raised at each change of `gateways`.
    pub(crate) gateways_version: watch::Sender<u64>,
    /// How many items are stored before the store goes mute: it stores and answers nothing more,
    /// the item that reached zero included. `usize::MAX`: never.
    pub(crate) items_left: AtomicUsize,
    /// Wakes who waits for the store to go mute.
    pub(crate) mute: watch::Sender<bool>,
    pub(crate) lease_ms: u64,
    pub(crate) address: SocketAddr,
    /// Where another node is that leads the odd shards, as the shard map says.
    pub(crate) other: Mutex<Option<String>>,
    /// Itself, for streams that outlive a call.
    pub(crate) this: Weak<Self>,
}

impl Shared {
    /// Stores a batch; `None` when the store went mute before or in it.
    pub(crate) fn enqueue(
        &self,
        items: Vec<enqueue_request::Item>,
    ) -> Option<Vec<enqueue_response::Result>> {
        let mut stored = self.stored.lock();
        let mut results = Vec::new();
        for item in items {
            if *self.mute.borrow() {
                return None;
            }
            results.push(stored.enqueue(item));
            if self.items_left.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.mute.send_replace(true);
            }
        }
        (!*self.mute.borrow()).then_some(results)
    }

    pub(crate) fn change_gateways(&self, change: impl FnOnce(&mut Stored)) {
        change(&mut self.stored.lock());
        self.gateways_version.send_modify(|version| *version += 1);
    }
}

/// A node that takes connections and never says anything, and its address.
pub(crate) fn silent_node() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Passes bytes on between clients and a store until it is cut: then it keeps its connections, and is silent.
pub(crate) struct Cable {
    pub(crate) address: String,
    cut: watch::Sender<bool>,
}

impl Cable {
    pub(crate) async fn to(store: &FakeStore) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (cut, is_cut) = watch::channel(false);
        let store = store.shared.address;
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut is_cut = is_cut.clone();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(store).await.unwrap();
                    let is_cut = async { is_cut.wait_for(|cut| *cut).await.is_ok() };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
                        _ = is_cut => {}
                    }
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { address, cut }
    }

    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }
}

/// A store with its address, running or killed.
pub(crate) struct FakeStore {
    pub(crate) shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl FakeStore {
    pub(crate) async fn start() -> Self {
        Self::with_lease(60_000).await
    }

    pub(crate) async fn with_lease(lease_ms: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut store = Self {
            shared: Arc::new_cyclic(|this| Shared {
                stored: Mutex::default(),
                gateways_version: watch::Sender::new(0),
                items_left: AtomicUsize::new(usize::MAX),
                mute: watch::Sender::new(false),
                lease_ms,
                address,
                other: Mutex::default(),
                this: this.clone(),
            }),
            runtime: None,
        };
        store.restart();
        store
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        vec![self.shared.address.to_string()]
    }

    /// Ends everything at once: no answer, no goodbye; sockets are closed.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// The store goes mute after so many more items.
    pub(crate) fn mute_after(&self, items: usize) {
        self.shared.items_left.store(items, Ordering::Relaxed);
    }

    pub(crate) async fn is_mute(&self) {
        self.shared.mute.subscribe().wait_for(|mute| *mute).await.unwrap();
    }

    /// Starts the store, on the address it had, with what it had stored.
    pub(crate) fn restart(&mut self) {
        self.shared.items_left.store(usize::MAX, Ordering::Relaxed);
        self.shared.mute.send_replace(false);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let shared = self.shared.clone();
        runtime.spawn(async move {
            // The sockets of the life before may take a moment to go.
            let listener = loop {
                match TcpListener::bind(shared.address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                }
            };
            Server::builder()
                .add_service(MailboxServiceServer::from_arc(shared.clone()))
                .add_service(SessionServiceServer::from_arc(shared.clone()))
                .add_service(GatewayServiceServer::from_arc(shared.clone()))
                .add_service(ClusterServiceServer::from_arc(shared.clone()))
                .serve_with_incoming(TcpIncoming::from(listener))
                .await
                .unwrap();
        });
        self.runtime = Some(runtime);
    }

    /// The bodies in a mailbox, in order.
    pub(crate) fn bodies(&self, user: &str) -> Vec<Bytes> {
        let stored = self.shared.stored.lock();
        let mailbox = stored.mailboxes.get(user.as_bytes());
        mailbox.into_iter().flatten().map(|message| message.body.clone()).collect()
    }
}

impl Drop for FakeStore {
    fn drop(&mut self) {
        self.kill();
    }
}
