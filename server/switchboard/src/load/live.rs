//! How a load test stands while it runs: a line on a terminal, one now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::samples::Sums;

/// How often the line is brought up to date.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
/// Between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Where the line goes.
#[derive(Debug)]
pub(crate) struct Live {
    out: Out,
    begun: Instant,
    /// When it was last brought up to date, and how many items were done then.
    last: (Instant, u64),
}

#[derive(Debug)]
enum Out {
    Quiet,
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Live {
    /// A line on standard error for a run of this length, unless it is not wanted.
    pub(crate) fn new(length: Duration, quiet: bool) -> Live {
        let now = Instant::now();
        let out = if quiet {
            Out::Quiet
        } else if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{elapsed_precise} {bar:24} {msg}");
            let bar = ProgressBar::new(length.as_secs().max(1));
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            Out::Bar(bar)
        } else {
            Out::Lines { last: now }
        };
        Live { out, begun: now, last: (now, 0) }
    }

    /// Whether anybody looks.
    pub(crate) fn is_shown(&self) -> bool {
        !matches!(self.out, Out::Quiet)
    }

    /// Shows how it stands.
    pub(crate) fn show(&mut self, sums: &Sums, missed: u64) {
        let now = Instant::now();
        let (then, items) = std::mem::replace(&mut self.last, (now, sums.items_ever));
        let seconds = (now - then).as_secs_f64().max(1e-3);
        let rate = sums.items_ever.saturating_sub(items) as f64 / seconds;
        let words = words(rate, sums, missed);
        match &mut self.out {
            Out::Quiet => {}
            Out::Bar(bar) => {
                bar.set_position(self.begun.elapsed().as_secs());
                bar.set_message(words);
            }
            Out::Lines { last } => {
                if last.elapsed() >= LINE_INTERVAL {
                    *last = now;
                    eprintln!("{:3.0} s: {words}", self.begun.elapsed().as_secs_f64());
                }
            }
        }
    }

    /// Takes the line away: the report follows.
    pub(crate) fn finish(&self) {
        if let Out::Bar(bar) = &self.out {
            bar.finish_and_clear();
        }
    }
}

fn words(rate: f64, sums: &Sums, missed: u64) -> String {
    let quantile = |share: f64| sums.latency_us.value_at_quantile(share) as f64 / 1e3;
    let mut words = format!("{rate:.0}/s");
    if sums.calls > 0 {
        words += &format!(", p50 {:.2} ms, p99 {:.2} ms", quantile(0.5), quantile(0.99));
    } else {
        words += ", warming up";
    }
    if missed > 0 {
        words += &format!(", {missed} calls late");
    }
    let refused: u64 = sums.refused.values().sum();
    if refused > 0 {
        words += &format!(", {refused} refused");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_wrong() {
        let mut sums = Sums::new();
        assert_eq!(words(0.0, &sums, 0), "0/s, warming up");
        sums.calls = 1;
        sums.latency_us.saturating_record(1500);
        sums.refused.insert("OVERLOADED", 7);
        let line = words(100_000.4, &sums, 3);
        assert_eq!(line, "100000/s, p50 1.50 ms, p99 1.50 ms, 3 calls late, 7 refused");
    }
}
