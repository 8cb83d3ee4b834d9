//! ejabberd as a process of its own: a messenger that many run.
//!
//! Accounts in Mnesia, plain text, no stream management; messages with delivery receipts (XEP-0184), which the
//! receiving client sends. Nothing is durable when a message is passed on. The client speaks the little XMPP
//! that this takes, and looks for the stanzas' ends only.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{BufMut as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::talk::{self, Connections, Messages, Protocol};
use crate::{
    processes::{Server, free_addresses},
    workload::BODY_BYTES,
};

/// Where Debian has the programs of ejabberd.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";
const OPEN: &str = "<?xml version='1.0'?><stream:stream to='localhost' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const END: &[u8] = b"</message>";

/// Connects so many clients that then do nothing. `None`: not installed.
pub fn connections(dir: &Path, count: usize) -> Result<Option<Connections>> {
    let Some((server, address)) = start(dir)? else { return Ok(None) };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        const WARM: usize = 100;
        talk::all(WARM + count, |nth| register(address, nth)).await?;
        let _warm = talk::all(WARM, |nth| login(address, nth)).await?;
        talk::idle(server.pid(), count, |nth| login(address, WARM + nth)).await.map(Some)
    })
}

/// Lets clients send each other messages for so long, each with so many on their way to be received and answered by a
/// receipt. `None`: not installed.
pub fn messages(
    dir: &Path,
    clients: usize,
    in_flight: usize,
    length: Duration,
) -> Result<Option<Messages>> {
    let Some((server, address)) = start(dir)? else { return Ok(None) };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        talk::all(clients, |nth| register(address, nth)).await?;
        let streams = talk::all(clients, |nth| login(address, nth)).await?;
        let protocol = Protocol { greet, publish, take };
        talk::talk(server.pid(), streams, protocol, in_flight, length).await.map(Some)
    })
}

fn start(dir: &Path) -> Result<Option<(Server, SocketAddr)>> {
    let Some(libraries) = installed() else { return Ok(None) };
    let [address] = free_addresses()?;
    let (config, spool) = (dir.join("ejabberd.yml"), dir.join("spool"));
    std::fs::create_dir_all(&spool)?;
    let (port, host) = (address.port(), address.ip());
    std::fs::write(
        &config,
        format!(
            "loglevel: error\nhosts: [localhost]\nlisten:\n  - port: {port}\n    ip: \"{host}\"\n    \
             module: ejabberd_c2s\n    access: all\n    shaper: none\n    starttls: false\n    backlog: 1024\n\
             auth_method: [mnesia]\nregistration_timeout: infinity\nmodules:\n  mod_disco: {{}}\n  \
             mod_offline: {{}}\n  mod_ping: {{}}\n  mod_register:\n    ip_access: all\n    access: all\n  \
             mod_roster: {{}}\n"
        ),
    )?;
    let mut command = Command::new("erl");
    command.args(["-noinput", "+K", "true", "+P", "500000", "+Q", "131072", "-mnesia", "dir"]);
    command.arg(format!("\"{}\"", spool.display())).args(["-s", "ejabberd"]);
    command.current_dir(dir).env("HOME", dir).env("ERL_LIBS", libraries);
    command.env("EJABBERD_CONFIG_PATH", &config).env("EJABBERD_LOG_PATH", dir.join("log"));
    command.env("ERL_CRASH_DUMP_BYTES", "0");
    let Some(mut server) = Server::start(&mut command, dir)? else { return Ok(None) };
    server.wait_listening(address)?;
    Ok(Some((server, address)))
}

/// Where its libraries are, if it is installed.
fn installed() -> Option<PathBuf> {
    let is_it =
        |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("ejabberd-");
    let is_there = std::fs::read_dir(LIBRARIES).ok()?.flatten().any(is_it);
    is_there.then(|| PathBuf::from(LIBRARIES))
}

/// Makes an account, over a connection of its own.
async fn register(address: SocketAddr, nth: usize) -> Result<()> {
    let mut stream = opened(address, nth).await?;
    let ask = format!(
        "<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>u{nth}</username>\
         <password>p</password></query></iq>"
    );
    say(&mut stream, &ask, "type='result'").await
}

async fn login(address: SocketAddr, nth: usize) -> Result<TcpStream> {
    let mut stream = opened(address, nth).await?;
    let secret = BASE64_STANDARD.encode(format!("\0u{nth}\0p"));
    let auth =
        format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>");
    say(&mut stream, &auth, "<success").await?;
    say(&mut stream, OPEN, "</stream:features>").await?;
    let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    say(&mut stream, bind, "type='result'").await?;
    stream.write_all(b"<presence/>").await?;
    Ok(stream)
}

async fn opened(address: SocketAddr, nth: usize) -> Result<TcpStream> {
    let mut stream = talk::open(address, nth).await?;
    say(&mut stream, OPEN, "</stream:features>").await?;
    Ok(stream)
}

/// Says something and waits until this is in the answer.
async fn say(stream: &mut TcpStream, words: &str, answer: &str) -> Result<()> {
    stream.write_all(words.as_bytes()).await?;
    let mut heard = BytesMut::new();
    let hear = async {
        while find(&heard, answer.as_bytes()).is_none() {
            if stream.read_buf(&mut heard).await? == 0 {
                bail!("ejabberd hangs up: {}", String::from_utf8_lossy(&heard));
            }
        }
        Ok(())
    };
    timeout(ANSWER_WITHIN, hear).await.with_context(|| format!("no {answer} from ejabberd"))?
}

fn greet(_: &mut BytesMut, _: usize) {}

fn publish(out: &mut BytesMut, to: usize, number: u64) {
    let head = format!("<message to='u{to}@localhost' type='chat' id='m{number}'><body>");
    out.put_slice(head.as_bytes());
    out.put_bytes(b'x', BODY_BYTES);
    out.put_slice(b"</body><request xmlns='urn:xmpp:receipts'/></message>");
}

/// Answers a message with a receipt.
fn take(input: &mut BytesMut, out: &mut BytesMut) -> Option<bool> {
    let end = find(input, END)? + END.len();
    let stanza = input.split_to(end);
    if find(&stanza, b"<body>").is_none() {
        return Some(false);
    }
    let (from, id) = (attribute(&stanza, b" from='")?, attribute(&stanza, b" id='")?);
    out.put_slice(b"<message to='");
    out.put_slice(from);
    out.put_slice(b"' type='chat'><received xmlns='urn:xmpp:receipts' id='");
    out.put_slice(id);
    out.put_slice(b"'/></message>");
    Some(true)
}

fn attribute<'a>(stanza: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let rest = &stanza[find(stanza, key)? + key.len()..];
    rest.split(|byte| *byte == b'\'').next()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_answered_by_a_receipt_and_a_receipt_by_nothing() {
        let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
        input.put_slice(b"<message xml:lang='en' to='u1@localhost/1' from='u2@localhost/9' type='chat' id='m7'>");
        assert_eq!(take(&mut input, &mut out), None);
        input.put_slice(
            b"<body>x</body><request xmlns='urn:xmpp:receipts'/></message><message to='u1'>",
        );
        assert_eq!(take(&mut input, &mut out), Some(true));
        let receipt = "<message to='u2@localhost/9' type='chat'><received xmlns='urn:xmpp:receipts' id='m7'/></message>";
        assert_eq!(out, receipt.as_bytes());
        input.put_slice(b"<received xmlns='urn:xmpp:receipts' id='m1'/></message>");
        assert_eq!(take(&mut input, &mut out), Some(false));
        assert!(input.is_empty());
    }
}
