//! Redis as a process of its own: the queue and the session store that most would run instead.
//!
//! Started on a free port with its files in a directory of the run, and ended with the value. What it
//! is told is what a careful user would tell it: `appendonly yes`, and a sync for every answer where
//! ours syncs too.

use std::{
    io::{BufRead, BufReader, BufWriter, ErrorKind, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// How long it may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running server.
pub struct Redis {
    process: Child,
    port: u16,
}

impl Redis {
    /// Starts a server in `dir` and waits until it answers; `None` when it is not installed.
    pub fn start(dir: &Path, options: &[&str]) -> Result<Option<Self>> {
        // Free at this moment; whoever takes it in between makes the start fail, and is told.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let started = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--daemonize", "no", "--dir"])
            .arg(dir)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let process = match started {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            started => started.context("cannot start redis-server")?,
        };
        let mut server = Self { process, port };
        server.wait_until_ready()?;
        Ok(Some(server))
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Ok(mut client) = Client::connect(self.port)
                && client.call(&[b"PING"]).is_ok()
            {
                return Ok(());
            }
            if let Some(status) = self.process.try_wait()? {
                bail!("redis-server ended at once with {status}");
            }
            ensure!(started.elapsed() < READY_WITHIN, "redis-server is not ready after a minute");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until no rewrite of the append-only file is under way.
    pub fn wait_for_rewrite(&self, client: &mut Client) -> Result<()> {
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let Value::Bytes(info) = client.call(&[b"INFO", b"persistence"])? else {
                bail!("Redis answers INFO with something else than text");
            };
            let info = String::from_utf8_lossy(&info).into_owned();
            let is_idle = |name: &str| info.contains(&format!("{name}:0"));
            if is_idle("aof_rewrite_in_progress") && is_idle("aof_rewrite_scheduled") {
                return Ok(());
            }
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A connection.
    pub fn client(&self) -> Result<Client> {
        Client::connect(self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string, short or long.
    Bytes(Vec<u8>),
    /// A number.
    Number(i64),
    /// A list.
    List(Vec<Value>),
    /// Nothing.
    Nil,
}

/// A connection: commands are gathered, sent together, and answered in order.
pub struct Client {
    input: BufReader<TcpStream>,
    output: BufWriter<TcpStream>,
}

impl Client {
    fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let input = BufReader::with_capacity(64 * 1024, stream.try_clone()?);
        Ok(Self { input, output: BufWriter::with_capacity(64 * 1024, stream) })
    }

    /// Adds a command to what is sent next.
    pub fn push(&mut self, command: &[&[u8]]) -> Result<()> {
        write!(self.output, "*{}\r\n", command.len())?;
        for part in command {
            write!(self.output, "${}\r\n", part.len())?;
            self.output.write_all(part)?;
            self.output.write_all(b"\r\n")?;
        }
        Ok(())
    }

    /// Sends what was gathered.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.output.flush()?)
    }

    /// One answer; an error that the server answers is an error here.
    pub fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.input.read_line(&mut line)?;
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).context("Redis closed the connection")?;
        match kind {
            "+" => Ok(Value::Bytes(rest.as_bytes().to_vec())),
            "-" => bail!("Redis answers {rest}"),
            ":" => Ok(Value::Number(rest.parse()?)),
            "$" => self.bytes(rest.parse()?),
            "*" => self.list(rest.parse()?),
            kind => bail!("Redis answers something unknown: {kind}"),
        }
    }

    fn bytes(&mut self, length: i64) -> Result<Value> {
        use std::io::Read;
        let Ok(length) = usize::try_from(length) else { return Ok(Value::Nil) };
        let mut bytes = vec![0; length + 2];
        self.input.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok(Value::Bytes(bytes))
    }

    fn list(&mut self, length: i64) -> Result<Value> {
        let Ok(length) = usize::try_from(length) else { return Ok(Value::Nil) };
        (0..length).map(|_| self.answer()).collect::<Result<_>>().map(Value::List)
    }

    /// Sends one command and waits for its answer.
    pub fn call(&mut self, command: &[&[u8]]) -> Result<Value> {
        self.push(command)?;
        self.flush()?;
        self.answer()
    }
}
