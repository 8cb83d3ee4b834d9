//! The command line as a whole: global options and the list of commands.

use clap::{Args, Parser, Subcommand};

use crate::command::{self, runtime, serving};
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
    Dev(command::dev::Dev),
    Store(command::store::Store),
    Gateway(command::gateway::Gateway),
    Chat(command::chat::Chat),
    Device(command::device::DeviceCommand),
    Cluster(command::cluster::Cluster),
    Node(command::node::NodeCommand),
    Shard(command::shard::ShardCommand),
    Session(command::session::Session),
    Mailbox(command::mailbox::Mailbox),
    GatewayCtl(command::gateway_ctl::GatewayCtl),
    Top(command::top::Top),
    Backup(command::backup::Backup),
    Log(command::log::Log),
    Bench(command::bench::Bench),
    Cert(command::cert::Cert),
    Completions(command::completions::Completions),
}

impl Cli {
    /// Does what was asked.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let global = self.global;
        match self.command {
            Command::Dev(dev) => dev.run(),
            Command::Store(store) => store.run(),
            Command::Gateway(gateway) => gateway.run(),
            Command::Chat(chat) => chat.run(),
            Command::Device(device) => runtime()?.block_on(device.run(global)),
            Command::Cluster(cluster) => runtime()?.block_on(cluster.run(global)),
            Command::Node(node) => runtime()?.block_on(node.run(global)),
            Command::Shard(shard) => runtime()?.block_on(shard.run(global)),
            Command::Session(session) => runtime()?.block_on(session.run(global)),
            Command::Mailbox(mailbox) => runtime()?.block_on(mailbox.run(global)),
            Command::GatewayCtl(gateways) => runtime()?.block_on(gateways.run(global)),
            // Its terminal may go away under it.
            Command::Top(top) => serving(top.run(global)),
            Command::Backup(backup) => backup.run(global),
            Command::Log(log) => log.run(global),
            Command::Bench(bench) => bench.run(global),
            Command::Cert(cert) => cert.run(global),
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

    /// A terminal that wraps an example breaks it for who pastes it.
    #[test]
    fn examples_fit_a_terminal() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let pasted = |line: &&str| line.starts_with("  ") && !line.trim().contains("   ");
            for line in help.lines().filter(pasted) {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
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
