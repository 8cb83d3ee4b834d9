//! Devices that are connected and do nothing, until some are asked to talk: what `bench connections`
//! holds.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::RngExt as _;
use switchboard_api::device::v1::{
    Ack, ClientFrame, Hello, Ping, Send, ServerFrame, client_frame, error::Code, server_frame,
};
use switchboard_device::{Connection, ConnectionError, GatewayAddress, Trust, new_message_id};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::load::source::Sources;

/// For a connection and its Welcome.
const WELCOME_WITHIN: Duration = Duration::from_secs(30);
/// Attempts of a device that is told to come back later.
const ATTEMPTS_MAX: u32 = 20;
/// How often a device that got no answer tries again, and after which pause.
const FAILURES_MAX: u32 = 2;
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Which devices to be, and where.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    /// Devices take turns.
    pub(crate) gateways: Vec<GatewayAddress>,
    pub(crate) trust: Option<Trust>,
    pub(crate) token: String,
    pub(crate) prefix: String,
    pub(crate) first: usize,
    pub(crate) count: usize,
    /// At a time.
    pub(crate) opening: usize,
    pub(crate) from: Sources,
}

/// Connections that are held for as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    open: Arc<AtomicUsize>,
    pub(crate) resumed: usize,
    /// Why some could not be opened.
    pub(crate) failures: Vec<String>,
    talk: watch::Sender<Talk>,
    heard: Arc<Heard>,
    _tasks: JoinSet<()>,
}

/// Who sends a message to whom, by number.
pub(crate) type Talk = Arc<HashMap<usize, usize>>;

/// What came of talking.
#[derive(Debug, Default)]
struct Heard {
    accepted: AtomicUsize,
    /// Microseconds from when each message that arrived was sent. A lock, because all devices add to
    /// it; held to add one, or to copy all.
    arrived_us: Mutex<Vec<u64>>,
}

impl Held {
    /// How many are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Tells who sends a message to whom.
    pub(crate) fn talk(&self, talk: Talk) {
        self.talk.send_replace(talk);
    }

    /// How many messages were accepted, and how long those took that have arrived here.
    pub(crate) fn heard(&self) -> (usize, Vec<u64>) {
        let arrived = self.heard.arrived_us.lock().clone();
        (self.heard.accepted.load(Ordering::Relaxed), arrived)
    }
}

