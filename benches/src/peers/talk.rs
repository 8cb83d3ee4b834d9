//! Clients of a messenger that others make: many that are connected and do nothing, or that send each other
//! messages in a closed loop. What they say is their `Protocol`'s.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::BytesMut;
use futures::stream::{StreamExt as _, TryStreamExt as _, iter};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

use crate::{
    measure::{cpu_seconds, memory_bytes},
    workload::scatter,
};

/// Logins under way at a time.
const LOGINS_AT_ONCE: usize = 64;
/// How long memory may settle before it is read.
const SETTLE: Duration = Duration::from_secs(2);

/// What connections came to.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// Connected, with an answer each, a second.
    pub logins_per_second: f64,
    /// Resident memory of the server a connection.
    pub bytes_each: f64,
}

/// What messages among connected clients came to.
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    /// Received a second.
    pub per_second: f64,
    /// CPU of the server a message.
    pub cpu_us: f64,
}

/// What clients say once they are connected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Protocol {
    /// Adds what a client says first.
    pub(super) greet: fn(&mut BytesMut, usize),
    /// Adds a message to the client of this number, the how many-th of all.
    pub(super) publish: fn(&mut BytesMut, usize, u64),
    /// Takes what came first, and adds the answer to it; whether it was a message, or none if it is not whole.
    pub(super) take: fn(&mut BytesMut, &mut BytesMut) -> Option<bool>,
}

/// Does something for so many clients, [`LOGINS_AT_ONCE`] at a time.
pub(super) async fn all<T, F>(count: usize, login: impl Fn(usize) -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>>,
{
    iter((0..count).map(login)).buffer_unordered(LOGINS_AT_ONCE).try_collect().await
}

/// A connection for the `nth` client.
pub(super) async fn open(address: SocketAddr, nth: usize) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Several source addresses: one has too few ports for many connections.
    let source = Ipv4Addr::new(127, 2, u8::try_from(nth / 10_000).unwrap_or(0), 1);
    socket.bind(SocketAddr::from((source, 0)))?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Logs so many clients in, and lets them do nothing.
pub(super) async fn idle<F>(
    server: u32,
    count: usize,
    login: impl Fn(usize) -> F,
) -> Result<Connections>
where
    F: Future<Output = Result<TcpStream>>,
{
    let before = memory_bytes(server)?;
    let started = Instant::now();
    let held = all(count, login).await?;
    let seconds = started.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let grown = memory_bytes(server)?.saturating_sub(before);
    let (logins_per_second, bytes_each) =
        (held.len() as f64 / seconds, grown as f64 / held.len() as f64);
    Ok(Connections { logins_per_second, bytes_each })
}

/// Lets these clients send each other messages for so long, each with so many on their way to be received.
pub(super) async fn talk(
    server: u32,
    streams: Vec<TcpStream>,
    protocol: Protocol,
    in_flight: usize,
    length: Duration,
) -> Result<Messages> {
    let talk = Arc::new(Talk {
        protocol,
        received: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        out: streams.iter().map(|_| Mutex::default()).collect(),
    });
    let mut tasks = JoinSet::new();
    for (nth, stream) in streams.into_iter().enumerate() {
        let (reader, writer) = stream.into_split();
        let mut out = talk.out[nth].lock();
        (protocol.greet)(&mut out.bytes, nth);
        for _ in 0..in_flight {
            talk.publish(&mut out.bytes);
        }
        drop(out);
        tasks.spawn(write(talk.clone(), nth, writer));
        tasks.spawn(read(talk.clone(), nth, reader));
    }
    // A quarter of the time to come to speed.
    tokio::time::sleep(length / 4).await;
    let (before, cpu) = (talk.received.load(Ordering::Relaxed), cpu_seconds(server)?);
    let started = Instant::now();
    tokio::time::sleep(length).await;
    let received = talk.received.load(Ordering::Relaxed) - before;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(server)? - cpu);
    talk.is_over.store(true, Ordering::Relaxed);
    ensure!(received > 0, "the peer passed nothing on");
    let per_second = received as f64 / seconds;
    Ok(Messages { per_second, cpu_us: cpu * 1e6 / received as f64 })
}

/// What clients that talk have in common.
struct Talk {
    protocol: Protocol,
    received: AtomicU64,
    sent: AtomicU64,
    is_over: AtomicBool,
    /// What waits to be written, client by client. Locks, because whoever receives a message makes its
    /// sender send the next; held to add a packet or to take all.
    out: Vec<Mutex<Out>>,
}

#[derive(Default)]
struct Out {
    bytes: BytesMut,
    written: Arc<tokio::sync::Notify>,
}

impl Talk {
    /// Adds a message to someone.
    fn publish(&self, out: &mut BytesMut) {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let to = (scatter(number) % self.out.len() as u64) as usize;
        (self.protocol.publish)(out, to, number);
    }
}

async fn write(talk: Arc<Talk>, nth: usize, mut writer: OwnedWriteHalf) {
    let written = talk.out[nth].lock().written.clone();
    loop {
        let bytes = talk.out[nth].lock().bytes.split();
        if bytes.is_empty() {
            written.notified().await;
        } else if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Answers what comes, and sends another message for each that did.
async fn read(talk: Arc<Talk>, nth: usize, mut reader: OwnedReadHalf) {
    let mut input = BytesMut::with_capacity(16 * 1024);
    loop {
        let mut is_answered = false;
        loop {
            let mut out = talk.out[nth].lock();
            let Some(is_message) = (talk.protocol.take)(&mut input, &mut out.bytes) else { break };
            if is_message {
                talk.received.fetch_add(1, Ordering::Relaxed);
                if !talk.is_over.load(Ordering::Relaxed) {
                    talk.publish(&mut out.bytes);
                }
                is_answered = true;
            }
        }
        if is_answered {
            talk.out[nth].lock().written.notify_one();
        }
        if !matches!(reader.read_buf(&mut input).await, Ok(1..)) {
            return;
        }
    }
}
