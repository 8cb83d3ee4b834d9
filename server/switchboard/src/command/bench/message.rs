//! `bench message`: messages from device to device, through gateways, chats and stores.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use futures::stream::{StreamExt as _, TryStreamExt as _, iter};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use switchboard_api::device::v1::Hello;
use switchboard_api::limits::BODY_BYTES_MAX;
use switchboard_device::GatewayAddress;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::enqueue::noise;
use super::load_args::{GatewayArgs, LoadArgs};
use super::{seconds, within};
use crate::cli::Global;
use crate::command::operator::StoreArgs;
use crate::limits::LOAD_DEVICES_MAX;
use crate::load::device::{Device, Events, MessageId, micros_since};
use crate::load::drive::{Work, drive};
use crate::load::people;
use crate::load::report::{Latency, Report, Settings};
use crate::load::samples::{Sums, Tally};
use crate::output::Failure;

/// A message that was neither refused nor has arrived in this time is lost.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);
/// Deliveries that a device takes before it acknowledges.
const WINDOW: u32 = 256;
/// Devices that log in at the same time.
const LOGINS_AT_ONCE: usize = 64;
/// How long messages that are known to be safe may take to arrive after the end.
const SAFE_ARRIVE_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks whether they have.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Send messages between connected devices and report how many arrive, and how soon
///
/// All devices are online and send to others chosen by chance. A message counts when it has arrived
/// at the recipient's device, and its latency is that of the whole way; the report also says how long
/// senders waited until their messages were safe. Recipients acknowledge at once, and senders get
/// their receipts. A message that servers are too busy for is sent again when they asked for it, as any
/// device does. Gateways are reached over plain TCP, and let a device send 100 messages a second by
/// default.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard bench message
  switchboard bench message --rate 2000 --seconds 30
  switchboard bench message --devices 2000 --in-flight 16 --output json
  switchboard bench message --gateway 10.0.0.7:7410,10.0.0.8:7410 \\
      --json report.json")]
pub(crate) struct Message {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    gateways: GatewayArgs,
    /// Devices, each with a user and a connection of its own; their names begin with `bench-`
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = devices)]
    devices: usize,
    /// Bytes of each message's body
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = size)]
    size: usize,
    /// Messages that do not arrive expire after so many seconds
    #[arg(long, value_name = "S", default_value_t = 120.0, value_parser = seconds)]
    ttl: f64,
}

impl Message {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        let tcp = |address: &GatewayAddress| match address {
            GatewayAddress::Tcp(address) => Ok(address.clone()),
            other => Err(Failure::usage(format!("--gateway: `{other}` is not plain TCP"))),
        };
        let gateways = self.gateways.gateway.iter().map(tcp).collect::<Result<Vec<_>, _>>()?;
        let pids = self.load.all_servers(&self.store.client(Duration::from_secs(2))?).await;
        let shared = Arc::new(Shared::new(self.devices));
        if !self.load.quiet() {
            eprintln!("connecting {} devices", self.devices);
        }
        let senders = self.connect(&gateways, &shared).await?;
        let plan = self.load.plan(1, pids);
        let outcome = drive(senders, &plan).await;
        let settings = Settings {
            command: "message",
            item: "message",
            calls: "device",
            connections: self.devices,
            in_flight: self.load.in_flight(),
            batch: 1,
            users: self.devices as u64,
            size: Some(self.size),
        };
        let mut report = Report::new(settings, &plan, outcome);
        report.sent_ms = Some(Latency::of(&total(&shared.sent_us)));
        report.taken_ms = Some(Latency::of(&total(&shared.taken_us)));
        report.sent_again = Some(shared.sent_again.load(Ordering::Relaxed));
        let lost = shared.settled().await;
        report.safe_and_lost = Some(lost);
        self.load.finish(global, &report)?;
        match lost {
            0 => Ok(()),
            lost => Err(Failure::failed(format!("{lost} messages were safe and did not arrive"))),
        }
    }

    async fn connect(
        &self,
        gateways: &[String],
        shared: &Arc<Shared>,
    ) -> Result<Vec<Arc<Sender>>, Failure> {
        let run = people::run();
        let body = noise(self.size);
        let one = |nth: usize| {
            let address = &gateways[nth % gateways.len()];
            let (user, token) = (people::name(nth as u64), self.gateways.token.clone());
            let hello = Hello { user, device: 1, token, window: WINDOW, ..Hello::default() };
            let events = Arc::new(Own { nth, shared: shared.clone() });
            let body = body.clone();
            async move {
                let device = Device::connect(address, hello, events).await.map_err(|error| {
                    Failure::failed(format!("device {nth} cannot log in at {address}: {error}"))
                        .help(
                            "start a gateway with `switchboard dev`, or name another by --gateway",
                        )
                })?;
                let ttl_ms = (self.ttl * 1e3) as u64;
                Ok(Arc::new(Sender { device, nth, run, ttl_ms, body, shared: shared.clone() }))
            }
        };
        iter((0..self.devices).map(one)).buffered(LOGINS_AT_ONCE).try_collect().await
    }
}

/// Histograms of how long senders waited: several, so that devices do not wait for each other.
const HISTOGRAMS: usize = 8;
type Histograms = [Mutex<Histogram<u64>>; HISTOGRAMS];

fn total(parts: &Histograms) -> Histogram<u64> {
    let mut all = Sums::new().latency_us;
    for part in parts {
        // All have the same bounds.
        let _ = all.add(&*part.lock());
    }
    all
}