/// Opens all of them.
pub(crate) async fn open(share: Share) -> Held {
    let gate = Arc::new(Semaphore::new(share.opening));
    let share = Arc::new(share);
    let mut opening = JoinSet::new();
    for number in share.first..share.first + share.count {
        let (share, gate) = (share.clone(), gate.clone());
        opening.spawn(async move {
            let _permit = gate.acquire_owned().await;
            connect(&share, number).await.map(|opened| (number, opened))
        });
    }
    let (open, mut tasks) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    let (mut failures, mut resumed) = (Vec::new(), 0);
    let (talk, talking) = watch::channel(Talk::default());
    let heard: Arc<Heard> = Arc::default();
    let prefix: Arc<str> = share.prefix.as_str().into();
    while let Some(opened) = opening.join_next().await {
        match opened {
            Ok(Ok((number, (connection, keepalive)))) => {
                resumed += usize::from(connection.is_resumed());
                open.fetch_add(1, Ordering::Relaxed);
                let open = open.clone();
                let (talking, prefix) = (talking.clone(), prefix.clone());
                let idle = Idle { number, prefix, talking, heard: heard.clone() };
                tasks.spawn(async move {
                    idle.hold(connection, keepalive).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Ok(Err(why)) => failures.push(why),
            Err(error) => failures.push(error.to_string()),
        }
    }
    Held { open, resumed, failures, talk, heard, _tasks: tasks }
}

/// Connects a device, which comes back when it is told to, or got no answer.
async fn connect(share: &Share, number: usize) -> Result<(Connection, Duration), String> {
    let mut failures = 0;
    for _ in 0..ATTEMPTS_MAX {
        match attempt(share, number).await {
            Ok(Attempt::Welcome(opened)) => return Ok(*opened),
            Ok(Attempt::Later(pause)) => sleep(pause).await,
            Err(why) if failures == FAILURES_MAX => return Err(why),
            Err(_) => {
                failures += 1;
                sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
    Err(format!("told to come back later {ATTEMPTS_MAX} times"))
}

enum Attempt {
    Welcome(Box<(Connection, Duration)>),
    Later(Duration),
}

async fn attempt(share: &Share, number: usize) -> Result<Attempt, String> {
    let gateway = &share.gateways[number % share.gateways.len()];
    let connecting = Connection::connect_from(
        gateway,
        share.trust.as_ref(),
        share.from.nth(number),
        WELCOME_WITHIN,
    );
    let mut connection = connecting.await.map_err(|error| error.to_string())?;
    let hello = Hello {
        user: name(&share.prefix, number),
        device: 1,
        token: share.token.clone(),
        ..Hello::default()
    };
    let hello = ClientFrame { frame: Some(client_frame::Frame::Hello(hello)) };
    let welcome = async {
        connection.send(&hello).await?;
        connection.next().await
    };
    let first = timeout(WELCOME_WITHIN, welcome).await.map_err(|_| "no welcome".to_owned())?;
    match first.map_err(|error| error.to_string())?.and_then(|frame| frame.frame) {
        Some(server_frame::Frame::Welcome(welcome)) => {
            let keepalive = Duration::from_millis(welcome.keepalive_ms.max(1_000).into());
            Ok(Attempt::Welcome(Box::new((connection, keepalive))))
        }
        Some(server_frame::Frame::Error(error)) if error.code() == Code::Overloaded => {
            Ok(Attempt::Later(Duration::from_millis(error.retry_after_ms)))
        }
        other => Err(format!("no welcome but {other:?}")),
    }
}

/// The user of a device.
pub(crate) fn name(prefix: &str, number: usize) -> Bytes {
    format!("{prefix}-{number}").into()
}

/// A device that is connected.
struct Idle {
    number: usize,
    prefix: Arc<str>,
    talking: watch::Receiver<Talk>,
    heard: Arc<Heard>,
}

impl Idle {
    /// Says what keeps a connection alive, and what it is asked to say, until it ends.
    async fn hold(mut self, mut connection: Connection, keepalive: Duration) {
        loop {
            // Not all at once.
            let pause = keepalive.mul_f64(rand::rng().random_range(0.5..0.9));
            let said = tokio::select! {
                frame = connection.next() => match frame {
                    Ok(Some(frame)) => self.hear(&frame),
                    _ => return,
                },
                Ok(()) = self.talking.changed() => self.message(),
                () = sleep(pause) => Some(client_frame::Frame::Ping(Ping { nonce: 1 })),
            };
            if let Some(frame) = said
                && say(&mut connection, frame).await.is_err()
            {
                return;
            }
        }
    }

    /// The message that this device is asked to send, if it is.
    fn message(&mut self) -> Option<client_frame::Frame> {
        let to = self.talking.borrow_and_update().get(&self.number).copied()?;
        let send = Send {
            message_id: Bytes::copy_from_slice(&new_message_id()),
            to_user: name(&self.prefix, to),
            to_device: 1,
            body: Bytes::copy_from_slice(&unix_us().to_be_bytes()),
            ..Send::default()
        };
        Some(client_frame::Frame::Send(send))
    }

    /// Notes a frame, and says what it is to be answered with.
    fn hear(&self, frame: &ServerFrame) -> Option<client_frame::Frame> {
        let up_to_seq = match frame.frame.as_ref()? {
            server_frame::Frame::Accepted(_) => {
                self.heard.accepted.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            server_frame::Frame::Deliver(deliver) => {
                let message = deliver.message.as_ref()?;
                if let Ok(sent) = <[u8; 8]>::try_from(&message.body[..]) {
                    let us = unix_us().saturating_sub(u64::from_be_bytes(sent));
                    self.heard.arrived_us.lock().push(us);
                }
                message.seq
            }
            server_frame::Frame::Receipt(receipt) => receipt.seq,
            _ => return None,
        };
        Some(client_frame::Frame::Ack(Ack { up_to_seq, seqs: Vec::new() }))
    }
}

async fn say(
    connection: &mut Connection,
    frame: client_frame::Frame,
) -> Result<(), ConnectionError> {
    connection.send(&ClientFrame { frame: Some(frame) }).await
}

/// The time by the clock that processes of one machine share, in microseconds.
fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
