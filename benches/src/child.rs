//! Probes: measurements in a process of their own.
//!
//! Memory can only be told from a process that did nothing else, and a start only from one that
//! starts. A probe is a function from its arguments to its figures; [`run`] starts this executable
//! again with the hidden subcommand `probe`, which calls it and prints the figures as JSON.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::rows;

/// A measurement that wants a process.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Unique over all rows.
    pub name: &'static str,
    /// Arguments in, figures out, both as JSON.
    pub measure: fn(Value) -> Result<Value>,
}

/// Makes a probe's function of one over plain values.
pub fn measure_with<A: DeserializeOwned, F: Serialize>(
    arguments: Value,
    measure: impl FnOnce(A) -> Result<F>,
) -> Result<Value> {
    Ok(serde_json::to_value(measure(serde_json::from_value(arguments)?)?)?)
}

/// Runs a probe in a process of its own and waits for its figures.
pub fn run<A: Serialize, F: DeserializeOwned>(name: &str, arguments: &A) -> Result<F> {
    let mut command = command(name, arguments)?;
    let output = command.stdin(Stdio::null()).stdout(Stdio::piped()).output()?;
    ensure!(output.status.success(), "the probe {name} ended with {}", output.status);
    let figures = serde_json::from_slice(&output.stdout);
    figures.with_context(|| format!("the probe {name} printed no figures"))
}

/// The command that runs a probe.
pub fn command<A: Serialize>(name: &str, arguments: &A) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["probe", name, &serde_json::to_string(arguments)?]);
    Ok(command)
}

/// What the subcommand `probe` does.
pub fn main(name: &str, arguments: &str) -> Result<()> {
    let mut probes = rows::ROWS.iter().flat_map(|row| row.probes);
    let probe = probes.find(|probe| probe.name == name);
    let probe = probe.ok_or_else(|| anyhow!("there is no probe {name}"))?;
    println!("{}", (probe.measure)(serde_json::from_str(arguments)?)?);
    Ok(())
}
