//! The command line as a whole: global options and the list of commands.

use clap::{Args, Parser, Subcommand};

use crate::command;
use crate::output::{Failure, Output};

/// The back end of a messenger: a durable queue and a session directory, a gateway for devices, a
/// router between them, and the tools to run them.
#[derive(Debug, Parser)]
#[command(
    name = "switchboard",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "Examples:
  switchboard dev                            the whole messenger in one process
  switchboard device --as alice chat bob     chat as alice
  switchboard device --as bob chat alice     … and as bob, in another terminal
  switchboard session locate alice           where alice is connected

Exit codes: 0 done, 1 failed, 2 used wrongly."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Global {
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value = "table", env = "SWITCHBOARD_OUTPUT")]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(command::bench::Bench),
    Completions(command::completions::Completions),
}

impl Cli {
    /// Does what was asked.
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Bench(bench) => bench.run(self.global),
            Command::Completions(completions) => completions.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command, path: &str) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{path}: --help shows no examples");
            for sub in command.get_subcommands() {
                check(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        check(&Cli::command(), "switchboard");
    }
}
