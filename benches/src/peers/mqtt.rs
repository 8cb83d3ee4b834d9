//! mosquitto as a process of its own: what many would run instead of gateways and chat.
//!
//! Sessions that outlive connections (`clean_session` 0), one topic a user, messages of QoS 1; what is
//! queued is in memory and written to disk every half an hour, so that nothing here is durable when it is
//! acknowledged. The client speaks the few packets of MQTT 3.1.1 that this takes.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Result, ensure};
use bytes::{Buf as _, BufMut, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::talk::{self, Connections, Messages, Protocol};
use crate::{
    processes::{Server, free_addresses},
    workload::BODY_BYTES,
};

/// Seconds that a client may be silent.
const KEEP_ALIVE: u16 = 600;

/// Connects so many clients that then do nothing. `None`: not installed.
pub fn connections(dir: &Path, count: usize) -> Result<Option<Connections>> {
    let Some((server, address)) = start(dir)? else { return Ok(None) };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let _warm = talk::all(100, |nth| connect(address, "warm", nth)).await?;
        talk::idle(server.pid(), count, |nth| connect(address, "idle", nth)).await.map(Some)
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
        let streams = talk::all(clients, |nth| connect(address, "user", nth)).await?;
        let protocol = Protocol { greet: subscribe, publish, take };
        talk::talk(server.pid(), streams, protocol, in_flight, length).await.map(Some)
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

async fn connect(address: SocketAddr, prefix: &str, nth: usize) -> Result<TcpStream> {
    let (id, mut stream) = (format!("{prefix}-{nth}"), talk::open(address, nth).await?);
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

fn publish(out: &mut BytesMut, to: usize, number: u64) {
    let topic = topic(to);
    out.put_u8(0x32);
    put_length(out, 2 + topic.len() + 2 + BODY_BYTES);
    put_text(out, &topic);
    // Ids of messages under way must differ, and are never 0.
    out.put_u16((number % 65_535 + 1) as u16);
    out.put_bytes(b'x', BODY_BYTES);
}

/// Acknowledges messages.
fn take(input: &mut BytesMut, out: &mut BytesMut) -> Option<bool> {
    let (kind, mut packet) = take_packet(input)?;
    if kind >> 4 != 3 || packet.len() < 2 {
        return Some(false);
    }
    let topic_length = usize::from(packet.get_u16());
    if packet.len() < topic_length + 2 {
        return Some(false);
    }
    packet.advance(topic_length);
    out.put_slice(&[0x40, 2]);
    out.put_u16(packet.get_u16());
    Some(true)
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
