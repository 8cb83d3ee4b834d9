//! The node that leads most shards is killed with SIGKILL, again and again: every shard takes writes
//! again, and nothing that was acknowledged is lost. How long it took is printed; `scripts/failover`
//! runs it long enough to measure (`SWITCHBOARD_TEST_KILLS`, 1; `SWITCHBOARD_TEST_SHARDS`, 4), and
//! has it written to `SWITCHBOARD_TEST_JSON` as well.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use support::server::{addresses, cluster, environment};
use switchboard_api::shard_of;
use switchboard_api::v1::{DeviceRef, FetchRequest, ItemStatus, enqueue_request::Item};
use switchboard_sdk::{Client, ClientOptions};

/// Pause between two tries of a write: what the measurement is exact to.
const TRY_PAUSE: Duration = Duration::from_millis(5);

/// One user of every shard.
fn users(shards: u32) -> Vec<String> {
    let of = |shard| {
        (0..).map(|n| format!("user-{n}")).find(|u| shard_of(u.as_bytes(), shards) == shard)
    };
    (0..shards).filter_map(of).collect()
}

/// Writes to one user until it is told to stop; when the last write was acknowledged that was begun
/// after `since`, and how many were acknowledged.
struct Writer {
    user: String,
    /// Micros since the start at which the last acknowledged write was begun.
    begun_us: AtomicU64,
    acknowledged: AtomicU64,
}

impl Writer {
    async fn run(self: Arc<Self>, client: Client, start: Instant) {
        for n in 1_u64.. {
            loop {
                let begun = start.elapsed();
                let device = |user: &str| DeviceRef { user: user.to_owned().into(), device: 1 };
                let item = Item {
                    to: Some(device(&self.user)),
                    from: Some(device("writer")),
                    message_id: u128::from(n).to_be_bytes().to_vec().into(),
                    ..Item::default()
                };
                if is_stored(&client, item).await {
                    self.begun_us.store(begun.as_micros() as u64, Ordering::Release);
                    self.acknowledged.store(n, Ordering::Release);
                    break;
                }
                tokio::time::sleep(TRY_PAUSE).await;
            }
            tokio::time::sleep(TRY_PAUSE).await;
        }
    }
}

/// One try, as chat makes them: the SDK sends nothing again by itself.
async fn is_stored(client: &Client, item: Item) -> bool {
    let (done, answered) = tokio::sync::oneshot::channel();
    let handed_over = client.enqueue_then(vec![item], |answers| {
        let _ = done.send(answers);
    });
    handed_over.expect("a sound item");
    let answers = answered.await.expect("the client runs");
    matches!(answers[0].status(), ItemStatus::Ok | ItemStatus::Duplicate)
}

async fn leading_most(client: &Client) -> u64 {
    let nodes = client.list_nodes().await.expect("listed");
    let leads = |node: &switchboard_api::v1::list_nodes_response::Node| {
        let id = node.node.as_ref().map_or(0, |node| node.node_id);
        let status = node.status.clone().unwrap_or_default();
        (status.shards.iter().filter(|shard| shard.leader_node_id == id).count(), id)
    };
    nodes.iter().map(leads).max().expect("nodes").1
}

/// Tells how long each kill's gap was, in seconds.
fn report(took: &[f64]) {
    let mut sorted = took.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (median, worst) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
    eprintln!("{} kills: median {median:.3} s, worst {worst:.3} s", took.len());
    if let Some(path) = std::env::var_os("SWITCHBOARD_TEST_JSON") {
        let ms = |seconds: &f64| (seconds * 1e6).round() / 1e3;
        let report = serde_json::json!({
            "kills": took.len(), "median_ms": ms(&median), "worst_ms": ms(&worst),
            "each_ms": took.iter().map(ms).collect::<Vec<_>>(),
        });
        std::fs::write(path, format!("{report}\n")).expect("a report can be written");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shard_takes_writes_again_after_its_leader_was_killed() {
    let kills: usize = environment("SWITCHBOARD_TEST_KILLS", 1);
    let shards: u32 = environment("SWITCHBOARD_TEST_SHARDS", 4);
    let mut random = StdRng::seed_from_u64(environment("SWITCHBOARD_TEST_SEED", 1));
    let dir = tempfile::tempdir().unwrap();
    let mut stores = cluster(dir.path(), shards, &mut random);
    let at: Vec<String> = addresses(&stores).split(',').map(str::to_owned).collect();
    let client = Client::connect(&at, ClientOptions::default()).expect("addresses");
    client.ready(support::DEADLINE).await.expect("a cluster");
    let start = Instant::now();
    let writers: Vec<_> = users(shards)
        .into_iter()
        .map(|user| {
            let counters = (AtomicU64::new(0), AtomicU64::new(0));
            Arc::new(Writer { user, begun_us: counters.0, acknowledged: counters.1 })
        })
        .collect();
    let tasks: Vec<_> =
        writers.iter().map(|w| tokio::spawn(w.clone().run(client.clone(), start))).collect();

    let mut took = Vec::new();
    for kill in 1..=kills {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let victim = leading_most(&client).await;
        let killed = start.elapsed();
        stores[victim as usize - 1].kill();
        let dead = killed.as_micros() as u64;
        let deadline = Instant::now() + support::DEADLINE;
        // A write that was begun after the kill, in every shard.
        while writers.iter().any(|writer| writer.begun_us.load(Ordering::Acquire) <= dead) {
            assert!(Instant::now() < deadline, "a shard takes no writes");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took.push((start.elapsed() - killed).as_secs_f64());
        eprintln!(
            "kill {kill}: node {victim}, all shards write again after {:.3} s",
            took[kill - 1]
        );
        stores[victim as usize - 1].restart();
    }
    for task in tasks {
        task.abort();
        let _ = task.await;
    }
    for writer in &writers {
        let device = Some(DeviceRef { user: writer.user.clone().into(), device: 1 });
        let (mut after_seq, mut found) = (0, 0);
        loop {
            let request = FetchRequest { device: device.clone(), after_seq, ..Default::default() };
            let page = client.fetch(request).await.expect("fetched");
            found += page.messages.len() as u64;
            after_seq = page.messages.last().map_or(after_seq, |message| message.seq);
            if !page.more {
                break;
            }
        }
        // The last one may have been stored without an answer.
        let acknowledged = writer.acknowledged.load(Ordering::Acquire);
        assert!((acknowledged..=acknowledged + 1).contains(&found), "{found} of {acknowledged}");
    }
    report(&took);
}
