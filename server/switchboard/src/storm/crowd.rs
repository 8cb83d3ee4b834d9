//! What a worker holds: devices as applications have them, which come back by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use switchboard_device::{Device, DeviceOptions, Event, GatewayAddress};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{unix_ms, user};
use crate::input;
use crate::load::source::Sources;
use crate::output::{Failure, print_line};

/// Devices that log in for the first time, at any time.
const OPENING_MAX: usize = 256;
/// Between two lines of a worker.
const SAY_INTERVAL: Duration = Duration::from_millis(200);
/// Message ids that a device remembers: far more than it is sent.
const SEEN_MAX: usize = 4_096;

/// Which devices to be.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) gateways: Vec<GatewayAddress>,
    pub(crate) token: String,
    pub(crate) prefix: String,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// What a worker says: how it stands, and with `end` what came of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Said {
    /// Connected now.
    pub(crate) online: usize,
    /// Taken in again after the storm began.
    pub(crate) back: usize,
    /// Messages received.
    pub(crate) received: usize,
    /// Whether it was told when the storm begins.
    pub(crate) is_warned: bool,
    pub(crate) end: Option<End>,
}

/// The last word of a worker.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct End {
    /// When each device was taken in again, Unix ms.
    pub(crate) back_at_ms: Vec<u64>,
    /// The numbers of the messages received.
    pub(crate) received: Vec<u64>,
    /// Repeats that the device library kept from the application.
    pub(crate) repeats_dropped: u64,
    /// Why attempts failed after the storm began, and how many did.
    pub(crate) refusals: BTreeMap<String, u64>,
}

/// What devices have in common.
#[derive(Debug, Default)]
struct Crowd {
    online: AtomicUsize,
    back: AtomicUsize,
    /// When the storm began, Unix ms; 0 before it.
    storm_ms: AtomicU64,
    /// A lock, because all devices add to it; held to add one thing, or to take all.
    end: Mutex<End>,
}

/// Holds a share of the crowd and says how it stands, until the input ends. The one line of input says
/// when the storm begins.
pub(crate) async fn hold(share: Share) -> Result<(), Failure> {
    let crowd = Arc::new(Crowd::default());
    let devices: Arc<Mutex<Vec<Device>>> = Arc::default();
    tokio::spawn(open(share, crowd.clone(), devices.clone()));
    let mut input = input::lines();
    let mut says = tokio::time::interval(SAY_INTERVAL);
    loop {
        tokio::select! {
            line = input.recv() => match line {
                Some(line) => {
                    crowd.storm_ms.store(line.trim().parse().unwrap_or(0), Ordering::Relaxed);
                    say(&crowd, None)?;
                }
                None => break,
            },
            _ = says.tick() => say(&crowd, None)?,
        }
    }
    let mut end = std::mem::take(&mut *crowd.end.lock());
    end.repeats_dropped = devices.lock().iter().map(|device| device.stats().repeats_dropped).sum();
    say(&crowd, Some(end))
}

fn say(crowd: &Crowd, end: Option<End>) -> Result<(), Failure> {
    let said = Said {
        online: crowd.online.load(Ordering::Relaxed),
        back: crowd.back.load(Ordering::Relaxed),
        received: crowd.end.lock().received.len(),
        is_warned: crowd.storm_ms.load(Ordering::Relaxed) > 0,
        end,
    };
    let line = serde_json::to_string(&said).map_err(|error| Failure::failed(error.to_string()))?;
    print_line(&line)
}

/// Starts all devices, a few at a time. A device starts at another gateway of the list than the one
/// before it.
async fn open(share: Share, crowd: Arc<Crowd>, devices: Arc<Mutex<Vec<Device>>>) {
    let gate = Arc::new(Semaphore::new(OPENING_MAX));
    let sources = Sources::to(&share.gateways);
    for nth in share.first..share.first + share.count {
        let Ok(permit) = gate.clone().acquire_owned().await else { return };
        let options = DeviceOptions {
            token: share.token.clone(),
            seen_max: SEEN_MAX,
            local_address: sources.nth(nth),
            ..DeviceOptions::new(user(&share.prefix, nth), 1, share.gateways.clone())
        };
        let (device, events) = Device::start(options);
        devices.lock().push(device);
        tokio::spawn(listen(events, permit, crowd.clone()));
    }
}

/// Notes what a device tells, until its end.
async fn listen(
    mut events: mpsc::Receiver<Event>,
    permit: OwnedSemaphorePermit,
    crowd: Arc<Crowd>,
) {
    let (mut permit, mut is_online, mut is_back) = (Some(permit), false, false);
    while let Some(event) = events.recv().await {
        let is_storm = crowd.storm_ms.load(Ordering::Relaxed) > 0;
        match event {
            Event::Online { .. } => {
                permit = None;
                is_online = true;
                crowd.online.fetch_add(1, Ordering::Relaxed);
                if is_storm && !is_back {
                    is_back = true;
                    crowd.back.fetch_add(1, Ordering::Relaxed);
                    crowd.end.lock().back_at_ms.push(unix_ms());
                }
            }
            Event::Offline { reason, code, .. } => {
                if std::mem::take(&mut is_online) {
                    crowd.online.fetch_sub(1, Ordering::Relaxed);
                } else if is_storm {
                    let why = code.map_or(reason, |code| code.as_str_name().to_owned());
                    *crowd.end.lock().refusals.entry(kind(&why)).or_default() += 1;
                }
            }
            Event::Message(message) => {
                let [.., a, b, c, d, e, f, g, h] = message.message_id;
                let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                crowd.end.lock().received.push(number);
            }
            _ => {}
        }
    }
    drop(permit);
}

/// Without the address that failed, so that reasons can be counted.
fn kind(why: &str) -> String {
    why.split_once(": ").map_or(why, |(_, rest)| rest).to_owned()
}
