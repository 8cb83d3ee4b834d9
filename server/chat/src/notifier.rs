//! Wakes up devices that are not connected: when a message waits for one, its push token is looked up
//! and a request goes to the operator's webhook or to a browser's push service.
//!
//! ```text
//! stored, nobody connected ─▶ Schedule ──take──▶ look-up ─┬─▶ Queue ─▶ Webhook ─▶ APNs, FCM, …
//! pushed, nobody there ────▶  (one an interval   (Stat:   └─▶ Queue ─▶ WebPush ─▶ push service
//!                              and device)        token)
//! ```
//! A wake-up is a hint: it carries no message, and what is lost costs time and nothing else. So all
//! of this is in memory and bounded, and what finds no room is dropped and counted. The token is
//! looked up once a wake-up, not once a message, and a device that has connected meanwhile or has
//! nothing waiting any more is left alone. The path of a message pays for a note in the schedule,
//! and only if nobody is connected.

mod encryption;
mod opening;
mod queue;
mod request;
mod schedule;
mod signature;
mod subscription;
mod turns;
mod vapid;
mod web_push;
#[cfg(test)]
mod web_push_tests;
mod webhook;

use std::sync::Arc;

use parking_lot::Mutex;
use switchboard_api::v1::{
    DeviceRef, ItemStatus, enqueue_request, enqueue_response, message::Kind, stat_request,
    stat_response,
};
use switchboard_sdk::Client;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use self::{
    opening::Channels, queue::Queue, schedule::Schedule, subscription::Token, web_push::Knock,
    webhook::WakeUp,
};
pub use self::{
    opening::PushError,
    signature::{REPLAY_WINDOW_S, SecretsError},
    vapid::VapidKeyError,
};
pub(crate) use self::{request::Sent, schedule::Noted};
use crate::{
    config::PushConfig,
    limits::{FINISH_MAX, LOOK_UP_DEVICES_MAX},
    meters::NotifierMeters,
};

/// See the module.
pub(crate) struct Notifier {
    /// A lock, because messages are noted while devices are taken; held for a few moves.
    schedule: Mutex<Schedule>,
    noted: Notify,
    meters: NotifierMeters,
    tasks: TaskTracker,
    finishing: CancellationToken,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}

/// What the notifier's task has of its own. The queues end with it.
struct Sending {
    store: Client,
    hosts: Vec<String>,
    webhook: Option<Queue<WakeUp>>,
    web_push: Option<Queue<Knock>>,
}

impl Notifier {
    /// A notifier whose tasks end with `stop`; `None` when neither a webhook nor Web Push is set up.
    pub(crate) fn start(
        config: &PushConfig,
        store: Client,
        stop: &CancellationToken,
    ) -> Result<Option<Arc<Self>>, PushError> {
        let (finishing, meters) = (CancellationToken::new(), NotifierMeters::new());
        let channels = Channels::open(config, &finishing, &meters)?;
        if channels.is_empty() {
            return Ok(None);
        }
        let tasks = TaskTracker::new();
        let schedule = Mutex::new(Schedule::new(config.interval(), config.devices_max));
        let (webhook, web_push) = channels.start(&tasks, &meters);
        let noted = Notify::new();
        let notifier = Arc::new(Self { schedule, noted, meters, tasks, finishing });
        let sending = Sending { store, hosts: config.web_push_hosts.clone(), webhook, web_push };
        let (running, stop) = (notifier.clone(), stop.clone());
        notifier.tasks.spawn(async move {
            stop.run_until_cancelled(running.run(sending)).await;
        });
        Ok(Some(notifier))
    }

