//! `device --as USER[/DEV] send|recv|chat`: a device on the command line.

mod chat;
mod recv;
mod send;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use switchboard_api::device::v1::error::Code;
use switchboard_device::{Device, DeviceOptions, Event, GatewayAddress, Trust};
use tokio::sync::mpsc;

use super::name::DeviceName;
use crate::cli::Global;
use crate::output::Failure;

/// Be a device: send, receive, chat
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard device --as alice chat bob
  switchboard device --as alice send bob 'are you there?'
  switchboard device --as bob recv
  switchboard device --as bob/2 --gateway ws://127.0.0.1:7412 recv --follow
  switchboard device --as bob --gateway quic://127.0.0.1:7413 \\
      --ca ./certs/ca.pem recv")]
pub(crate) struct DeviceCommand {
    /// Who to be, and which device if not the primary one
    #[arg(long = "as", value_name = "USER[/DEV]")]
    name: DeviceName,
    /// Gateways, as host:port, or tls://, quic://, ws:// or wss://host:port; the next is tried when
    /// one fails
    #[arg(
        long,
        value_name = "A[,A]",
        value_delimiter = ',',
        default_value = "127.0.0.1:7410",
        env = "SWITCHBOARD_GATEWAY"
    )]
    gateway: Vec<GatewayAddress>,
    /// Believe gateways whose certificate was signed by an authority in this PEM file, instead of
    /// those that the system trusts
    #[arg(long, value_name = "FILE", env = "SWITCHBOARD_CA")]
    ca: Option<PathBuf>,
    /// What the gateway checks; `dev` and --insecure gateways take any
    #[arg(
        long,
        value_name = "T",
        default_value = "",
        env = "SWITCHBOARD_TOKEN",
        hide_env_values = true
    )]
    token: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Send(send::Send),
    Recv(recv::Recv),
    Chat(chat::Chat),
}

impl DeviceCommand {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        let trust = self.ca.as_deref().map(Trust::authority).transpose();
        let options = DeviceOptions {
            trust: trust.map_err(|error| Failure::failed(error.to_string()))?,
            token: self.token,
            manual_ack: true,
            ..DeviceOptions::new(self.name.user, self.name.device.unwrap_or(1), self.gateway)
        };
        match self.command {
            Command::Send(send) => send.run(options, global).await,
            Command::Recv(recv) => recv.run(options).await,
            Command::Chat(chat) => chat.run(options).await,
        }
    }
}

/// A device with the connection that it once had.
struct Connected {
    device: Device,
    events: mpsc::Receiver<Event>,
}

/// Starts a device and waits for its first connection. A gateway that is not there fails the
/// command at once: who types a command wants to know.
async fn connect(options: DeviceOptions) -> Result<Connected, Failure> {
    let (device, mut events) = Device::start(options);
    loop {
        match events.recv().await {
            Some(Event::Online { .. }) => return Ok(Connected { device, events }),
            Some(Event::Offline { reason, code, .. }) => return Err(offline(&reason, code)),
            Some(_) => {}
            None => return Err(Failure::failed("the device stopped")),
        }
    }
}

/// Words for a connection that was not made. `code` is what the gateway said, if it did.
fn offline(reason: &str, code: Option<Code>) -> Failure {
    let failure = Failure::failed(reason);
    match code {
        Some(Code::Unauthenticated | Code::ExpiredToken) => failure.help("name a token by --token"),
        // The words say it.
        Some(_) => failure,
        None if reason.contains("UnknownIssuer") || reason.contains("no authority") => {
            failure.help("name the authority that signed the gateway's certificate by --ca")
        }
        None if reason.starts_with("redirected") => {
            failure.help("name another gateway by --gateway, or try again")
        }
        None => {
            failure.help("start a gateway with `switchboard dev`, or name another by --gateway")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_to_connect_has_its_own_help() {
        let refused = offline("cannot connect: Connection refused", None);
        assert!(format!("{refused:?}").contains("switchboard dev"), "{refused:?}");
        let tls = offline("cannot connect: invalid peer certificate: UnknownIssuer", None);
        assert!(format!("{tls:?}").contains("--ca"), "{tls:?}");
        let draining = offline("redirected: DRAINING", None);
        assert!(format!("{draining:?}").contains("another gateway"), "{draining:?}");
        let token = offline("UNAUTHENTICATED: no token", Some(Code::Unauthenticated));
        assert!(format!("{token:?}").contains("--token"), "{token:?}");
    }
}
