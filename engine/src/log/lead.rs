//! Who writes: the log's own thread, or a caller who would only wait for it.
//!
//! ```text
//!  append ────── wakes ──────▶ thread ──┐
//!                                       ├─ lock of the writer ─▶ one frame, one sync, completions
//!  append_wait ─ nobody writes ─▶ self ─┘
//!              └ somebody does ─▶ waits; whoever writes sees to what came meanwhile
//! ```
//!
//! A single caller that waits for each append pays no hand-over between threads that way. Nobody is
//! forgotten: whoever lets go of the writer looks at the queue afterwards, and whoever found the
//! writer taken had put its records into the queue before.

use std::sync::mpsc;

use parking_lot::Mutex;

use super::error::{AppendError, Fault};
use super::options::WriterMode;
use super::shared::Shared;
use super::writer::{LogStep, Writer};

type Outcome = Result<(), AppendError>;

/// Waits for a completion, and writes meanwhile if nobody else does.
pub(super) fn wait(
    shared: &Shared,
    writer: &Mutex<Writer>,
    receiver: &mpsc::Receiver<Outcome>,
) -> Outcome {
    if shared.options.writer == WriterMode::Stepped {
        return wait_stepping(shared, writer, receiver);
    }
    loop {
        if let Ok(outcome) = receiver.try_recv() {
            shared.leave_to_thread();
            return outcome;
        }
        let Some(mut held) = writer.try_lock() else { break };
        let _panicked = Panicked(shared);
        if held.step(shared) != LogStep::Wrote {
            break;
        }
    }
    shared.leave_to_thread();
    receiver.recv().unwrap_or(Err(AppendError::Closed))
}

fn wait_stepping(
    shared: &Shared,
    writer: &Mutex<Writer>,
    receiver: &mpsc::Receiver<Outcome>,
) -> Outcome {
    loop {
        if let Ok(outcome) = receiver.try_recv() {
            return outcome;
        }
        let step = writer.lock().step(shared);
        if step != LogStep::Wrote {
            return receiver.try_recv().unwrap_or(Err(AppendError::Stalled));
        }
    }
}

/// Closes the log if a completion panics, so that nobody waits for ever.
struct Panicked<'a>(&'a Shared);

impl Drop for Panicked<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = std::io::Error::other("the writer panicked");
            self.0.poison(Fault::new("write", &self.0.dir, error), Vec::new());
        }
    }
}

/// The writer's thread: works until the last handle is gone and all is written.
pub(super) fn run(shared: &Shared, writer: &Mutex<Writer>) {
    let _panicked = Panicked(shared);
    loop {
        let step = writer.lock().step(shared);
        match step {
            LogStep::Wrote => {}
            LogStep::Closed => return,
            LogStep::Stalled => {
                let mut queue = shared.queue.lock();
                if queue.stopping {
                    drop(queue);
                    return shared.close(&AppendError::Closed, Vec::new());
                }
                // A segment that became ready in between has set the flag already.
                if !queue.next_ready {
                    shared.wake.wait(&mut queue);
                }
            }
            LogStep::Idle => {
                if let Err(fault) = rest_or_record(shared, writer) {
                    return shared.poison(fault, Vec::new());
                }
            }
        }
        if shared.is_done() {
            if let Err(fault) = writer.lock().record(shared) {
                shared.poison(fault, Vec::new());
            }
            return shared.close(&AppendError::Closed, Vec::new());
        }
    }
}

/// Waits for work; after a silence, records what is durable.
fn rest_or_record(shared: &Shared, writer: &Mutex<Writer>) -> Result<(), Fault> {
    let mut queue = shared.queue.lock();
    if !queue.is_empty() || queue.stopping {
        return Ok(());
    }
    if !queue.is_unrecorded {
        queue.is_resting = true;
        shared.wake.wait(&mut queue);
        queue.is_resting = false;
        return Ok(());
    }
    let commits = queue.commits;
    let timed_out = shared.wake.wait_for(&mut queue, shared.options.silence).timed_out();
    // A caller who wrote by itself woke nobody, but it broke the silence.
    let is_silent = timed_out && queue.is_empty() && queue.commits == commits;
    drop(queue);
    if is_silent { writer.lock().record(shared) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::keeper::Next;
    use super::super::{LogOptions, opening};
    use super::*;
    use crate::fs::sim::SimFiles;

    /// The keeper's news and the writer's look at the keeper cross: what was seen before the news
    /// must not be what stays.
    #[test]
    fn a_segment_that_becomes_ready_while_the_writer_looks_is_not_overlooked() {
        let options = LogOptions {
            segment_bytes: 64 * 1024,
            writer: WriterMode::Stepped,
            ..LogOptions::default()
        };
        let files = Arc::new(SimFiles::new(1));
        let (shared, _writer) = opening::open(files, Path::new("/log"), options).unwrap();
        let Next::Ready(next) = shared.keeper.next() else { panic!("a first spare") };
        shared.refresh_outlook();
        assert!(!shared.queue.lock().next_ready);

        let queue = shared.queue.lock();
        let (started, at_work) = mpsc::channel();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                started.send(()).unwrap();
                shared.refresh_outlook();
            });
            at_work.recv().unwrap();
            // Gives the other thread time to run into the lock; it proves the same without.
            let (_keep, nothing) = mpsc::channel::<()>();
            nothing.recv_timeout(Duration::from_millis(50)).unwrap_err();
            shared.keeper.put_ready(next);
            drop(queue);
            writer.join().unwrap();
        });
        assert!(
            shared.queue.lock().next_ready,
            "the writer would wait for a segment that is there"
        );
    }
}
