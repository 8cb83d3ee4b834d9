//! Everybody else during a storm: look-ups and messages at a fixed rate, each with its time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use switchboard_api::device::v1::Hello;
use switchboard_api::v1::{ItemStatus, Read};
use switchboard_sdk::Client;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::user;
use crate::load::device::{Device, Events, MessageId, micros_since};
use crate::load::people;
use crate::load::turns::Turns;
use crate::output::Failure;

/// Devices that are not in the storm.
const OTHERS: usize = 16;
/// What is not answered in this time counts as failed.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// Calls of a kind under way at any time.
const UNDER_WAY_MAX: usize = 256;
/// Longest time that calls are due.
const RUN_MAX: Duration = Duration::from_secs(3_600);
/// Marks the ids of messages to the crowd.
const TO_CROWD: u64 = 1 << 63;
/// Bytes of a message's body.
const BODY_BYTES: usize = 256;
/// How long a message is kept for its device.
const TTL_MS: u64 = 600_000;

/// One call: when it was due, how long it took, whether it succeeded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) due: Instant,
    pub(crate) us: u64,
    pub(crate) is_done: bool,
}

/// Those who are not in the storm, on a gateway that does not die.
pub(crate) struct Others {
    client: Client,
    devices: Vec<Arc<Device>>,
    ear: Arc<Ear>,
    prefix: String,
    run: u64,
    crowd: (String, usize),
    /// Numbers of the messages to the crowd that were accepted. A lock, because many calls add to it;
    /// held to add one.
    sent: Mutex<Vec<u64>>,
}

/// What others ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Where one of the others is; done when its session is found.
    Lookup,
    /// A message to another of the others; done when it has arrived.
    Message,
    /// A message to one of the crowd; done when it is safe.
    ToCrowd,
}

/// Calls that are going on, and what came of those before.
pub(crate) struct Calls {
    turns: Turns,
    /// A lock, because calls under way add to it; held to add one, or to take all.
    samples: Arc<Mutex<Vec<Sample>>>,
    workers: JoinSet<()>,
}

impl Others {
    /// Connects them at this gateway.
    pub(crate) async fn connect(
        client: Client,
        gateway: &str,
        token: &str,
        crowd: (String, usize),
    ) -> Result<Others, Failure> {
        let ear: Arc<Ear> = Arc::default();
        let prefix = format!("{}-other", crowd.0);
        let mut devices = Vec::new();
        for nth in 0..OTHERS {
            let hello = Hello {
                user: user(&prefix, nth),
                device: 1,
                token: token.to_owned(),
                window: 256,
                ..Hello::default()
            };
            let device = Device::connect(gateway, hello, ear.clone()).await.map_err(|error| {
                Failure::failed(format!("a device cannot log in at {gateway}: {error}"))
            })?;
            devices.push(device);
        }
        let run = people::run();
        Ok(Others { client, devices, ear, prefix, run, crowd, sent: Mutex::default() })
    }

    /// Makes calls of a kind at this rate, until told to stop.
    pub(crate) fn call(self: &Arc<Self>, kind: Kind, per_s: f64) -> Calls {
        let now = Instant::now();
        let turns = Turns::open(now, now + RUN_MAX, Duration::from_secs_f64(1.0 / per_s));
        let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
        let mut workers = JoinSet::new();
        for _ in 0..UNDER_WAY_MAX {
            let (others, turns, samples) = (self.clone(), turns.clone(), samples.clone());
            workers.spawn(async move {
                while let Some(turn) = turns.next().await {
                    let is_done = others.make(kind, turn.call).await;
                    let us = micros_since(turn.due);
                    samples.lock().push(Sample { due: turn.due, us, is_done });
                }
            });
        }
        Calls { turns, samples, workers }
    }

    /// Numbers of the messages to the crowd that are safe.
    pub(crate) fn sent(&self) -> Vec<u64> {
        self.sent.lock().clone()
    }

    async fn make(&self, kind: Kind, call: u64) -> bool {
        match kind {
            Kind::Lookup => self.look_up(call).await,
            Kind::Message => {
                let to = user(&self.prefix, people::pick(call, OTHERS));
                self.send(call, to).await
            }
            Kind::ToCrowd => {
                let to = user(&self.crowd.0, people::pick(call, self.crowd.1));
                let is_safe = self.send(call | TO_CROWD, to).await;
                if is_safe {
                    self.sent.lock().push(call | TO_CROWD);
                }
                is_safe
            }
        }
    }

    async fn look_up(&self, call: u64) -> bool {
        let asked = vec![user(&self.prefix, people::pick(call, OTHERS))];
        let found = tokio::time::timeout(ANSWERED_WITHIN, self.client.locate(asked, Read::Lease));
        let Ok(Ok(found)) = found.await else { return false };
        let is_found = |result: &switchboard_api::v1::locate_response::Result| {
            result.status() == ItemStatus::Ok && !result.sessions.is_empty()
        };
        found.results.first().is_some_and(is_found)
    }

    async fn send(&self, number: u64, to: Bytes) -> bool {
        let id: MessageId = (u128::from(self.run) << 64 | u128::from(number)).to_be_bytes();
        let device = &self.devices[(number % OTHERS as u64) as usize];
        let (done, answer) = oneshot::channel();
        self.ear.waiting.lock().insert(id, done);
        let is_done = match device.send(id, to, TTL_MS, Bytes::from_static(&[b'x'; BODY_BYTES])) {
            Err(_) => false,
            Ok(refusal) => tokio::select! {
                Ok(()) = answer => true,
                _ = refusal => false,
                () = tokio::time::sleep(ANSWERED_WITHIN) => false,
            },
        };
        self.ear.waiting.lock().remove(&id);
        device.forget(&id);
        is_done
    }
}

impl Calls {
    /// What came of calls so far; of none is it told twice.
    pub(crate) fn take(&self) -> Vec<Sample> {
        std::mem::take(&mut self.samples.lock())
    }

    /// Begins no further call, and waits for those under way.
    pub(crate) async fn stop(mut self) -> Vec<Sample> {
        self.turns.close();
        while self.workers.join_next().await.is_some() {}
        self.take()
    }
}

/// Hears for all of the others: who waits for what became of which message.
#[derive(Default)]
struct Ear {
    /// A lock, because senders and readers change it; held to add or to remove one.
    waiting: Mutex<HashMap<MessageId, oneshot::Sender<()>>>,
}

impl Ear {
    fn done(&self, id: &MessageId) {
        if let Some(waiting) = self.waiting.lock().remove(id) {
            // Whoever waited may have given up.
            let _ = waiting.send(());
        }
    }
}

impl Events for Ear {
    fn accepted(&self, id: &MessageId) {
        if is_to_crowd(id) {
            self.done(id);
        }
    }

    fn delivered(&self, id: &MessageId) {
        if !is_to_crowd(id) {
            self.done(id);
        }
    }
}

fn is_to_crowd(id: &MessageId) -> bool {
    // The first bit of the number, which is the second half.
    id[8] & 0x80 != 0
}
