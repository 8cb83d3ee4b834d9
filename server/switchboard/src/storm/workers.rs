//! The workers that hold the crowd, as their parent sees them.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::crowd::{End, Said};
use crate::output::Failure;

/// How often it is looked whether the crowd stands as it should.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long workers may take to hear that the storm begins.
const WARNED_WITHIN: Duration = Duration::from_secs(30);
/// How long a worker may take for its last word.
const END_WITHIN: Duration = Duration::from_secs(30);

/// All workers.
#[derive(Debug)]
pub(crate) struct Workers(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    child: Child,
    /// Closing it ends the worker.
    stdin: ChildStdin,
    /// What it said last. A lock, because it is read while the worker speaks; held to swap one value.
    last: Arc<Mutex<Said>>,
    listening: JoinHandle<()>,
}

/// How the crowd stands.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Standing {
    pub(crate) online: usize,
    pub(crate) back: usize,
    pub(crate) received: usize,
    /// Workers that know when the storm begins.
    pub(crate) warned: usize,
}

impl Workers {
    /// Starts one for each part of the crowd; `arguments` make this program a worker for
    /// (its first device, how many).
    pub(crate) fn start(
        parts: &[(usize, usize)],
        arguments: impl Fn(usize, usize) -> Vec<String>,
        token: &str,
    ) -> Result<Workers, Failure> {
        let start =
            |(first, count): &(usize, usize)| Worker::start(&arguments(*first, *count), token);
        parts.iter().map(start).collect::<Result<_, _>>().map(Workers)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn standing(&self) -> Standing {
        self.0.iter().fold(Standing::default(), |sum, worker| {
            let last = worker.last.lock();
            Standing {
                online: sum.online + last.online,
                back: sum.back + last.back,
                received: sum.received + last.received,
                warned: sum.warned + usize::from(last.is_warned),
            }
        })
    }

    /// Waits until it stands so, and says whether it did within this time. `shown` is called now and then.
    pub(crate) async fn until(
        &self,
        within: Duration,
        is_so: impl Fn(Standing) -> bool,
        mut shown: impl FnMut(Standing),
    ) -> Result<bool, Failure> {
        let started = Instant::now();
        loop {
            let standing = self.standing();
            if is_so(standing) {
                return Ok(true);
            }
            if self.0.iter().any(|worker| worker.listening.is_finished()) {
                return Err(Failure::failed("a worker has died; what it said stands above"));
            }
            if started.elapsed() > within {
                return Ok(false);
            }
            shown(standing);
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Tells all that the storm begins, and waits until they know: who came back before would not count.
    pub(crate) async fn warn(&mut self, storm_ms: u64) -> Result<(), Failure> {
        for worker in &mut self.0 {
            let line = format!("{storm_ms}\n");
            worker
                .stdin
                .write_all(line.as_bytes())
                .await
                .map_err(|error| Failure::failed(format!("a worker does not listen: {error}")))?;
        }
        let all = self.len();
        match self.until(WARNED_WITHIN, |standing| standing.warned == all, |_| {}).await? {
            true => Ok(()),
            false => Err(Failure::failed("a worker does not hear that the storm begins")),
        }
    }

    /// Ends all, and gathers their last words.
    pub(crate) async fn end(self) -> Result<End, Failure> {
        let mut all = End::default();
        // All at once: each may have much to say.
        let (mut listening, mut children) = (Vec::new(), Vec::new());
        for Worker { child, stdin, last, listening: ends } in self.0 {
            drop(stdin);
            children.push(child);
            listening.push((ends, last));
        }
        for (ends, last) in listening {
            let _ = timeout(END_WITHIN, ends).await;
            let end = last.lock().end.take();
            let end = end.ok_or_else(|| Failure::failed("a worker ended without a last word"))?;
            all.back_at_ms.extend(end.back_at_ms);
            all.received.extend(end.received);
            all.repeats_dropped += end.repeats_dropped;
            for (why, times) in end.refusals {
                *all.refusals.entry(why).or_default() += times;
            }
        }
        Ok(all)
    }
}

impl Worker {
    fn start(arguments: &[String], token: &str) -> Result<Worker, Failure> {
        let failed = |error| Failure::failed(format!("cannot start a worker: {error}"));
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(arguments)
            .env("SWITCHBOARD_TOKEN", token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::failed("a worker has no input or output"));
        };
        let last: Arc<Mutex<Said>> = Arc::default();
        let listening = tokio::spawn(listen(BufReader::new(stdout).lines(), last.clone()));
        Ok(Worker { child, stdin, last, listening })
    }
}

async fn listen(mut lines: Lines<BufReader<ChildStdout>>, last: Arc<Mutex<Said>>) {
    while let Some(line) = lines.next_line().await.ok().flatten() {
        if let Ok(said) = serde_json::from_str(&line) {
            *last.lock() = said;
        }
    }
}
