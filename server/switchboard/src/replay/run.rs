//! Runs a replay: starts a device for every user, lets them talk, waits until all is in, judges.
//!
//! ```text
//!   connect ─▶ talk: conversations and presence ─▶ drain: all stay online ─▶ judge
//!                └───────── give up: turned away, or nothing moves ──────────▶┘
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use switchboard_device::{Device, DeviceOptions, DeviceStats, Event, GatewayAddress};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::checker::{Expected, body_hash};
use super::corpus::Corpus;
use super::ledger::Ledger;
use super::person::{self, Person};
use super::plan::{self, PlanOptions, Stretches};
use super::progress::{Progress, Snapshot};
use super::report::Report;
use super::talk;
use crate::limits::RECONNECT_BACKOFF;

/// How often the state is looked at: for the progress bar and for the end.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How a replay is run.
#[derive(Debug, Clone)]
pub(crate) struct RunOptions {
    /// Where devices connect; each starts with another one.
    pub(crate) gateways: Vec<GatewayAddress>,
    /// What devices present.
    pub(crate) token: String,
    /// Unacknowledged deliveries per device; 0: the gateway's default.
    pub(crate) window: u32,
    /// Timing.
    pub(crate) plan: PlanOptions,
    /// Give up when nothing moves, or the drain is not through, for this long.
    pub(crate) drain_timeout: Duration,
    /// Fail when nothing was ever repeated.
    pub(crate) repeats_required: bool,
}

/// What all tasks of a replay share.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) corpus: Corpus,
    /// The users' names as they go over the wire.
    pub(super) names: Vec<Bytes>,
    pub(super) people: Vec<Person>,
    users: HashMap<Bytes, usize>,
    /// Every event of every device goes through here, so that they have one order. Held for
    /// microseconds, never across a wait.
    ledger: Mutex<Ledger>,
    started: Instant,
    /// Why the replay cannot go on.
    gave_up: watch::Sender<Option<String>>,
    /// The last reason for which a connection was lost or not made, to tell if none is ever made.
    trouble: Mutex<String>,
}

impl Run {
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    /// Microseconds since the replay began.
    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The index of a user by name.
    pub(super) fn user(&self, name: &Bytes) -> Option<usize> {
        self.users.get(name).copied()
    }

    /// Ends the replay early.
    pub(super) fn give_up(&self, why: String) {
        self.gave_up.send_if_modified(|reason| {
            let first = reason.is_none();
            reason.get_or_insert(why);
            first
        });
    }

    /// Keeps why a connection is not there.
    pub(super) fn last_trouble(&self, reason: String) {
        *self.trouble.lock() = reason;
    }

    fn stats(&self) -> DeviceStats {
        let mut sum = DeviceStats::default();
        for stats in self.people.iter().map(|person| person.device.stats()) {
            sum.connects += stats.connects.saturating_sub(1);
            sum.repeats_dropped += stats.repeats_dropped;
            sum.receipt_repeats += stats.receipt_repeats;
            sum.duplicates_answered += stats.duplicates_answered;
            sum.resends += stats.resends;
        }
        sum
    }

    fn snapshot(&self, waiting_us: u64) -> Snapshot {
        let stats = self.stats();
        let ledger = self.ledger();
        Snapshot {
            counts: ledger.checker().counts(),
            users_online: ledger.users_online(),
            repeats: stats.repeats_dropped + stats.duplicates_answered,
            reconnects: stats.connects,
            waiting_us,
        }
    }
}

/// Replays a corpus. Fails only if no device ever connects; everything else is in the report.
pub(crate) async fn run(
    corpus: Corpus,
    options: &RunOptions,
    progress: &Progress,
) -> Result<Report, String> {
    let (run, events) = prepare(corpus, options);
    let mut tasks = JoinSet::new();
    for (user, events) in events.into_iter().enumerate() {
        tasks.spawn(person::use_device(Arc::clone(&run), user, events));
    }
    connect(&run, options.drain_timeout).await?;
    run.ledger().measure_from(run.now_us());
    let stay = CancellationToken::new();
    let mut presence = JoinSet::new();
    for user in 0..run.people.len() {
        if let Some(stretches) = Stretches::new(&options.plan, user as u64) {
            presence.spawn(person::come_and_go(Arc::clone(&run), user, stretches, stay.clone()));
        }
    }
    let mut talks = JoinSet::new();
    let mut first = 0;
    for (index, timing) in plan::timings(&run.corpus, &options.plan).into_iter().enumerate() {
        let messages = timing.pauses.len();
        talks.spawn(talk::talk(Arc::clone(&run), index, first, timing));
        first += messages;
    }
    let ended = watch_over(&run, options, progress, &mut talks, &stay).await;
    progress.finish(&run.snapshot(0));
    talks.abort_all();
    stay.cancel();
    presence.abort_all();
    shut_down(&run).await;
    Ok(judge(&run, options, ended))
}

/// How a replay ended.
struct Ended {
    drained: bool,
    why: Option<String>,
    talked_until_us: u64,
    at_us: u64,
}

