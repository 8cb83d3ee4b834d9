//! C15: a gateway with a million sessions ends, and nobody else notices.
//!
//! Three stores as processes of their own. One gateway claims a million sessions, another ten
//! thousand. The first deregisters, which is the same commit as the end of its lease. Measured are:
//! how long until a look-up finds none of its sessions, asked again and again from the moment of the
//! call; how many are found after the answer; and how long look-ups of the other gateway's users take,
//! one every 2 ms from when it was due, while the sessions are swept from memory and before.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use futures::stream::{StreamExt as _, TryStreamExt as _, iter};
use switchboard_api::{
    limits::ITEMS_PER_BATCH_MAX,
    v1::{
        DeviceRef, ItemStatus, Read, claim_request::Item, claim_response::Result as Claimed,
        register_request::Kind,
    },
};
use switchboard_sdk::{Client, ClientOptions, Lease, Load, Registration};
use tokio::sync::watch;

use super::Row;
use crate::{
    cluster::Cluster,
    entry::{Bar, Better, Entry},
    measure::percentile,
    run::Run,
    workload::user,
};

pub(super) const ROW: Row = Row { id: "C15", title: "a dead gateway", measure, probes: &[] };

const SESSIONS: u64 = 1_000_000;
const OTHERS: u64 = 10_000;
/// Claims under way.
const BATCHES: usize = 8;
/// Users of the dead gateway that are looked up together.
const SAMPLE: u64 = 512;
const LOOK_UP_EVERY: Duration = Duration::from_millis(2);
const CALM: Duration = Duration::from_secs(5);
const SWEPT_WITHIN: Duration = Duration::from_secs(120);
const LEASE_WITHIN: Duration = Duration::from_secs(20);
const CLAIMED_WITHIN: Duration = Duration::from_secs(10);

struct Figures {
    hidden: Duration,
    found_after: usize,
    calm: Vec<Duration>,
    swept: Vec<Duration>,
    swept_seconds: f64,
}

fn measure(run: &Run) -> Result<Vec<Entry>> {
    let sessions = run.scaled(SESSIONS);
    let cluster = Cluster::start::<3>(run, 16)?;
    let addresses: Vec<String> = cluster.store().split(',').map(str::to_owned).collect();
    let runtime = tokio::runtime::Runtime::new()?;
    let mut figures = runtime.block_on(end_gateway(run, &addresses, sessions))?;
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let worst = |samples: &[Duration]| samples.iter().max().copied().unwrap_or_default();
    let what = format!("from the end of a gateway with {sessions} sessions until none is found");
    Ok(vec![
        Entry::new("C15.hidden", what, ms(figures.hidden), "ms", Better::Less),
        Entry::new(
            "C15.found",
            "sessions of it found after the answer",
            figures.found_after as f64,
            "",
            Better::Less,
        )
        .bar(Bar::AtMost(0.0)),
        Entry::new(
            "C15.pause",
            "slowest look-up of others until all are swept",
            ms(worst(&figures.swept)),
            "ms",
            Better::Less,
        )
        .bar(Bar::AtMost(5.0)),
        Entry::new(
            "C15.p999",
            "look-ups of others meanwhile, p99.9",
            ms(percentile(&mut figures.swept, 0.999)),
            "ms",
            Better::Less,
        ),
        Entry::new(
            "C15.calm",
            "slowest look-up of others before it",
            ms(worst(&figures.calm)),
            "ms",
            Better::Less,
        ),
        Entry::new("C15.swept", "until all are swept", figures.swept_seconds, "s", Better::Less),
    ])
}

async fn end_gateway(run: &Run, addresses: &[String], sessions: u64) -> Result<Figures> {
    let client = Client::connect(addresses, ClientOptions::default())?;
    client.ready(LEASE_WITHIN).await?;
    run.say(format_args!("C15: {sessions} claims"));
    let (dying, lease) = register(&client, "dying").await?;
    let (_living, other) = register(&client, "living").await?;
    claim(&client, lease, 0, sessions).await?;
    claim(&client, other, sessions, OTHERS).await?;
    let calm = look_ups(addresses, sessions).await?;
    tokio::time::sleep(CALM).await;
    let calm = calm.end().await?;

    run.say("C15: the end of the gateway");
    let meanwhile = look_ups(addresses, sessions).await?;
    let asking = tokio::spawn(until_hidden(client.clone(), sessions));
    let started = Instant::now();
    dying.deregister().await;
    let found_after = found(&client, sessions).await?;
    let hidden = asking.await?? - started;
    swept(addresses).await?;
    let swept_seconds = started.elapsed().as_secs_f64();
    Ok(Figures { hidden, found_after, calm, swept: meanwhile.end().await?, swept_seconds })
}

