//! The processes that hold the connections, and what is said between them and their parent.

use std::collections::HashMap;
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::idle::Held;
use crate::output::{Failure, print_line};

/// What a worker says when its connections are open, when it is asked, and at its end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) open: usize,
    pub(super) resumed: usize,
    pub(super) failures: Vec<String>,
    /// Messages of its devices that are safe.
    pub(super) accepted: usize,
    /// How long messages to its devices took.
    pub(super) arrived_us: Vec<u64>,
}

impl Progress {
    pub(super) fn of(held: &Held) -> Progress {
        let (accepted, arrived_us) = held.heard();
        let failures = held.failures.clone();
        Progress { open: held.open(), resumed: held.resumed, failures, accepted, arrived_us }
    }

    pub(super) fn say(&self) -> Result<(), Failure> {
        let line =
            serde_json::to_string(self).map_err(|error| Failure::failed(error.to_string()))?;
        print_line(&line)
    }
}

/// A worker, and its voice.
pub(super) struct Worker {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Closing it ends the worker.
    stdin: Option<ChildStdin>,
}

impl Worker {
    pub(super) fn start(arguments: &[String], token: &str) -> Result<Worker, Failure> {
        let failed = |error| Failure::failed(format!("cannot start a worker: {error}"));
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(["bench", "connections"])
            .args(arguments)
            .env("SWITCHBOARD_TOKEN", token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stdout = stdout.ok_or_else(|| Failure::failed("a worker has no output"))?;
        Ok(Worker { child, lines: BufReader::new(stdout).lines(), stdin })
    }

    /// What it says next.
    pub(super) async fn next(&mut self) -> Result<Progress, Failure> {
        let line = self.lines.next_line().await.ok().flatten();
        line.and_then(|line| serde_json::from_str(&line).ok()).ok_or_else(died)
    }

    /// Tells it who is to send a message to whom.
    pub(super) async fn talk(&mut self, pairs: &HashMap<usize, usize>) -> Result<(), Failure> {
        let line =
            serde_json::to_string(pairs).map_err(|error| Failure::failed(error.to_string()))?;
        self.say(&line).await
    }

    /// Asks how it stands.
    pub(super) async fn ask(&mut self) -> Result<Progress, Failure> {
        self.say("?").await?;
        self.next().await
    }

    async fn say(&mut self, line: &str) -> Result<(), Failure> {
        let stdin = self.stdin.as_mut().ok_or_else(died)?;
        stdin.write_all(format!("{line}\n").as_bytes()).await.map_err(|_| died())
    }

    /// Ends it; its last word is still to come.
    pub(super) fn ending(mut self) -> Worker {
        self.stdin = None;
        self
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) {
        // It has said its last: how it ends does not matter.
        let _ = self.child.wait().await;
    }
}

fn died() -> Failure {
    Failure::failed("a worker has died; what it said stands above")
}
