//! C14: how long a shard takes no writes after the node that leads most was killed with SIGKILL.
//!
//! Three stores as processes of their own with default settings and 16 shards. One user of each shard
//! is written to, one message after the other. A kill counts until every shard has acknowledged a
//! write that was begun after it. Beside it etcd on three nodes, whose leader is killed under one
//! writer.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use switchboard_api::{
    shard_of,
    v1::{DeviceRef, ItemStatus, enqueue_request::Item},
};
use switchboard_sdk::{Client, ClientOptions};
use tokio::sync::oneshot;

use super::Row;
use crate::{
    cluster::Cluster,
    entry::{Bar, Better, Entry},
    peers::etcd,
    run::Run,
};

pub(super) const ROW: Row = Row { id: "C14", title: "failover", measure, probes: &[] };

const KILLS: u64 = 20;
const PEER_KILLS: u64 = 5;
const SHARDS: u32 = 16;
/// Pause between two writes, or two tries of one: what the measurement is exact to.
const PAUSE: Duration = Duration::from_millis(5);
/// Time for leaders to go back to where they belong before the next kill.
const CALM: Duration = Duration::from_secs(2);
const WRITES_WITHIN: Duration = Duration::from_secs(60);
const PEER: &str = "etcd, three nodes";

fn measure(run: &Run) -> Result<Vec<Entry>> {
    let kills = run.scaled(KILLS).max(1);
    run.say(format!("C14: {kills} kills"));
    let cluster = Cluster::start::<3>(run, SHARDS)?;
    let ours = Gaps::of(tokio::runtime::Runtime::new()?.block_on(failover(cluster, kills))?)?;
    run.say("C14: etcd");
    let etcd = peer(run.scratch()?.path(), run.scaled(PEER_KILLS).max(1))?;
    let entry = |id: &str, what: String, own: f64, bar: f64, other: Option<f64>| {
        Entry::new(id, what, own, "ms", Better::Less).bar(Bar::AtMost(bar)).peer(PEER, other)
    };
    let median = format!("writes again in all shards after a kill, median of {kills}");
    Ok(vec![
        entry("C14.median", median, ours.median_ms, 800.0, etcd.as_ref().map(|e| e.median_ms)),
        entry("C14.worst", "the worst".into(), ours.worst_ms, 1_500.0, etcd.map(|e| e.worst_ms)),
    ])
}

/// What kills came to.
struct Gaps {
    median_ms: f64,
    worst_ms: f64,
}

impl Gaps {
    fn of(mut each: Vec<Duration>) -> Result<Self> {
        each.sort_unstable();
        let ms = |gap: Option<&Duration>| gap.map(|gap| gap.as_secs_f64() * 1e3);
        let median_ms = ms(each.get(each.len() / 2)).context("no kill was made")?;
        Ok(Self { median_ms, worst_ms: ms(each.last()).unwrap_or(median_ms) })
    }
}

fn peer(dir: &Path, kills: u64) -> Result<Option<Gaps>> {
    etcd::failover(dir, kills)?.map(Gaps::of).transpose()
}

async fn failover(mut cluster: Cluster, kills: u64) -> Result<Vec<Duration>> {
    let addresses: Vec<String> = cluster.store().split(',').map(str::to_owned).collect();
    let client = Client::connect(&addresses, ClientOptions::default())?;
    client.ready(WRITES_WITHIN).await?;
    let start = Instant::now();
    let begun: Vec<Arc<AtomicU64>> = (0..SHARDS).map(|_| Arc::default()).collect();
    let writers: Vec<_> = begun
        .iter()
        .zip(users())
        .map(|(begun, user)| tokio::spawn(write(client.clone(), user, start, begun.clone())))
        .collect();
    let mut took = Vec::new();
    for _ in 0..kills {
        tokio::time::sleep(CALM).await;
        let node = leading_most(&client).await?;
        let killed = start.elapsed();
        cluster.kill(node)?;
        let dead_us = killed.as_micros() as u64;
        while begun.iter().any(|begun| begun.load(Ordering::Acquire) <= dead_us) {
            ensure!(start.elapsed() < killed + WRITES_WITHIN, "a shard takes no writes any more");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took.push(start.elapsed() - killed);
        cluster.restart(node)?;
    }
    for writer in writers {
        writer.abort();
    }
    Ok(took)
}

/// One user of every shard.
fn users() -> impl Iterator<Item = String> {
    (0..SHARDS).filter_map(|shard| {
        (0..).map(|n| format!("user-{n}")).find(|user| shard_of(user.as_bytes(), SHARDS) == shard)
    })
}

/// Writes to one user, for ever; when the last write that was acknowledged had begun.
async fn write(client: Client, user: String, start: Instant, begun_us: Arc<AtomicU64>) {
    let device = |user: &str| Some(DeviceRef { user: user.to_owned().into(), device: 1 });
    let mut n = 1_u128;
    loop {
        let begun = start.elapsed();
        let item = Item {
            to: device(&user),
            from: device("writer"),
            message_id: n.to_be_bytes().to_vec().into(),
            ..Item::default()
        };
        // One try, as chat makes them: the SDK sends nothing again by itself.
        let (done, answered) = oneshot::channel();
        let handed_over = client.enqueue_then(vec![item], |answers| drop(done.send(answers)));
        let Ok(answers) = answered.await else { return };
        if handed_over.is_ok()
            && matches!(answers[0].status(), ItemStatus::Ok | ItemStatus::Duplicate)
        {
            begun_us.store(begun.as_micros() as u64, Ordering::Release);
            n += 1;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn leading_most(client: &Client) -> Result<u64> {
    let nodes = client.list_nodes().await?;
    let leads = nodes.iter().map(|node| {
        let id = node.node.as_ref().map_or(0, |node| node.node_id);
        let shards = node.status.iter().flat_map(|status| &status.shards);
        (shards.filter(|shard| shard.leader_node_id == id).count(), id)
    });
    leads.max().map(|(_, id)| id).context("no node is known")
}
