//! NATS JetStream as processes of its own: the queue that most would run on three machines.
//!
//! One work-queue stream in files, a subject a recipient. A message counts when the stream has
//! acknowledged it. `sync_interval: always` is what makes that mean *on disk*; it takes a server of
//! version 2.10 or later, and an older one counts as not installed.
//!
//! The client speaks NATS's own protocol of text lines, as far as it takes to publish.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::{
    measure::cpu_seconds,
    processes::{Server, free_addresses},
    workload::scatter,
};

/// Names the server's program, where it is not `nats-server`.
const BINARY_VARIABLE: &str = "NATS_BIN";
/// Publishers, each with a connection and a thread of its own.
const PUBLISHERS: u64 = 4;
/// Messages that each has under way.
const UNDER_WAY: u64 = 64;
/// What an answer says when too much waits for the stream's replicas already.
const NO_ROOM: &str = "\"code\":429";
/// How long the servers may take to agree on who leads the stream.
const STREAM_WITHIN: Duration = Duration::from_secs(30);

/// When a server writes to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Every two minutes, as it is by default.
    Default,
    /// Before it acknowledges.
    Always,
}

/// What publishing came to.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// Messages acknowledged a second.
    pub per_second: f64,
    /// CPU of all servers a message.
    pub cpu_us: f64,
}

/// Publishes to a stream with so many replicas, on as many servers. `None`: not installed.
pub fn publish(
    dir: &Path,
    replicas: usize,
    sync: Sync,
    body_bytes: usize,
    length: Duration,
) -> Result<Option<Published>> {
    if sync == Sync::Always && !syncs_always()? {
        return Ok(None);
    }
    let Some((servers, addresses)) = start(dir, replicas, sync)? else { return Ok(None) };
    create_stream(&addresses, replicas)?;
    // A run before the one that counts, so that files and caches are there.
    load(&addresses, body_bytes, length / 4)?;
    let cpu = || servers.iter().map(|server| cpu_seconds(server.pid())).sum::<Result<f64>>();
    let before = cpu()?;
    let started = Instant::now();
    let messages = load(&addresses, body_bytes, length)? as f64;
    let seconds = started.elapsed().as_secs_f64();
    let cpu_us = (cpu()? - before) * 1e6 / messages;
    Ok(Some(Published { per_second: messages / seconds, cpu_us }))
}

fn program() -> String {
    std::env::var(BINARY_VARIABLE).unwrap_or_else(|_| "nats-server".to_owned())
}

/// Whether there is a server that can sync before it acknowledges.
fn syncs_always() -> Result<bool> {
    let Ok(output) = Command::new(program()).arg("--version").output() else { return Ok(false) };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.trim().rsplit(['v', ' ']).next().unwrap_or_default().to_owned();
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    Ok((numbers.next(), numbers.next()) >= (Some(2), Some(10)))
}

type Started = (Vec<Server>, Vec<SocketAddr>);

fn start(dir: &Path, replicas: usize, sync: Sync) -> Result<Option<Started>> {
    let clients: [SocketAddr; 3] = free_addresses()?;
    let routes: [SocketAddr; 3] = free_addresses()?;
    let urls: Vec<String> = routes.iter().map(|route| format!("nats://{route}")).collect();
    let mut servers = Vec::new();
    for node in 0..replicas {
        let own = dir.join(format!("n{node}"));
        std::fs::create_dir_all(&own)?;
        let mut config = format!("listen: \"{}\"\nserver_name: n{node}\n", clients[node]);
        if replicas > 1 {
            let (route, urls) = (routes[node], urls[..replicas].join(", "));
            writeln!(config, "cluster {{ name: c, listen: \"{route}\", routes: [{urls}] }}")?;
        }
        let store = own.join("js");
        writeln!(config, "jetstream {{ store_dir: \"{}\"", store.display())?;
        if sync == Sync::Always {
            config.push_str("  sync_interval: always\n");
        }
        config.push_str("}\n");
        let file = own.join("config");
        std::fs::write(&file, config)?;
        let mut command = Command::new(program());
        let Some(mut server) = Server::start(command.arg("-c").arg(&file), &own)? else {
            return Ok(None);
        };
        server.wait_listening(clients[node])?;
        servers.push(server);
    }
    Ok(Some((servers, clients[..replicas].to_vec())))
}

