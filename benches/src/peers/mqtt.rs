//! mosquitto as a process of its own: what many would run instead of gateways and chat.
//!
//! Sessions that outlive connections (`clean_session` 0), one topic a user, messages of QoS 1; what is
//! queued is in memory and written to disk every half an hour, so that nothing here is durable when it is
//! acknowledged. The client speaks the few packets of MQTT 3.1.1 that this takes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::{Buf as _, BufMut, BytesMut};
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
    processes::{Server, free_addresses},
    workload::{BODY_BYTES, scatter},
};

/// Logins under way at a time.
const LOGINS_AT_ONCE: usize = 64;
/// Seconds that a client may be silent.
const KEEP_ALIVE: u16 = 600;
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

/// Connects so many clients that then do nothing. `None`: not installed.
pub fn connections(dir: &Path, count: usize) -> Result<Option<Connections>> {
    let Some((server, address)) = start(dir)? else { return Ok(None) };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let _warm = connect_all(address, "warm", 100).await?;
        let before = memory_bytes(server.pid())?;
        let started = Instant::now();
        let held = connect_all(address, "idle", count).await?;
        let seconds = started.elapsed().as_secs_f64();
        tokio::time::sleep(SETTLE).await;
        let grown = memory_bytes(server.pid())?.saturating_sub(before);
        let (logins_per_second, bytes_each) =
            (held.len() as f64 / seconds, grown as f64 / held.len() as f64);
        Ok(Some(Connections { logins_per_second, bytes_each }))
    })
}

/// Lets clients send each other messages for so long, each with so many on their way to be received.
/// `None`: not installed.
pub fn messages(
    dir: &Path,
    clients: usize,
    in_flight: usize,
    length: Duration,
) -> Result<Option<Messages>> {
    let Some((server, address)) = start(dir)? else { return Ok(None) };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let streams = connect_all(address, "user", clients).await?;
        let talk = Arc::new(Talk {
            clients,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            out: (0..clients).map(|_| Mutex::default()).collect(),
        });
        let mut tasks = JoinSet::new();
        for (nth, stream) in streams.into_iter().enumerate() {
            let (reader, writer) = stream.into_split();
            let mut out = talk.out[nth].lock();
            subscribe(&mut out.bytes, nth);
            for _ in 0..in_flight {
                talk.publish(&mut out.bytes);
            }
            drop(out);
            tasks.spawn(write(talk.clone(), nth, writer));
            tasks.spawn(read(talk.clone(), nth, reader));
        }
        // A quarter of the time to come to speed.
        tokio::time::sleep(length / 4).await;
        let (before, cpu) = (talk.received.load(Ordering::Relaxed), cpu_seconds(server.pid())?);
        let started = Instant::now();
        tokio::time::sleep(length).await;
        let received = talk.received.load(Ordering::Relaxed) - before;
        let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(server.pid())? - cpu);
        talk.is_over.store(true, Ordering::Relaxed);
        ensure!(received > 0, "mosquitto passed nothing on");
        let per_second = received as f64 / seconds;
        Ok(Some(Messages { per_second, cpu_us: cpu * 1e6 / received as f64 }))
    })
}

fn start(dir: &Path) -> Result<Option<(Server, SocketAddr)>> {
    let [address] = free_addresses()?;
    let config = dir.join("config");
    let (port, host, dir_shown) = (address.port(), address.ip(), dir.display());
    let text = format!(
        "listener {port} {host}\nallow_anonymous true\npersistence true\n\
         persistence_location {dir_shown}/\nmax_queued_messages 100000\nset_tcp_nodelay true\n\
         log_type error\nuser root\n"
    );
    std::fs::write(&config, text)?;
    let server = Server::start(Command::new("mosquitto").arg("-c").arg(&config), dir)?;
    let Some(mut server) = server else { return Ok(None) };
    server.wait_listening(address)?;
    Ok(Some((server, address)))
}

async fn connect_all(address: SocketAddr, prefix: &str, count: usize) -> Result<Vec<TcpStream>> {
    let one = |nth: usize| connect(address, format!("{prefix}-{nth}"), nth);
    iter((0..count).map(one)).buffer_unordered(LOGINS_AT_ONCE).try_collect().await
}

