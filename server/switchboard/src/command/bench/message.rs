//! `bench message`: messages from device to device, through gateways, chats and stores.

use std::collections::HashMap;
use std::sync::Arc;
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

/// A message that did not arrive in this time is lost.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);
/// Deliveries that a device takes before it acknowledges.
const WINDOW: u32 = 256;
/// Devices that log in at the same time.
const LOGINS_AT_ONCE: usize = 64;
/// How long messages that are known to be safe may take to arrive after the end.
const SAFE_ARRIVE_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks whether they have.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Longest pause after a refusal.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Send messages between connected devices and report how many arrive, and how soon
///
/// All devices are online and send to others chosen by chance. A message counts when it has arrived
/// at the recipient's device, and its latency is that of the whole way; the report also says how long
/// senders waited until their messages were safe. Recipients acknowledge at once, and senders get
/// their receipts. Gateways are reached over plain TCP, and let a device send 100 messages a second by
/// default.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard bench message
  switchboard bench message --rate 2000 --seconds 30
  switchboard bench message --devices 2000 --in-flight 16 --output json
  switchboard bench message --gateway 10.0.0.7:7410,10.0.0.8:7410 --json report.json")]
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
        report.sent_ms = Some(Latency::of(&shared.sent_us()));
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
        let run = rand::random();
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

/// What all devices know of each other's messages.
struct Shared {
    devices: Vec<Expected>,
    /// Microseconds from sending a message until it was known to be safe, over the whole run. Locks,
    /// because devices are many; held to add one value, or to read all.
    sent_us: [Mutex<Histogram<u64>>; HISTOGRAMS],
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
    unsafe_since: Mutex<HashMap<MessageId, Instant>>,
}

impl Shared {
    fn new(devices: usize) -> Shared {
        let expected = || Expected { arriving: Mutex::default(), unsafe_since: Mutex::default() };
        Shared {
            devices: (0..devices).map(|_| expected()).collect(),
            sent_us: std::array::from_fn(|_| Mutex::new(Sums::new().latency_us)),
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
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn sent_us(&self) -> Histogram<u64> {
        let mut all = Sums::new().latency_us;
        for some in &self.sent_us {
            // All have the same bounds.
            let _ = all.add(&*some.lock());
        }
        all
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
        if let Some(sent) = sent {
            let mut histogram = self.shared.sent_us[self.nth % HISTOGRAMS].lock();
            histogram.saturating_record(micros_since(sent));
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

    /// Sends and waits until it has arrived, was refused, or seems lost.
    async fn send(&self, id: MessageId, to: usize) -> Result<(), Refused> {
        let (arrived, arrival) = oneshot::channel();
        self.shared.devices[to].arriving.lock().insert(id, arrived);
        self.shared.devices[self.nth].unsafe_since.lock().insert(id, Instant::now());
        let user = people::name(to as u64);
        let sent = self.device.send(id, user, self.ttl_ms, self.body.clone());
        let refusal = sent.map_err(|_| Refused::now("DISCONNECTED"))?;
        tokio::select! {
            Ok(()) = arrival => Ok(()),
            Ok(refusal) = refusal => {
                Err(Refused { why: refusal.why, pause: refusal.retry_after.min(PAUSE_MAX) })
            }
            () = tokio::time::sleep(ARRIVES_WITHIN) => Err(Refused::now("LOST")),
        }
    }
}

/// Why a message did not arrive, and how long to wait before the next.
struct Refused {
    why: &'static str,
    pause: Duration,
}

impl Refused {
    fn now(why: &'static str) -> Refused {
        Refused { why, pause: Duration::ZERO }
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
            Err(Refused { why, pause }) => {
                tally.refuse(why, 1);
                tokio::time::sleep(pause).await;
            }
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
