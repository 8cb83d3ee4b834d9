//! Running the real binary: processes that are read line by line, stopped by signal, killed by pid.
//!
//! Every wait is for a condition, with a deadline that only a hang reaches.

#![allow(dead_code, reason = "each test file uses its part of this")]

pub(crate) mod network;
pub(crate) mod server;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for anything; reached by a hang only.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The binary under test; another one by `SWITCHBOARD_TEST_BINARY` (such as a release build).
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("SWITCHBOARD_TEST_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_switchboard")), PathBuf::from)
}

/// The binary with arguments and without this process's `SWITCHBOARD_*` variables.
pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(binary());
    command.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SWITCHBOARD_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the binary to its end.
pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    command(args).stdin(Stdio::null()).output().expect("the binary starts")
}

/// Standard output of a command that must succeed.
pub(crate) fn succeed<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let output = run(args);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out
}

/// Bytes as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A process whose standard output is read line by line. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    errors: Option<std::thread::JoinHandle<()>>,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Process {
    /// Starts the binary.
    pub(crate) fn start<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Process {
        Process::spawn(&mut command(args))
    }

    /// Starts a prepared command.
    pub(crate) fn spawn(command: &mut Command) -> Process {
        Process::spawn_with_log(command, None)
    }

    /// The same; what it writes goes to a file, too, so that it outlives a failure.
    pub(crate) fn spawn_with_log(command: &mut Command, log: Option<File>) -> Process {
        let log = log.map(Arc::new);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let out = child.stdout.take().expect("piped");
        let mut err = child.stderr.take().expect("piped");
        let (sender, lines) = channel();
        let out_log = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some(mut log) = out_log.as_deref() {
                    writeln!(log, "{line}").expect("a log can be written");
                }
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let said = Arc::new(Mutex::new(Vec::new()));
        let saying = said.clone();
        let errors = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = err.read(&mut bytes) {
                if let Some(mut log) = log.as_deref() {
                    log.write_all(&bytes[..length]).expect("a log can be written");
                }
                let mut said = saying.lock().unwrap_or_else(PoisonError::into_inner);
                said.extend_from_slice(&bytes[..length]);
            }
        });
        Process { child, lines, errors: Some(errors), said }
    }

    /// The next line of standard output; `None` at its end.
    pub(crate) fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("no line within {DEADLINE:?}; errors: {}", self.errors())
            }
        }
    }

    /// Reads lines until one fits.
    pub(crate) fn line_with(&mut self, part: &str) -> String {
        let mut seen = Vec::new();
        while let Some(line) = self.line() {
            if line.contains(part) {
                return line;
            }
            seen.push(line);
        }
        panic!("`{part}` did not come; lines: {seen:?}; errors: {}", self.errors());
    }

    /// Reads the `listening` lines up to `ready`.
    pub(crate) fn listening(&mut self) -> BTreeMap<String, SocketAddr> {
        self.try_listening().unwrap_or_else(|| panic!("it ended before `ready`: {}", self.errors()))
    }

    /// The same; `None` if it ends first.
    pub(crate) fn try_listening(&mut self) -> Option<BTreeMap<String, SocketAddr>> {
        let mut addresses = BTreeMap::new();
        while let Some(line) = self.line() {
            if line == "ready" {
                return Some(addresses);
            }
            if let Some((name, address)) =
                line.strip_prefix("listening ").and_then(|rest| rest.split_once(' '))
            {
                addresses.insert(name.to_owned(), address.parse().expect("an address"));
            }
        }
        None
    }

    /// Reads lines until it listens at so many addresses; false if it ends first. A store that waits
    /// for its cluster listens long before it is ready.
    pub(crate) fn is_listening(&mut self, addresses: usize) -> bool {
        let mut seen = 0;
        while seen < addresses {
            match self.line() {
                Some(line) => seen += usize::from(line.starts_with("listening ")),
                None => return false,
            }
        }
        true
    }

    /// Reads lines up to `ready`.
    pub(crate) fn ready(&mut self) {
        self.line_with("ready");
    }

    /// Types a line.
    pub(crate) fn type_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("it reads");
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        terminate(&self.child);
        self.wait()
    }

    /// Interrupts it, as a terminal does (SIGINT).
    pub(crate) fn interrupt(&self) {
        signal(&self.child, Signal::INT);
    }

    /// Ends it at once (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
    }

    /// Lets it stand still (SIGSTOP), as a machine does that swaps, or whose host is busy.
    pub(crate) fn stop(&self) {
        signal(&self.child, Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn go_on(&self) {
        signal(&self.child, Signal::CONT);
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                return status;
            }
            assert!(Instant::now() < until, "it did not end within {DEADLINE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is a child").is_none()
    }

    /// Standard error, once it has ended (and it is ended here if it has not).
    pub(crate) fn errors(&mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(errors) = self.errors.take() {
            let _ = errors.join();
        }
        text(&self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Asks a process to end (SIGTERM).
pub(crate) fn terminate(child: &Child) {
    signal(child, Signal::TERM);
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, signal).expect("it can be signalled");
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The arguments that put a `dev` with its own data on ports of the system's choice.
pub(crate) fn dev_args(data: &Path) -> Vec<String> {
    vec!["dev".into(), "--free-ports".into(), "--data".into(), data.display().to_string()]
}

/// Generates conversations as JSON lines: everybody talks to some others, in turns.
pub(crate) fn conversations(path: &Path, users: usize, conversations: usize, messages: usize) {
    let mut lines = String::new();
    for conversation in 0..conversations {
        let one = conversation % users;
        let other = (one + 1 + conversation / users % (users - 1)) % users;
        for n in 0..messages {
            // Turns of one to three messages.
            let (from, to) =
                if n / (1 + conversation % 3) % 2 == 0 { (one, other) } else { (other, one) };
            let text = match n % 7 {
                0 => String::new(),
                1 => "é".repeat(n),
                _ => format!("message {n} of conversation {conversation}"),
            };
            let line = serde_json::json!({
                "conversation": format!("c{conversation}"), "n": n, "at": n,
                "from": format!("user-{from}"), "to": format!("user-{to}"), "text": text,
            });
            lines.push_str(&format!("{line}\n"));
        }
    }
    std::fs::write(path, lines).expect("a file can be written");
}
