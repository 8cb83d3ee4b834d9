//! The Switchboard binary: servers, operator commands, a device, load tools.
//!
//! What a command does stands in its file under `command/`; this file only picks one. Output that
//! programs read goes to standard output, everything else to standard error. Exit codes: 0 done,
//! 1 failed, 2 used wrongly.

#![forbid(unsafe_code)]

mod cli;
mod command;
mod idle;
mod input;
mod limits;
mod load;
mod output;
mod replay;
mod storm;

use std::process::ExitCode;

use clap::Parser;

/// Many small allocations on many threads are what a relay does; mimalloc keeps them apart.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let code = match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    };
    switchboard_process::telemetry::flush();
    code
}
