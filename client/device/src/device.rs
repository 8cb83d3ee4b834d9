//! The handle of a device: what an application holds.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::{
    error::SendError,
    event::{Accepted, DeviceStats, Event},
    options::DeviceOptions,
    outbox::Outgoing,
    session::Session,
    task,
};

/// How to go offline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offline {
    /// Acknowledgements are written, the gateway is told, the stream ends in order.
    Goodbye,
    /// The socket is dropped with all that was not written: what a lost network does.
    Drop,
}

/// What the application wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Online,
    Offline(Offline),
    Closed,
}

/// The latest wish. Numbers tell a wish that was obeyed from one that is still to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) number: u64,
    pub(crate) mode: Mode,
}

/// What the handle and the task share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// A lock, because the application and the task both change the session, for a few
    /// microseconds at a time and never across a wait.
    pub(crate) session: Mutex<Session>,
    /// The application changed the session.
    pub(crate) changed: Notify,
    /// The network may have changed.
    pub(crate) moved: Notify,
}

/// A device that stays connected by itself. Clones are handles to the same device; it shuts down
/// when the last is dropped.
///
/// ```no_run
/// use switchboard_device::{Device, DeviceOptions, Event, Outgoing, new_message_id};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let gateways = vec!["127.0.0.1:7410".parse()?];
/// let (alice, mut events) = Device::start(DeviceOptions::new("alice", 1, gateways));
/// let accepted = alice.send(Outgoing {
///     message_id: new_message_id(),
///     to_user: "bob".into(),
///     to_device: 0,
///     ttl_ms: 0,
///     body: "hello".into(),
/// });
/// println!("durable at {}", accepted.await?.at_ms);
/// while let Some(event) = events.recv().await {
///     if let Event::Message(message) = event {
///         println!("{:?}", message.body);
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Device {
    shared: Arc<Shared>,
    wish: watch::Sender<Wish>,
    /// The number of the last wish obeyed; `u64::MAX` when the task has ended.
    reached: watch::Receiver<u64>,
}

impl Device {
    /// Starts the device's task on the current runtime. The receiver must be read: while it is
    /// full, nothing is read from the gateway.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(options: DeviceOptions) -> (Self, mpsc::Receiver<Event>) {
        let session = Mutex::new(Session::new(options.manual_ack, options.seen_max));
        let shared = Arc::new(Shared { session, changed: Notify::new(), moved: Notify::new() });
        let mode = if options.start_online { Mode::Online } else { Mode::Offline(Offline::Drop) };
        let (wish, wanted) = watch::channel(Wish { number: 0, mode });
        let (reaching, reached) = watch::channel(0);
        let (events, received) = mpsc::channel(options.events_max.max(1));
        let task = task::Task::new(options, Arc::clone(&shared), wanted, reaching, events);
        tokio::spawn(task.run());
        (Self { shared, wish, reached }, received)
    }

    /// Puts a message at the end of the outbox, at once, also while offline. It is sent, and sent
    /// again with the same id, until a gateway accepts it or refuses it for good; messages to one
    /// user are stored in the order of these calls. The future need not be polled.
    pub fn send(
        &self,
        outgoing: Outgoing,
    ) -> impl Future<Output = Result<Accepted, SendError>> + Send + use<> {
        self.put(outgoing, false)
    }

    /// Like [`Device::send`], and the other devices of this user get a copy: a message from this
    /// device with the same id and body, so the body must say whom it was for. The id must be a
    /// UUIDv7, as [`crate::new_message_id`] makes it.
    pub fn send_and_copy(
        &self,
        outgoing: Outgoing,
    ) -> impl Future<Output = Result<Accepted, SendError>> + Send + use<> {
        self.put(outgoing, true)
    }

    fn put(
        &self,
        outgoing: Outgoing,
        to_own_devices: bool,
    ) -> impl Future<Output = Result<Accepted, SendError>> + Send + use<> {
        let (waiter, answer) = oneshot::channel();
        if self.wish.borrow().mode == Mode::Closed {
            let _ = waiter.send(Err(SendError::Closed));
        } else {
            self.shared.session.lock().send(outgoing, to_own_devices, waiter);
            self.shared.changed.notify_one();
        }
        async move { answer.await.unwrap_or(Err(SendError::Closed)) }
    }

    /// Tells `from_user` that these of its messages were read; repeated until a gateway accepts.
    pub fn read(&self, from_user: &Bytes, ids: Vec<[u8; 16]>) {
        self.shared.session.lock().read(from_user, ids);
        self.shared.changed.notify_one();
    }

    /// With `manual_ack`: the application has stored the message at this seq.
    pub fn acknowledge(&self, seq: u64) {
        self.shared.session.lock().acknowledge(seq);
        self.shared.changed.notify_one();
    }

    /// Disconnects and stays so; returns when the socket is closed. Outbox, reads and the ids seen
    /// stay.
    pub async fn go_offline(&self, how: Offline) {
        self.want_and_wait(Mode::Offline(how)).await;
    }

    /// Connects again, also after the device was replaced or refused.
    pub fn go_online(&self) {
        self.want(Mode::Online);
    }

    /// The network may have changed, as when a phone leaves the house: a QUIC connection goes on from
    /// a new socket without connecting again. Other connections end by themselves if they must.
    pub fn network_changed(&self) {
        self.shared.moved.notify_one();
    }

    /// Says goodbye and ends the task; waits of senders end with [`SendError::Closed`].
    pub async fn shutdown(&self) {
        self.want_and_wait(Mode::Closed).await;
    }

    /// Counts so far.
    #[must_use]
    pub fn stats(&self) -> DeviceStats {
        self.shared.session.lock().stats()
    }

    fn want(&self, mode: Mode) -> u64 {
        self.wish.send_modify(|wish| {
            if wish.mode != Mode::Closed {
                *wish = Wish { number: wish.number + 1, mode };
            }
        });
        self.wish.borrow().number
    }

    async fn want_and_wait(&self, mode: Mode) {
        let number = self.want(mode);
        let mut reached = self.reached.clone();
        // An error means that the task has ended, and its socket with it.
        let _ = reached.wait_for(|reached| *reached >= number).await;
    }
}
