//! How far a replay is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use super::checker::Counts;

/// Between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(15);

/// The state of a replay at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot {
    /// The checker's.
    pub(crate) counts: Counts,
    /// Users with a connection.
    pub(crate) users_online: usize,
    /// Repeats so far.
    pub(crate) repeats: u64,
    /// Reconnects so far.
    pub(crate) reconnects: u64,
    /// Since when the replay is draining; 0 while people still talk.
    pub(crate) waiting_us: u64,
}

/// Where progress goes.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Nowhere.
    Quiet,
    /// To a terminal.
    Bar(ProgressBar),
    /// To something that keeps lines.
    Lines {
        /// Messages in all.
        messages: u64,
        /// When the last line was written. A lock only because a reference is shared.
        last: Mutex<Instant>,
    },
}

impl Progress {
    /// Progress of this many messages on standard error.
    pub(crate) fn new(messages: u64, quiet: bool) -> Progress {
        if quiet {
            return Progress::Quiet;
        }
        if !std::io::stderr().is_terminal() {
            return Progress::Lines { messages, last: Mutex::new(Instant::now()) };
        }
        let style = ProgressStyle::with_template(
            "{elapsed_precise} {wide_bar} {pos}/{len} delivered, {msg}",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(messages);
        bar.set_style(style);
        Progress::Bar(bar)
    }

    /// Shows the state, if it is time.
    pub(crate) fn show(&self, snapshot: &Snapshot) {
        match self {
            Progress::Quiet => {}
            Progress::Bar(bar) => {
                bar.set_position(snapshot.counts.receipts_delivered);
                bar.set_message(words(snapshot));
            }
            Progress::Lines { messages, last } => {
                let mut last = last.lock();
                if last.elapsed() >= LINE_INTERVAL {
                    *last = Instant::now();
                    line(*messages, snapshot);
                }
            }
        }
    }

    /// Shows the last state.
    pub(crate) fn finish(&self, snapshot: &Snapshot) {
        match self {
            Progress::Quiet => {}
            Progress::Bar(bar) => {
                bar.set_position(snapshot.counts.receipts_delivered);
                bar.finish_with_message(words(snapshot));
            }
            Progress::Lines { messages, .. } => line(*messages, snapshot),
        }
    }
}

fn line(messages: u64, snapshot: &Snapshot) {
    let delivered = snapshot.counts.receipts_delivered;
    eprintln!("{delivered}/{messages} delivered, {}", words(snapshot));
}

fn words(snapshot: &Snapshot) -> String {
    let Snapshot { counts, users_online, repeats, reconnects, waiting_us } = snapshot;
    let phase = if *waiting_us > 0 { "draining, " } else { "" };
    format!(
        "{phase}{} sent, {} read, {users_online} users online, {reconnects} reconnects, {repeats} repeats",
        counts.accepted, counts.receipts_read
    )
}
