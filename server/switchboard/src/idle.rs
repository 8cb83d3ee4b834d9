//! Devices that are connected and do nothing: what `bench connections` holds.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use switchboard_api::device::v1::{ClientFrame, Hello, Ping, client_frame, server_frame};
use switchboard_device::{Connection, GatewayAddress, Trust};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// For a connection and its Welcome.
const WELCOME_WITHIN: Duration = Duration::from_secs(30);

/// Which devices to be, and where.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) gateway: GatewayAddress,
    pub(crate) trust: Option<Trust>,
    pub(crate) token: String,
    pub(crate) prefix: String,
    pub(crate) first: usize,
    pub(crate) count: usize,
    /// At a time.
    pub(crate) opening: usize,
    pub(crate) from: Option<IpAddr>,
}

/// Connections that are held for as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    open: Arc<AtomicUsize>,
    pub(crate) resumed: usize,
    /// Why some could not be opened.
    pub(crate) failures: Vec<String>,
    _tasks: JoinSet<()>,
}

impl Held {
    /// How many are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
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
            connect(&share, number).await
        });
    }
    let (open, mut tasks) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    let (mut failures, mut resumed) = (Vec::new(), 0);
    while let Some(opened) = opening.join_next().await {
        match opened {
            Ok(Ok((connection, keepalive))) => {
                resumed += usize::from(connection.is_resumed());
                open.fetch_add(1, Ordering::Relaxed);
                let open = open.clone();
                tasks.spawn(async move {
                    hold(connection, keepalive).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Ok(Err(why)) => failures.push(why),
            Err(error) => failures.push(error.to_string()),
        }
    }
    Held { open, resumed, failures, _tasks: tasks }
}

async fn connect(share: &Share, number: usize) -> Result<(Connection, Duration), String> {
    let connecting =
        Connection::connect_from(&share.gateway, share.trust.as_ref(), share.from, WELCOME_WITHIN);
    let mut connection = connecting.await.map_err(|error| error.to_string())?;
    let hello = Hello {
        user: format!("{}-{number}", share.prefix).into(),
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
            Ok((connection, keepalive))
        }
        other => Err(format!("no welcome but {other:?}")),
    }
}

/// Says what keeps a connection alive, until it ends.
async fn hold(mut connection: Connection, keepalive: Duration) {
    loop {
        // Not all at once.
        let pause = keepalive.mul_f64(rand::rng().random_range(0.5..0.9));
        tokio::select! {
            frame = connection.next() => {
                if !matches!(frame, Ok(Some(_))) {
                    return;
                }
            }
            () = sleep(pause) => {
                let ping = client_frame::Frame::Ping(Ping { nonce: 1 });
                if connection.send(&ClientFrame { frame: Some(ping) }).await.is_err() {
                    return;
                }
            }
        }
    }
}
