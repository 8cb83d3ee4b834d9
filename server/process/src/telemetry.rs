//! Logging: `tracing` events on standard error, as text or as one JSON object a line. Panics are
//! events too. Nobody waits for standard error: see `log_writer`.
//!
//! Bodies, tokens and user ids belong to no event above debug.

use std::{
    io::{self, Write as _},
    sync::OnceLock,
};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::{limits::LOG_FLUSH_MAX, log_writer::LogWriter};

/// The writer of the process, once there is one.
static WRITER: OnceLock<LogWriter> = OnceLock::new();

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For eyes.
    #[default]
    Text,
    /// For collectors: an object a line.
    Json,
}

/// What is logged, and how. A section of every process's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// A filter in the syntax of `tracing`'s env filter, such as `info,switchboard_store=debug`.
    pub filter: String,
    /// `text` or `json`.
    pub format: Format,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: Format::Text }
    }
}

impl LogConfig {
    /// Reports a filter that does not parse.
    pub fn validate(&self, key: &str, faults: &mut crate::config::Faults) {
        if let Err(error) = EnvFilter::try_new(&self.filter) {
            faults.add(&format!("{key}.filter"), &format!("is no log filter: {error}"));
        }
    }
}

/// Installs the process's subscriber; false when one is installed already (it stays).
///
/// # Errors
/// When the thread that writes cannot be started.
pub fn init(config: &LogConfig) -> io::Result<bool> {
    let writer = match WRITER.get() {
        Some(writer) => writer,
        None => {
            let started = LogWriter::start(io::stderr())?;
            WRITER.get_or_init(|| started)
        }
    };
    // A filter that does not parse was reported by `validate`; logging too much beats not logging.
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| writer.clone())
        // It tells of a line that cannot be written on standard error, and panics if that has no
        // reader any more: in the middle of whatever task had something to say.
        .log_internal_errors(false);
    let installed = match config.format {
        Format::Text => {
            use std::io::IsTerminal as _;
            builder.with_ansi(std::io::stderr().is_terminal()).try_init().is_ok()
        }
        Format::Json => builder.json().flatten_event(true).try_init().is_ok(),
    };
    if installed {
        // The default hook writes to standard error itself, and would wait for it.
        std::panic::set_hook(Box::new(|panic| {
            let backtrace = std::backtrace::Backtrace::capture();
            tracing::error!(%backtrace, "{panic}");
        }));
    }
    Ok(installed)
}

/// Prints words for people on standard error, after the log lines so far. Whether anybody reads
/// them or not, a server goes on.
pub fn print(text: &str) {
    // Neither a reader that has gone away nor one that is asleep is an error of the process.
    let _ = match WRITER.get() {
        Some(writer) => writer.clone().write_all(format!("{text}\n").as_bytes()),
        None => writeln!(io::stderr(), "{text}"),
    };
}

/// Waits, for [`LOG_FLUSH_MAX`] at most, until everything is written.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        // What cannot be written by then has no reader.
        let _ = writer.flush(LOG_FLUSH_MAX);
    }
}