    /// Notes the devices for which the items were stored and that are not connected. Never blocks.
    pub(crate) fn note_all<'a>(
        &self,
        answered: impl Iterator<Item = (&'a enqueue_request::Item, &'a enqueue_response::Result)>,
    ) {
        let mut asleep = answered.flat_map(|(item, result)| asleep(item, result)).peekable();
        if asleep.peek().is_none() {
            return;
        }
        let mut is_ready = false;
        let mut schedule = self.schedule.lock();
        for device in asleep {
            let noted = schedule.note(device);
            self.meters.noted(noted);
            is_ready |= noted == Noted::Ready;
        }
        drop(schedule);
        if is_ready {
            self.noted.notify_one();
        }
    }

    /// Notes devices whose session led to nobody. Most have connected elsewhere, and what is left of
    /// the session of another is removed just then, so they are looked up an interval later.
    pub(crate) fn note_later(&self, asleep: Vec<DeviceRef>) {
        if asleep.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut schedule = self.schedule.lock();
        for device in asleep {
            self.meters.noted(schedule.note_later(device, now));
        }
        drop(schedule);
        self.noted.notify_one();
    }

    /// Sends what waits, each once and at once, and ends.
    pub(crate) async fn finish(&self) {
        self.schedule.lock().end_all_intervals();
        self.finishing.cancel();
        self.tasks.close();
        if timeout(FINISH_MAX, self.tasks.wait()).await.is_err() {
            debug!("the shutdown did not wait for every wake-up");
        }
    }

    async fn run(&self, sending: Sending) {
        loop {
            let now = Instant::now();
            let (devices, next_at) = {
                let mut schedule = self.schedule.lock();
                let devices = schedule.take(now, LOOK_UP_DEVICES_MAX);
                self.meters.devices.set(schedule.len() as f64);
                (devices, schedule.next_at(now))
            };
            if !devices.is_empty() {
                self.wake_up(&sending, devices).await;
                continue;
            }
            if self.finishing.is_cancelled() {
                return;
            }
            tokio::select! {
                () = self.noted.notified() => {}
                () = self.finishing.cancelled() => {}
                () = sleep_until(next_at.unwrap_or(now)), if next_at.is_some() => {}
            }
        }
    }

    /// Looks devices up and queues a wake-up for each that needs one.
    async fn wake_up(&self, sending: &Sending, devices: Vec<DeviceRef>) {
        let item = |device: &DeviceRef| {
            let device = Some(device.clone());
            stat_request::Item { device, with_push_token: true }
        };
        let results = match sending.store.stat(devices.iter().map(item).collect()).await {
            Ok(results) => results,
            Err(error) => {
                debug!(%error, "push tokens could not be looked up");
                Vec::new()
            }
        };
        let mut results = results.into_iter();
        for device in devices {
            match results.next() {
                Some(result) if result.status() == ItemStatus::Ok => {
                    self.queue(sending, device, result);
                }
                // Tried again after an interval.
                Some(_) | None => {
                    let noted = self.schedule.lock().note(device);
                    self.meters.noted(noted);
                    self.meters.not_looked_up.increment(1);
                }
            }
        }
    }

    fn queue(&self, sending: &Sending, device: DeviceRef, found: stat_response::Result) {
        let meters = &self.meters;
        let stat_response::Result { connected, messages, push_token, .. } = found;
        if connected || messages == 0 {
            meters.awake.increment(1);
            return;
        }
        let queued = match Token::read(push_token, &sending.hosts) {
            Token::None => {
                meters.without_token.increment(1);
                return;
            }
            Token::Refused => {
                meters.bad_token.increment(1);
                return;
            }
            Token::WebPush(subscription) => {
                let knock = Knock { subscription, messages };
                sending.web_push.as_ref().map(|queue| (queue.push(knock), &meters.web_push))
            }
            Token::Webhook(push_token) => {
                let wake_up = WakeUp { device, push_token, messages };
                sending.webhook.as_ref().map(|queue| (queue.push(wake_up), &meters.webhook))
            }
        };
        match queued {
            Some((true, _)) => {}
            Some((false, channel)) => channel.dropped.increment(1),
            None => meters.no_channel.increment(1),
        }
    }
}

/// The devices that have the item queued and no session. What is answered DUPLICATE counts too: the
/// answer to the first attempt may have been lost. Receipts wake nobody up.
fn asleep<'a>(
    item: &'a enqueue_request::Item,
    result: &'a enqueue_response::Result,
) -> impl Iterator<Item = DeviceRef> + 'a {
    let user = item.to.as_ref().filter(|_| item.kind() == Kind::Content).map(|to| &to.user);
    let connected = |number: u32| {
        let mut devices = result.sessions.iter().filter_map(|session| session.device.as_ref());
        devices.any(|device| device.device == number)
    };
    let is_stored = |stored: &&enqueue_response::Stored| {
        matches!(stored.status(), ItemStatus::Ok | ItemStatus::Duplicate) && stored.seq != 0
    };
    user.into_iter().flat_map(move |user| {
        let asleep = result.stored.iter().filter(is_stored).filter(move |s| !connected(s.device));
        asleep.map(|stored| DeviceRef { user: user.clone(), device: stored.device })
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use switchboard_api::v1::{SessionInfo, enqueue_response::Stored};

    use super::*;

    fn found(kind: Kind, status: ItemStatus) -> Vec<u32> {
        let user = Bytes::from_static(b"bob");
        let device = |device| Some(DeviceRef { user: user.clone(), device });
        let item = enqueue_request::Item { to: device(0), kind: kind.into(), ..Default::default() };
        let stored = |device, seq, status: ItemStatus| Stored {
            device,
            seq,
            prev_seq: 0,
            status: status.into(),
        };
        let result = enqueue_response::Result {
            status: status.into(),
            stored: vec![
                stored(1, 10, status),
                stored(2, 20, status),
                stored(3, 30, ItemStatus::MailboxFull),
                stored(4, 0, status),
                stored(5, 50, status),
            ],
            sessions: vec![SessionInfo { device: device(2), ..Default::default() }],
            ..Default::default()
        };
        asleep(&item, &result).map(|device| device.device).collect()
    }

    #[test]
    fn who_has_the_message_and_no_session_is_asleep() {
        assert_eq!(found(Kind::Content, ItemStatus::Ok), [1, 5]);
        assert_eq!(found(Kind::Content, ItemStatus::Duplicate), [1, 5]);
        assert_eq!(found(Kind::Content, ItemStatus::Unavailable), [0; 0]);
    }

    #[test]
    fn a_receipt_wakes_nobody_up() {
        assert_eq!(found(Kind::Receipt, ItemStatus::Ok), [0; 0]);
    }
}
