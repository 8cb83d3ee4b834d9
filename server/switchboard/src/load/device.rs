//! A device for load: one connection that sends, and answers what it gets at once.
//!
//! It keeps nothing and repeats nothing of its own, unlike the device library: a message that gets lost
//! here is counted as lost. What arrives is acknowledged as soon as all that came with it was read.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use switchboard_api::device::v1::{
    Ack, ClientFrame, Error, Hello, Pong, Send, ServerFrame, client_frame, error, server_frame,
};
use switchboard_api::frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};

/// How long a gateway may take to answer a Hello.
const WELCOME_WAIT_MAX: Duration = Duration::from_secs(20);
/// Bytes that are read at once at the least.
const READ_BYTES: usize = 16 * 1024;

/// Identifies a message of a run.
pub(crate) type MessageId = [u8; 16];

/// What a device tells its owner, while it reads.
pub(crate) trait Events: std::marker::Send + Sync + 'static {
    /// A message that this device sent is durable.
    fn accepted(&self, id: &MessageId);
    /// A message has arrived at this device.
    fn delivered(&self, id: &MessageId);
}

/// A device that is connected.
pub(crate) struct Device {
    /// Frames that wait to be written. A lock, because callers and the reader add to it; held to
    /// encode a frame or to take all.
    out: Mutex<BytesMut>,
    written: Notify,
    /// Who waits for a refusal of which message, until the connection has ended; held to add or to remove one.
    refusals: Mutex<Option<HashMap<MessageId, oneshot::Sender<Refusal>>>>,
}

/// A message that was not taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal {
    pub(crate) why: &'static str,
    pub(crate) retry_after: Duration,
}

impl Device {
    /// Connects and waits for the Welcome; the connection is served as a task until it breaks.
    pub(crate) async fn connect<E: Events>(
        address: &str,
        hello: Hello,
        events: Arc<E>,
    ) -> io::Result<Arc<Device>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut reader, writer) = stream.into_split();
        let device = Arc::new(Device {
            out: Mutex::new(BytesMut::new()),
            written: Notify::new(),
            refusals: Mutex::new(Some(HashMap::new())),
        });
        device.push(client_frame::Frame::Hello(hello))?;
        tokio::spawn(write(device.clone(), writer));
        let mut input = BytesMut::with_capacity(READ_BYTES);
        let welcome = welcome(&mut reader, &mut input);
        tokio::time::timeout(WELCOME_WAIT_MAX, welcome).await??;
        let reading = device.clone();
        tokio::spawn(async move {
            read(&reading, reader, input, events).await;
            reading.end();
        });
        Ok(device)
    }

    /// Sends a message. The receiver gets what speaks against it, if anything does, and is closed when
    /// the connection has ended.
    pub(crate) fn send(
        &self,
        id: MessageId,
        to_user: Bytes,
        ttl_ms: u64,
        body: Bytes,
    ) -> io::Result<oneshot::Receiver<Refusal>> {
        let (refused, refusal) = oneshot::channel();
        let closed = || io::Error::from(io::ErrorKind::NotConnected);
        self.refusals.lock().as_mut().ok_or_else(closed)?.insert(id, refused);
        let message_id = Bytes::copy_from_slice(&id);
        let send = Send { message_id, to_user, to_device: 1, ttl_ms, body, to_own_devices: false };
        self.push(client_frame::Frame::Send(send))?;
        Ok(refusal)
    }

    /// Nobody waits for a refusal of this message any more.
    pub(crate) fn forget(&self, id: &MessageId) {
        self.refusal(id);
    }

    fn refusal(&self, id: &MessageId) -> Option<oneshot::Sender<Refusal>> {
        self.refusals.lock().as_mut()?.remove(id)
    }

    /// The connection has ended: nobody will hear of what was under way.
    fn end(&self) {
        self.refusals.lock().take();
    }

    fn push(&self, frame: client_frame::Frame) -> io::Result<()> {
        let frame = ClientFrame { frame: Some(frame) };
        frame::encode(&frame, &mut self.out.lock()).map_err(io::Error::other)?;
        self.written.notify_one();
        Ok(())
    }

    fn refuse(&self, error: &Error) {
        let Ok(id) = MessageId::try_from(&error.message_id[..]) else { return };
        if let Some(waiting) = self.refusal(&id) {
            let why = error.code().as_str_name();
            let retry_after = Duration::from_millis(error.retry_after_ms);
            // Whoever sent it may have stopped waiting.
            let _ = waiting.send(Refusal { why, retry_after });
        }
    }
}

async fn welcome(reader: &mut OwnedReadHalf, input: &mut BytesMut) -> io::Result<()> {
    loop {
        match next(input)? {
            Some(server_frame::Frame::Welcome(_)) => return Ok(()),
            Some(server_frame::Frame::Error(error)) => {
                let code = error::Code::try_from(error.code).unwrap_or_default();
                let words = format!("{} ({})", error.message, code.as_str_name());
                return Err(io::Error::other(words));
            }
            Some(_) => {}
            None if reader.read_buf(input).await? == 0 => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            None => {}
        }
    }
}

fn next(input: &mut BytesMut) -> io::Result<Option<server_frame::Frame>> {
    let frame: Option<ServerFrame> = frame::Decoder::new().next(input).map_err(io::Error::other)?;
    // A frame of a kind that is not known yet means nothing here.
    Ok(frame.map(|frame| frame.frame.unwrap_or(server_frame::Frame::Pong(Pong { nonce: 0 }))))
}

async fn write(device: Arc<Device>, mut writer: OwnedWriteHalf) {
    loop {
        device.written.notified().await;
        let bytes = device.out.lock().split();
        if !bytes.is_empty() && writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Ends when the connection does.
async fn read<E: Events>(
    device: &Device,
    mut reader: OwnedReadHalf,
    mut input: BytesMut,
    events: Arc<E>,
) {
    let mut acknowledged = 0;
    loop {
        let mut highest = acknowledged;
        loop {
            match next(&mut input) {
                Ok(Some(frame)) => highest = highest.max(take(device, &*events, &frame)),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        if highest > acknowledged {
            acknowledged = highest;
            let ack = Ack { up_to_seq: highest, seqs: Vec::new() };
            if device.push(client_frame::Frame::Ack(ack)).is_err() {
                return;
            }
        }
        input.reserve(READ_BYTES);
        if !matches!(reader.read_buf(&mut input).await, Ok(1..)) {
            return;
        }
    }
}

/// The seq to acknowledge; 0 for what has none.
fn take(device: &Device, events: &impl Events, frame: &server_frame::Frame) -> u64 {
    match frame {
        server_frame::Frame::Deliver(deliver) => {
            let Some(message) = &deliver.message else { return 0 };
            if let Ok(id) = MessageId::try_from(&message.message_id[..]) {
                events.delivered(&id);
            }
            message.seq
        }
        server_frame::Frame::Receipt(receipt) => receipt.seq,
        server_frame::Frame::Accepted(accepted) => {
            if let Ok(id) = MessageId::try_from(&accepted.message_id[..]) {
                events.accepted(&id);
            }
            0
        }
        server_frame::Frame::Error(error) => {
            device.refuse(error);
            0
        }
        _ => 0,
    }
}

/// How long ago an instant was, in whole microseconds and at least one.
pub(crate) fn micros_since(then: Instant) -> u64 {
    u64::try_from(then.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
}