async fn connect(address: SocketAddr, id: String, nth: usize) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Several source addresses: one has too few ports for many connections.
    let source = Ipv4Addr::new(127, 2, u8::try_from(nth / 10_000).unwrap_or(0), 1);
    socket.bind(SocketAddr::from((source, 0)))?;
    let mut stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    let mut packet = BytesMut::new();
    packet.put_u8(0x10);
    put_length(&mut packet, 10 + 2 + id.len());
    packet.put_slice(b"\0\x04MQTT\x04\0");
    packet.put_u16(KEEP_ALIVE);
    put_text(&mut packet, &id);
    stream.write_all(&packet).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    ensure!(answer[0] == 0x20 && answer[3] == 0, "mosquitto refuses a client: {answer:?}");
    Ok(stream)
}

/// What clients that talk have in common.
struct Talk {
    clients: usize,
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
        let topic = topic((scatter(number) % self.clients as u64) as usize);
        out.put_u8(0x32);
        put_length(out, 2 + topic.len() + 2 + BODY_BYTES);
        put_text(out, &topic);
        // Ids of messages under way must differ, and are never 0.
        out.put_u16((number % 65_535 + 1) as u16);
        out.put_bytes(b'x', BODY_BYTES);
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

/// Acknowledges what comes, and sends another for each message that was.
async fn read(talk: Arc<Talk>, nth: usize, mut reader: OwnedReadHalf) {
    let mut input = BytesMut::with_capacity(16 * 1024);
    loop {
        let mut is_answered = false;
        while let Some((kind, mut packet)) = take_packet(&mut input) {
            if kind >> 4 != 3 || packet.len() < 2 {
                continue;
            }
            let topic_length = usize::from(packet.get_u16());
            if packet.len() < topic_length + 2 {
                return;
            }
            packet.advance(topic_length);
            let id = packet.get_u16();
            talk.received.fetch_add(1, Ordering::Relaxed);
            let mut out = talk.out[nth].lock();
            out.bytes.put_slice(&[0x40, 2]);
            out.bytes.put_u16(id);
            if !talk.is_over.load(Ordering::Relaxed) {
                talk.publish(&mut out.bytes);
            }
            is_answered = true;
        }
        if is_answered {
            talk.out[nth].lock().written.notify_one();
        }
        if !matches!(reader.read_buf(&mut input).await, Ok(1..)) {
            return;
        }
    }
}

/// The first byte and the rest of the next packet, if it is whole.
fn take_packet(input: &mut BytesMut) -> Option<(u8, BytesMut)> {
    let kind = *input.first()?;
    let (mut length, mut shift, mut at) = (0_usize, 0, 1);
    loop {
        let byte = *input.get(at)?;
        length |= usize::from(byte & 0x7f) << shift;
        (at, shift) = (at + 1, shift + 7);
        if byte & 0x80 == 0 || shift > 21 {
            break;
        }
    }
    if input.len() < at + length {
        return None;
    }
    input.advance(at);
    Some((kind, input.split_to(length)))
}

fn topic(nth: usize) -> String {
    format!("u/{nth}")
}

fn subscribe(out: &mut BytesMut, nth: usize) {
    let topic = topic(nth);
    out.put_u8(0x82);
    put_length(out, 2 + 2 + topic.len() + 1);
    out.put_u16(1);
    put_text(out, &topic);
    out.put_u8(1);
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

fn put_length(out: &mut BytesMut, mut length: usize) {
    while length >= 0x80 {
        out.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_where_their_length_says() {
        let mut bytes = BytesMut::new();
        bytes.put_u8(0x32);
        put_length(&mut bytes, 300);
        bytes.put_bytes(7, 299);
        assert_eq!(take_packet(&mut bytes.clone()), None);
        bytes.put_slice(&[7, 0x40]);
        let (kind, packet) = take_packet(&mut bytes).expect("whole");
        assert_eq!((kind, packet.len(), &bytes[..]), (0x32, 300, &[0x40][..]));
    }
}