async fn register(client: &Client, name: &str) -> Result<(Registration, Lease)> {
    let registration =
        Registration::start(client.clone(), name, "127.0.0.1:9", Kind::Gateway, Load::default)?;
    let mut lease = registration.lease();
    let held = tokio::time::timeout(LEASE_WITHIN, lease.wait_for(Lease::is_held)).await;
    let held = *held.context("no registration")??;
    Ok((registration, held))
}

async fn claim(client: &Client, lease: Lease, first: u64, count: u64) -> Result<()> {
    let step = ITEMS_PER_BATCH_MAX as u64;
    let batches = (first..first + count).step_by(ITEMS_PER_BATCH_MAX).map(|from| async move {
        let item = |n: u64| Item {
            device: Some(DeviceRef { user: Bytes::copy_from_slice(&user(n)), device: 1 }),
            connection_id: n + 1,
            push_token: String::new(),
        };
        let mut items: Vec<Item> = (from..(from + step).min(first + count)).map(item).collect();
        // The leaders of a young cluster still go to where they belong, and a shard without one takes
        // no claim for a moment.
        let deadline = Instant::now() + CLAIMED_WITHIN;
        while !items.is_empty() {
            ensure!(Instant::now() < deadline, "{} claims were not taken", items.len());
            let claimed = client.claim(lease.gateway_id, lease.incarnation, items.clone()).await?;
            items = open_claims(items, &claimed)?;
        }
        anyhow::Ok(())
    });
    iter(batches).buffer_unordered(BATCHES).try_collect::<Vec<()>>().await?;
    Ok(())
}

/// The claims that no leader has taken.
fn open_claims(items: Vec<Item>, claimed: &[Claimed]) -> Result<Vec<Item>> {
    let is_open = |result: &Claimed| result.status() == ItemStatus::Unavailable;
    let refused = claimed.iter().find(|r| r.status() != ItemStatus::Ok && !is_open(r));
    ensure!(refused.is_none(), "a claim was refused: {refused:?}");
    let claimed = items.into_iter().zip(claimed);
    Ok(claimed.filter(|(_, result)| is_open(result)).map(|(item, _)| item).collect())
}

/// Sessions found of users spread over all that the gateway had.
async fn found(client: &Client, sessions: u64) -> Result<usize> {
    let users = (0..SAMPLE).map(|n| Bytes::copy_from_slice(&user(n * sessions / SAMPLE)));
    let located = client.locate(users.collect(), Read::Lease).await?;
    let refused = located.results.iter().find(|result| result.status() != ItemStatus::Ok);
    ensure!(refused.is_none(), "a look-up was refused: {refused:?}");
    Ok(located.results.iter().map(|result| result.sessions.len()).sum())
}

/// When a look-up that found nothing had begun.
async fn until_hidden(client: Client, sessions: u64) -> Result<Instant> {
    loop {
        let begun = Instant::now();
        if found(&client, sessions).await? == 0 {
            return Ok(begun);
        }
    }
}

/// Waits until no replica's memory holds sessions but the others'.
async fn swept(addresses: &[String]) -> Result<()> {
    let started = Instant::now();
    for address in addresses {
        let node = Client::connect(std::slice::from_ref(address), ClientOptions::default())?;
        loop {
            let status = node.status().await?;
            let sessions: u64 = status.shards.iter().map(|shard| shard.sessions).sum();
            if sessions <= OTHERS {
                break;
            }
            ensure!(started.elapsed() < SWEPT_WITHIN, "{sessions} sessions were not swept");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
    Ok(())
}

/// Look-ups of other users that go on until they are ended.
struct LookUps {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<Result<Vec<Duration>>>,
}

impl LookUps {
    async fn end(self) -> Result<Vec<Duration>> {
        self.stop.send_replace(true);
        self.task.await.map_err(|error| anyhow!("the look-ups ended: {error}"))?
    }
}

async fn look_ups(addresses: &[String], first: u64) -> Result<LookUps> {
    let client = Arc::new(Client::connect(addresses, ClientOptions::default())?);
    client.ready(LEASE_WITHIN).await?;
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(async move {
        let mut samples = Vec::new();
        let mut pace = tokio::time::interval(LOOK_UP_EVERY);
        let mut n = 0;
        while !*stopped.borrow() {
            // A look-up that takes long delays those after it, which count from when they were due.
            let due = pace.tick().await.into_std();
            // Nor does one that finds a shard between two leaders: it is made again.
            loop {
                let users = vec![Bytes::copy_from_slice(&user(first + n % OTHERS))];
                let located = client.locate(users, Read::Lease).await?;
                let result = located.results.first().context("no result")?;
                ensure!(due.elapsed() < LEASE_WITHIN, "a shard has no leader any more");
                if result.status() != ItemStatus::Unavailable {
                    let is_there = result.sessions.len() == 1;
                    ensure!(is_there, "a session of another gateway was not found: {result:?}");
                    break;
                }
            }
            samples.push(due.elapsed());
            n += 1;
        }
        Ok(samples)
    });
    Ok(LookUps { stop, task })
}
