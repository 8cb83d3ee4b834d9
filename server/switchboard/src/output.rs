//! How results and failures are shown.

use std::io::Write;
use std::process::ExitCode;

use clap::ValueEnum;
use comfy_table::Table;
use serde::Serialize;
use switchboard_process::telemetry;

/// The form of results on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Output {
    /// Prints a result in the form asked for.
    pub(crate) fn print<T: Serialize>(
        self,
        value: &T,
        table: impl FnOnce(&T) -> Table,
    ) -> Result<(), Failure> {
        let text = match self {
            Output::Table => table(value).to_string(),
            Output::Json => serde_json::to_string_pretty(value)
                .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?,
        };
        print_line(&text)
    }
}

/// Prints a line to standard output. A reader that went away ends the command quietly.
pub(crate) fn print_line(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// Prints one of several objects, on a line of its own.
pub(crate) fn print_event<T: Serialize>(event: &T) -> Result<(), Failure> {
    let line = serde_json::to_string(event)
        .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
    print_line(&line)
}

/// A table in the house style.
pub(crate) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(header);
    table
}

/// Why a command did not do what it was asked to, in words for the person who asked.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    help: Option<String>,
}

impl Failure {
    /// It did not work (exit code 1).
    pub(crate) fn failed(message: impl Into<String>) -> Failure {
        Failure { code: 1, message: message.into(), help: None }
    }

    /// It was asked for wrongly (exit code 2).
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure { code: 2, message: message.into(), help: None }
    }

    /// Says what to do about it.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Failure {
        self.help = Some(help.into());
        self
    }

    /// Standard output cannot be written.
    pub(crate) fn output(error: &std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::failed(String::new()),
            _ => Failure::failed(format!("cannot write to standard output: {error}")),
        }
    }

    /// What went wrong, in words.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Prints it to standard error and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            telemetry::print(&format!("error: {}", self.message));
        }
        if let Some(help) = &self.help {
            telemetry::print(&format!("help: {help}"));
        }
        ExitCode::from(self.code)
    }
}
