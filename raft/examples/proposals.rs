//! How fast one node takes commands, and how soon it is back after a restart:
//! `cargo run --release -p switchboard-raft --example proposals`.
//!
//! Arguments, all optional: shards, callers, seconds, body bytes. Each caller proposes one message
//! and waits for its answer, so entries grow with the number of callers only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use switchboard_engine::command::Enqueue;
use switchboard_engine::{Command, DeviceId, MessageKind};
use switchboard_raft::{Group, Node, NodeOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default));
    let (shards, callers, seconds, body_bytes) = (next(1)?, next(1_000)?, next(5)?, next(256)?);

    let dir = std::env::temp_dir().join(format!("switchboard-proposals-{}", std::process::id()));
    let node = Node::open(NodeOptions::new(&dir, 1, "127.0.0.1:0")).await?;
    node.initialize_single(u32::try_from(shards)?).await?;
    let done = Arc::new(AtomicU64::new(0));
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let body = Bytes::from(vec![7; usize::try_from(body_bytes)?]);
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let group = node.shards()[(caller % shards) as usize].clone();
            let until = started + Duration::from_secs(seconds);
            tokio::spawn(call(group, caller, body.clone(), until, done.clone()))
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let commands = done.load(Ordering::Relaxed) as f64;
    let entries: u64 = node.shards().iter().map(|group| group.status().proposer.entries).sum();
    println!(
        "{shards} shards, {callers} callers, {body_bytes} B: {:.0} commands/s, {:.0} entries/s, \
         {:.1} commands an entry, {:.2} µs CPU a command (callers included)",
        commands / elapsed,
        entries as f64 / elapsed,
        commands / entries as f64,
        cpu * 1e6 / commands,
    );
    node.shutdown().await;
    drop(node);
    let restarted = Instant::now();
    let node = Node::open(NodeOptions::new(&dir, 1, "127.0.0.1:0")).await?;
    let opened = restarted.elapsed();
    node.initialize_single(u32::try_from(shards)?).await?;
    println!("a restart opens in {opened:.1?} and leads all groups in {:.1?}", restarted.elapsed());
    node.shutdown().await;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

async fn call(group: Arc<Group>, caller: u64, body: Bytes, until: Instant, done: Arc<AtomicU64>) {
    for number in 0u64.. {
        if Instant::now() >= until {
            return;
        }
        let mut message_id = [0; 16];
        message_id[..8].copy_from_slice(&caller.to_le_bytes());
        message_id[8..].copy_from_slice(&number.to_le_bytes());
        let enqueue = Enqueue {
            to_user: Bytes::from(format!("user-{caller}-{}", number / 1_000)),
            to_device: 1,
            message_id,
            from: DeviceId::new(format!("user-{caller}"), 1),
            ttl_ms: 0,
            kind: MessageKind::Content,
            body: body.clone(),
        };
        match group.propose(vec![Command::Enqueue(enqueue)]) {
            Ok(proposed) => match proposed.await {
                Ok(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
                Err(error) => return eprintln!("{error}"),
            },
            Err(overloaded) => tokio::time::sleep(overloaded.retry_after).await,
        }
    }
}

/// User and system time of this process so far, as Linux tells it in ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}