/// What all devices know of each other's messages.
struct Shared {
    devices: Vec<Expected>,
    /// Microseconds from sending a message until it was known to be safe, over the whole run. Locks,
    /// because devices are many; held to add one value, or to read all.
    sent_us: Histograms,
    /// The same since it was sent the last time.
    taken_us: Histograms,
    /// How often a message was sent again because it had been refused.
    sent_again: AtomicU64,
    /// Messages of which only one of two things is known: that it is safe, or that it has arrived. Locks
    /// for the same reason; held to change one.
    half_known: [Mutex<HashMap<MessageId, Known>>; HISTOGRAMS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Safe,
    Arrived,
}

/// What is under way to a device, and from it.
struct Expected {
    /// Messages to it; held to add or to remove one.
    arriving: Mutex<HashMap<MessageId, oneshot::Sender<()>>>,
    /// Messages of its own that are not known to be safe yet; held likewise.
    unsafe_since: Mutex<HashMap<MessageId, Sent>>,
}

/// When a message was sent the first and the last time.
#[derive(Debug, Clone, Copy)]
struct Sent {
    first: Instant,
    last: Instant,
}

impl Shared {
    fn new(devices: usize) -> Shared {
        let expected = || Expected { arriving: Mutex::default(), unsafe_since: Mutex::default() };
        Shared {
            devices: (0..devices).map(|_| expected()).collect(),
            sent_us: std::array::from_fn(|_| Mutex::new(Sums::new().latency_us)),
            taken_us: std::array::from_fn(|_| Mutex::new(Sums::new().latency_us)),
            sent_again: AtomicU64::new(0),
            half_known: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// Notes that a message is safe or has arrived.
    fn know(&self, id: &MessageId, what: Known) {
        let mut half_known = self.half_known[usize::from(id[15]) % HISTOGRAMS].lock();
        match half_known.get(id) {
            // A repeat tells nothing new.
            Some(known) if *known == what => {}
            Some(_) => drop(half_known.remove(id)),
            None => drop(half_known.insert(*id, what)),
        }
    }

    /// Waits until all messages that are safe have arrived; how many have not.
    async fn settled(&self) -> usize {
        let end = Instant::now() + SAFE_ARRIVE_WITHIN;
        loop {
            let safe = |known: &Known| *known == Known::Safe;
            let waiting = self.half_known.iter();
            let waiting = waiting.map(|some| some.lock().values().copied().filter(safe).count());
            let waiting = waiting.sum();
            if waiting == 0 || Instant::now() > end {
                return waiting;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
}

/// One device's ear.
struct Own {
    nth: usize,
    shared: Arc<Shared>,
}

impl Events for Own {
    fn accepted(&self, id: &MessageId) {
        self.shared.know(id, Known::Safe);
        let sent = self.shared.devices[self.nth].unsafe_since.lock().remove(id);
        if let Some(Sent { first, last }) = sent {
            let Shared { sent_us, taken_us, .. } = &*self.shared;
            for (histograms, since) in [(sent_us, first), (taken_us, last)] {
                histograms[self.nth % HISTOGRAMS].lock().saturating_record(micros_since(since));
            }
        }
    }

    fn delivered(&self, id: &MessageId) {
        self.shared.know(id, Known::Arrived);
        // A message that comes twice is expected once.
        if let Some(waiting) = self.shared.devices[self.nth].arriving.lock().remove(id) {
            // Whoever sent it may have stopped waiting.
            let _ = waiting.send(());
        }
    }
}

/// A device that sends to others.
struct Sender {
    device: Arc<Device>,
    nth: usize,
    /// Makes ids of messages differ between runs.
    run: u64,
    ttl_ms: u64,
    body: Bytes,
    shared: Arc<Shared>,
}

impl Sender {
    fn id(&self, call: u64) -> MessageId {
        (u128::from(self.run) << 64 | u128::from(call)).to_be_bytes()
    }

    fn note_sent(&self, id: MessageId) {
        let now = Instant::now();
        let mut unsafe_since = self.shared.devices[self.nth].unsafe_since.lock();
        unsafe_since.entry(id).or_insert(Sent { first: now, last: now }).last = now;
    }

    /// Sends until it is not refused, or is for good, and waits until it has arrived; the word for why it
    /// did not. What is to be sent again is never given up, as its gateway waits for it.
    async fn send(&self, id: MessageId, to: usize) -> Result<(), &'static str> {
        let (arrived, mut arrival) = oneshot::channel();
        self.shared.devices[to].arriving.lock().insert(id, arrived);
        loop {
            self.note_sent(id);
            let user = people::name(to as u64);
            let sent = self.device.send(id, user, self.ttl_ms, self.body.clone());
            let refusal = sent.map_err(|_| "DISCONNECTED")?;
            let refusal = tokio::select! {
                Ok(()) = &mut arrival => return Ok(()),
                refusal = refusal => refusal.map_err(|_| "DISCONNECTED")?,
                () = sleep(ARRIVES_WITHIN) => return Err("LOST"),
            };
            let pause = refusal.retry_after;
            if pause.is_zero() {
                return Err(refusal.why);
            }
            self.shared.sent_again.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                Ok(()) = &mut arrival => return Ok(()),
                () = sleep(pause) => {}
            }
        }
    }
}

impl Work for Sender {
    async fn call(&self, call: u64) -> Tally {
        let id = self.id(call);
        let to = people::pick(call, self.shared.devices.len());
        let result = self.send(id, to).await;
        self.shared.devices[to].arriving.lock().remove(&id);
        self.device.forget(&id);
        let mut tally = Tally::default();
        match result {
            Ok(()) => tally.done = 1,
            Err(why) => tally.refuse(why, 1),
        }
        tally
    }
}

fn devices(text: &str) -> Result<usize, String> {
    within(text, 2.0, LOAD_DEVICES_MAX as f64).map(|devices| devices as usize)
}

fn size(text: &str) -> Result<usize, String> {
    within(text, 0.0, BODY_BYTES_MAX as f64).map(|size| size as usize)
}
