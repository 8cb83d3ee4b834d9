//! Logging: `tracing` events on standard error, as text or as one JSON object a line.
//!
//! Bodies, tokens and user ids belong to no event above debug.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

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
pub fn init(config: &LogConfig) -> bool {
    // A filter that does not parse was reported by `validate`; logging too much beats not logging.
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It tells of a line that cannot be written on standard error, and panics if that has no
        // reader any more: in the middle of whatever task had something to say.
        .log_internal_errors(false);
    match config.format {
        Format::Text => {
            use std::io::IsTerminal as _;
            builder.with_ansi(std::io::stderr().is_terminal()).try_init().is_ok()
        }
        Format::Json => builder.json().flatten_event(true).try_init().is_ok(),
    }
}