fn prepare(corpus: Corpus, options: &RunOptions) -> (Arc<Run>, Vec<mpsc::Receiver<Event>>) {
    let mut expected = Vec::with_capacity(corpus.messages());
    for conversation in &corpus.conversations {
        for (message, read) in conversation.messages.iter().zip(plan::read(conversation)) {
            let body = body_hash(message.text.as_bytes());
            expected.push(Expected { from: message.from, to: message.to, body, read });
        }
    }
    let names: Vec<Bytes> =
        corpus.users.iter().map(|name| Bytes::copy_from_slice(name.as_bytes())).collect();
    let users = names.iter().cloned().zip(0..).collect();
    let mut people = Vec::with_capacity(names.len());
    let mut receivers = Vec::with_capacity(names.len());
    for name in &names {
        let (device, events) = Device::start(DeviceOptions {
            token: options.token.clone(),
            window: options.window,
            manual_ack: true,
            backoff: RECONNECT_BACKOFF,
            ..DeviceOptions::new(name.clone(), 1, options.gateways.clone())
        });
        people.push(Person {
            device,
            present: watch::Sender::new(true),
            connected: watch::Sender::new(false),
        });
        receivers.push(events);
    }
    let run = Run {
        ledger: Mutex::new(Ledger::new(names.len(), expected)),
        corpus,
        names,
        people,
        users,
        started: Instant::now(),
        gave_up: watch::Sender::new(None),
        trouble: Mutex::new(String::new()),
    };
    (Arc::new(run), receivers)
}

/// Waits until every device has connected once.
async fn connect(run: &Run, connect_timeout: Duration) -> Result<(), String> {
    let mut gave_up = run.gave_up.subscribe();
    let all = async {
        for person in &run.people {
            // The sender lives as long as the person.
            let _ = person.connected.subscribe().wait_for(|connected| *connected).await;
        }
    };
    tokio::select! {
        () = all => Ok(()),
        _ = gave_up.wait_for(Option::is_some) =>
            Err(run.gave_up.borrow().clone().unwrap_or_default()),
        () = tokio::time::sleep(connect_timeout) => {
            let online = run.ledger().users_online();
            let trouble = run.trouble.lock().clone();
            Err(format!("only {online} of {} devices could connect: {trouble}", run.people.len()))
        }
    }
}

/// Waits for the end: first of the talks, then of the drain, or for a reason to give up.
async fn watch_over(
    run: &Run,
    options: &RunOptions,
    progress: &Progress,
    talks: &mut JoinSet<()>,
    stay: &CancellationToken,
) -> Ended {
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    let mut gave_up = run.gave_up.subscribe();
    let mut talked_until_us = None;
    let mut last = (run.snapshot(0).counts, Instant::now());
    let (drained, why) = loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = tokio::signal::ctrl_c() => break (false, Some("interrupted".to_owned())),
            _ = gave_up.wait_for(Option::is_some) => break (false, run.gave_up.borrow().clone()),
        }
        while let Some(ended) = talks.try_join_next() {
            ended.expect("a conversation does not panic");
        }
        if talks.is_empty() && talked_until_us.is_none() {
            talked_until_us = Some(run.now_us());
            run.ledger().measure_to(run.now_us());
            stay.cancel();
        }
        let waiting_us = talked_until_us.map_or(0, |since| run.now_us().saturating_sub(since));
        let snapshot = run.snapshot(waiting_us);
        progress.show(&snapshot);
        if snapshot.counts != last.0 {
            last = (snapshot.counts, Instant::now());
        }
        if talked_until_us.is_some() && run.ledger().checker().is_settled() {
            break (true, None);
        }
        if Duration::from_micros(waiting_us) > options.drain_timeout {
            break (false, None);
        }
        if last.1.elapsed() > options.drain_timeout.max(options.plan.longest_silence()) {
            break (false, Some("nothing moves any more".to_owned()));
        }
    };
    let at_us = run.now_us();
    Ended { drained, why, talked_until_us: talked_until_us.unwrap_or(at_us), at_us }
}

async fn shut_down(run: &Arc<Run>) {
    let mut closing = JoinSet::new();
    for user in 0..run.people.len() {
        let run = Arc::clone(run);
        closing.spawn(async move {
            if let Some(person) = run.people.get(user) {
                person.device.shutdown().await;
            }
        });
    }
    closing.join_all().await;
}

fn judge(run: &Run, options: &RunOptions, ended: Ended) -> Report {
    let stats = run.stats();
    let report = Report {
        repeats_dropped: stats.repeats_dropped,
        receipt_repeats: stats.receipt_repeats,
        duplicates_answered: stats.duplicates_answered,
        resends: stats.resends,
        reconnects: stats.connects,
        seconds: Duration::from_micros(ended.at_us).as_secs_f64(),
        drain_seconds: Duration::from_micros(ended.at_us - ended.talked_until_us).as_secs_f64(),
        users: run.people.len() as u64,
        conversations: run.corpus.conversations.len() as u64,
        seed: options.plan.seed,
        speedup: options.plan.speedup,
        drained: ended.drained,
        failures: ended.why.into_iter().collect(),
        ..Report::default()
    };
    let empty = Ledger::new(0, Vec::new());
    let ledger = std::mem::replace(&mut *run.ledger(), empty);
    ledger.finish(report, ended.at_us, options.repeats_required)
}