fn create_stream(addresses: &[SocketAddr], replicas: usize) -> Result<()> {
    let wanted = format!(
        "{{\"name\":\"Q\",\"subjects\":[\"q.>\"],\"retention\":\"workqueue\",\
         \"storage\":\"file\",\"num_replicas\":{replicas}}}"
    );
    let started = Instant::now();
    let mut last = String::new();
    while started.elapsed() < STREAM_WITHIN {
        let mut client = Client::connect(addresses[0])?;
        client.publish("$JS.API.STREAM.CREATE.Q", wanted.as_bytes())?;
        client.output.flush()?;
        match client.answer() {
            Ok(answer) if !answer.contains("\"error\"") => return Ok(()),
            Ok(answer) => last = answer,
            Err(error) => last = error.to_string(),
        }
        thread::sleep(Duration::from_millis(300));
    }
    bail!("NATS makes no stream: {last}")
}

fn load(addresses: &[SocketAddr], body_bytes: usize, length: Duration) -> Result<u64> {
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|nth| {
            let address = addresses[nth as usize % addresses.len()];
            thread::spawn(move || publish_for(address, nth, body_bytes, length))
        })
        .collect();
    let mut messages = 0;
    for publisher in publishers {
        messages += publisher.join().map_err(|_| anyhow!("a publisher panicked"))??;
    }
    Ok(messages)
}

/// Keeps messages under way for so long; how many were acknowledged. Each is sent when one was answered, as by
/// so many clients that wait for theirs. What the server has no room for (429) is sent again.
fn publish_for(address: SocketAddr, nth: u64, body_bytes: usize, length: Duration) -> Result<u64> {
    let mut client = Client::connect(address)?;
    let body = vec![b'x'; body_bytes];
    let (started, mut numbers, mut under_way, mut acknowledged) = (Instant::now(), 0.., 0, 0);
    loop {
        while under_way < UNDER_WAY && started.elapsed() < length {
            let number: u64 = numbers.next().context("numbers without end")?;
            let user = scatter(number * PUBLISHERS + nth) % 100_000;
            client.publish(&format!("q.user{user:012}"), &body)?;
            client.output.flush()?;
            under_way += 1;
        }
        if under_way == 0 {
            return Ok(acknowledged);
        }
        let answer = client.answer()?;
        under_way -= 1;
        if !answer.contains("\"error\"") {
            acknowledged += 1;
        } else if !answer.contains(NO_ROOM) {
            bail!("NATS refuses a message: {answer}");
        }
    }
}

/// A connection with one inbox for all answers.
struct Client {
    input: BufReader<TcpStream>,
    output: std::io::BufWriter<TcpStream>,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let input = BufReader::with_capacity(256 * 1024, stream.try_clone()?);
        let output = std::io::BufWriter::with_capacity(256 * 1024, stream);
        let mut client = Self { input, output };
        client.output.write_all(
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"version\":\"1\",\
              \"protocol\":1,\"headers\":true,\"no_responders\":true}\r\nSUB _INBOX.a 1\r\n",
        )?;
        Ok(client)
    }

    fn publish(&mut self, subject: &str, body: &[u8]) -> Result<()> {
        write!(self.output, "PUB {subject} _INBOX.a {}\r\n", body.len())?;
        self.output.write_all(body)?;
        Ok(self.output.write_all(b"\r\n")?)
    }

    /// The next message to the inbox; what else the server says is answered or passed over.
    fn answer(&mut self) -> Result<String> {
        loop {
            let mut line = String::new();
            ensure!(self.input.read_line(&mut line)? > 0, "NATS closed the connection");
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.first().copied() {
                Some("MSG" | "HMSG") => {
                    let bytes: usize = words.last().context("a length")?.parse()?;
                    let mut body = vec![0; bytes + 2];
                    self.input.read_exact(&mut body)?;
                    let is_plain = words[0] == "MSG";
                    let text = String::from_utf8_lossy(&body).trim().to_owned();
                    // With headers it is the server's word that nobody is there to take it.
                    return Ok(if is_plain { text } else { format!("\"error\" {text}") });
                }
                Some("PING") => {
                    self.output.write_all(b"PONG\r\n")?;
                    self.output.flush()?;
                }
                Some("-ERR") => bail!("NATS says {}", line.trim()),
                _ => {}
            }
        }
    }
}
