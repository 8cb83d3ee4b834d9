//! How long etcd takes no writes after its leader was killed with SIGKILL.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use super::{Cluster, LEADER_WITHIN, PutRequest, PutResponse, call};

/// An attempt that takes longer is made again at the next server, as etcd's client would.
const ATTEMPT_MAX: Duration = Duration::from_millis(250);
/// Pause between two writes, or two attempts: what the measurement is exact to.
const PAUSE: Duration = Duration::from_millis(5);
/// Time to settle before a kill.
const CALM: Duration = Duration::from_secs(2);

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// How long each of so many kills was felt: from the kill until a write is acknowledged that was begun
/// after it. `None`: not installed.
pub fn failover(dir: &Path, kills: u64) -> Result<Option<Vec<Duration>>> {
    let Some(mut cluster) = Cluster::start(dir)? else { return Ok(None) };
    let runtime = tokio::runtime::Runtime::new()?;
    let channels: Vec<Channel> = {
        let _inside = runtime.enter();
        let endpoints = cluster.clients.iter().map(|at| {
            let endpoint = Endpoint::from_shared(format!("http://{at}"))?.tcp_nodelay(true);
            Ok(endpoint.connect_lazy())
        });
        endpoints.collect::<Result<_>>()?
    };
    let (start, begun) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let writing = runtime.spawn(write(channels.clone(), start, begun.clone()));
    let mut took = Vec::new();
    for _ in 0..kills {
        std::thread::sleep(CALM);
        let leader = runtime.block_on(leader(&channels))?;
        let killed = start.elapsed();
        cluster.servers[leader].kill()?;
        while begun.load(Ordering::Acquire) <= killed.as_micros() as u64 {
            ensure!(start.elapsed() < killed + LEADER_WITHIN, "etcd takes no writes any more");
            std::thread::sleep(Duration::from_millis(1));
        }
        took.push(start.elapsed() - killed);
        cluster.restart(leader)?;
    }
    writing.abort();
    Ok(Some(took))
}

/// Writes one after the other, for ever; when the last one that was acknowledged had begun.
async fn write(channels: Vec<Channel>, start: Instant, begun_us: Arc<AtomicU64>) {
    let mut at = 0;
    loop {
        let begun = start.elapsed();
        let put = PutRequest { key: b"probe".to_vec(), value: vec![b'v'; 48], lease: 0 };
        let put = call::<_, PutResponse>(&channels[at], "/etcdserverpb.KV/Put", put);
        match timeout(ATTEMPT_MAX, put).await {
            Ok(Ok(_)) => begun_us.store(begun.as_micros() as u64, Ordering::Release),
            Ok(Err(_)) | Err(_) => at = (at + 1) % channels.len(),
        }
        sleep(PAUSE).await;
    }
}

/// Which server leads.
async fn leader(channels: &[Channel]) -> Result<usize> {
    let started = Instant::now();
    while started.elapsed() < LEADER_WITHIN {
        for (at, channel) in channels.iter().enumerate() {
            let status = call(channel, "/etcdserverpb.Maintenance/Status", StatusRequest {});
            if let Ok(Ok(StatusResponse { header: Some(header), leader })) =
                timeout(ATTEMPT_MAX, status).await
                && header.member_id == leader
            {
                return Ok(at);
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
    None.context("etcd has no leader")
}
