//! etcd as processes of its own: what a session directory on three machines would be without ours.
//!
//! A put of 48 bytes, attached to one of a hundred leases as sessions to gateways. The client speaks
//! the two calls of etcd's gRPC interface that this takes; their messages are written out here, so
//! that no generated code is needed.

mod failover;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use tonic::{
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

use crate::{
    measure::cpu_seconds,
    processes::{Server, free_addresses},
    workload::scatter,
};

pub use failover::failover;

const CONNECTIONS: usize = 8;
/// Puts under way at a time: with as many etcd is at its fastest here.
const UNDER_WAY: u64 = 256;
const LEASES: u64 = 100;
const VALUE_BYTES: usize = 48;
const KEYS: u64 = 1_000_000;
const LEADER_WITHIN: Duration = Duration::from_secs(30);

/// What putting came to.
#[derive(Clone, Copy, Debug)]
pub struct Puts {
    /// Puts acknowledged a second.
    pub per_second: f64,
    /// CPU of all servers a put.
    pub cpu_us: f64,
}

/// Puts into three servers for so long. `None`: not installed.
pub fn put(dir: &Path, length: Duration) -> Result<Option<Puts>> {
    let Some(cluster) = Cluster::start(dir)? else { return Ok(None) };
    let runtime = tokio::runtime::Runtime::new()?;
    let leases = runtime.block_on(grant(cluster.clients[0]))?;
    runtime.block_on(load(&cluster.clients, &leases, length / 4))?;
    let cpu =
        || cluster.servers.iter().map(|server| cpu_seconds(server.pid())).sum::<Result<f64>>();
    let before = cpu()?;
    let started = Instant::now();
    let puts = runtime.block_on(load(&cluster.clients, &leases, length))? as f64;
    let seconds = started.elapsed().as_secs_f64();
    let cpu_us = (cpu()? - before) * 1e6 / puts;
    Ok(Some(Puts { per_second: puts / seconds, cpu_us }))
}

/// Three servers, and where their clients reach them.
struct Cluster {
    servers: Vec<Server>,
    clients: [SocketAddr; 3],
    peers: [SocketAddr; 3],
    dir: PathBuf,
}

impl Cluster {
    /// `None`: not installed.
    fn start(dir: &Path) -> Result<Option<Self>> {
        let (clients, peers) = (free_addresses()?, free_addresses()?);
        let mut cluster = Self { servers: Vec::new(), clients, peers, dir: dir.to_owned() };
        for node in 0..clients.len() {
            let Some(server) = cluster.start_node(node)? else { return Ok(None) };
            cluster.servers.push(server);
        }
        for (server, client) in cluster.servers.iter_mut().zip(clients) {
            server.wait_listening(client)?;
        }
        Ok(Some(cluster))
    }

    fn start_node(&self, node: usize) -> Result<Option<Server>> {
        let named = self.peers.iter().enumerate().map(|(node, at)| format!("e{node}=http://{at}"));
        let initial = named.collect::<Vec<_>>().join(",");
        let own = self.dir.join(format!("e{node}"));
        std::fs::create_dir_all(&own)?;
        let client_url = format!("http://{}", self.clients[node]);
        let peer_url = format!("http://{}", self.peers[node]);
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(own.join("data"));
        command.args(["--name", &format!("e{node}"), "--initial-cluster", &initial]);
        command.args(["--listen-client-urls", &client_url]);
        command.args(["--advertise-client-urls", &client_url]);
        command.args(["--listen-peer-urls", &peer_url]);
        command.args(["--initial-advertise-peer-urls", &peer_url]);
        command.args(["--initial-cluster-state", "new", "--log-level", "error"]);
        Server::start(&mut command, &own)
    }

    /// Starts a server again that was killed.
    fn restart(&mut self, node: usize) -> Result<()> {
        let mut server = self.start_node(node)?.context("etcd is gone")?;
        server.wait_listening(self.clients[node])?;
        self.servers[node] = server;
        Ok(())
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(int64, tag = "3")]
    lease: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    ttl: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    id: i64,
}

async fn connect(address: SocketAddr) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    Ok(endpoint.connect().await?)
}

async fn call<Q, A>(channel: &Channel, path: &'static str, request: Q) -> Result<A>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let codec = tonic_prost::ProstCodec::<Q, A>::default();
    let path = PathAndQuery::from_static(path);
    Ok(grpc.unary(tonic::Request::new(request), path, codec).await?.into_inner())
}

/// Leases, as soon as there is a leader to grant them.
async fn grant(address: SocketAddr) -> Result<Vec<i64>> {
    let channel = connect(address).await?;
    let started = Instant::now();
    let mut leases = Vec::new();
    while (leases.len() as u64) < LEASES {
        let request = LeaseGrantRequest { ttl: 86_400 };
        match call(&channel, "/etcdserverpb.Lease/LeaseGrant", request).await {
            Ok(LeaseGrantResponse { id }) => leases.push(id),
            Err(_) if started.elapsed() < LEADER_WITHIN => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error.context("etcd grants no lease")),
        }
    }
    Ok(leases)
}

async fn load(addresses: &[SocketAddr], leases: &[i64], length: Duration) -> Result<u64> {
    let mut channels = Vec::new();
    for nth in 0..CONNECTIONS {
        channels.push(connect(addresses[nth % addresses.len()]).await?);
    }
    let (next, end) = (Arc::new(AtomicU64::new(0)), Instant::now() + length);
    let leases: Arc<[i64]> = leases.into();
    let mut callers = Vec::new();
    for nth in 0..UNDER_WAY as usize {
        let (channel, next, leases) =
            (channels[nth % CONNECTIONS].clone(), next.clone(), leases.clone());
        callers.push(tokio::spawn(async move {
            let mut done = 0;
            while Instant::now() < end {
                let key = scatter(next.fetch_add(1, Ordering::Relaxed)) % KEYS;
                let lease = leases[(key % leases.len() as u64) as usize];
                let request = PutRequest {
                    key: format!("user:{key:012}").into_bytes(),
                    value: vec![b'v'; VALUE_BYTES],
                    lease,
                };
                let _: PutResponse = call(&channel, "/etcdserverpb.KV/Put", request).await?;
                done += 1;
            }
            anyhow::Ok(done)
        }));
    }
    let mut done: u64 = 0;
    for caller in callers {
        done += caller.await.map_err(|error| anyhow!("a caller ended: {error}"))??;
    }
    (done > 0).then_some(done).context("etcd took nothing")
}
