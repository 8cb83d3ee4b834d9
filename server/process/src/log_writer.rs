//! Where log lines go on their way to standard error: a bounded queue and a thread that writes.
//!
//! ```text
//!  any task ─ whole lines ─▶ queue (LOG_LINES_MAX) ─▶ thread ─▶ standard error
//!                  └─ full: the line is dropped and counted; the count is written once there is room
//! ```
//! A pipe that nobody reads takes some 64 KiB and then blocks whoever writes to it. If that were a
//! task of the server, a supervisor that has stopped reading would stop the server with it. So only
//! this thread ever waits for standard error, and a server is late with its log before it is late
//! with its work.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use crate::limits::LOG_LINES_MAX;

enum Item {
    Line(Vec<u8>),
    /// Told once everything before it is written.
    Flush(SyncSender<()>),
}

/// Takes lines and never waits. Clones write to the same queue.
#[derive(Clone)]
pub(crate) struct LogWriter {
    queue: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, items) = sync_channel(LOG_LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = dropped.clone();
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(out, &items, &counted))?;
        Ok(Self { queue, dropped })
    }

    /// Waits until what was handed over before is written; false if that takes too long.
    pub(crate) fn flush(&self, wait_max: Duration) -> bool {
        let (done, written) = sync_channel(1);
        // A queue that is full now is not written within any bound.
        self.queue.try_send(Item::Flush(done)).is_ok() && written.recv_timeout(wait_max).is_ok()
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Item::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes until all writers are gone. A reader that has gone away is no reason to stop: it is known
/// only by errors, and the queue must be emptied all the same.
fn write_all(mut out: impl Write, items: &Receiver<Item>, dropped: &AtomicU64) {
    while let Ok(item) = items.recv() {
        match item {
            Item::Line(line) => {
                let _ = out.write_all(&line);
                let lines = dropped.swap(0, Ordering::Relaxed);
                if lines > 0 {
                    let _ = writeln!(out, "({lines} log lines were dropped: nobody read them)");
                }
            }
            Item::Flush(done) => {
                let _ = out.flush();
                // Whoever asked may have given up.
                let _ = done.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A pipe that is read only when the test says so.
    struct Gate {
        open: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once the test has dropped its end, everything may be written.
            let _ = self.open.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up() {
        let (let_through, open) = channel();
        let (written, lines) = channel();
        let mut writer = LogWriter::start(Gate { open, written }).unwrap();
        let offered = LOG_LINES_MAX + 100;
        for n in 0..offered {
            // A line at a time, as the subscriber does.
            writer.write_all(format!("{n}\n").as_bytes()).unwrap();
        }
        assert!(!LogWriter::flush(&writer, Duration::from_millis(1)));
        drop(let_through);
        let mut text = Vec::new();
        while !text.windows(7).any(|part| part == b"dropped") {
            text.extend(lines.recv().unwrap());
        }
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("0\n("), "{text}");
        // The thread may have taken one line before the queue was full.
        assert!(text.contains("(99 log") || text.contains("(100 log"), "{text}");
    }

    #[test]
    fn a_flush_waits_for_the_lines_before_it() {
        let (written, lines) = channel();
        let (_, open) = channel();
        let mut writer = LogWriter::start(Gate { open, written }).unwrap();
        writer.write_all(b"last words\n").unwrap();
        assert!(LogWriter::flush(&writer, Duration::from_secs(60)));
        assert_eq!(lines.try_recv().unwrap(), b"last words\n");
    }
}
