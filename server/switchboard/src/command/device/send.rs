//! `device send TO TEXT`: one message, and its acceptance.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use switchboard_api::limits::BODY_BYTES_MAX;
use switchboard_device::{DeviceOptions, Outgoing, new_message_id};
use tokio::time::timeout;

use super::{Connected, connect};
use crate::cli::Global;
use crate::command::name::{DeviceName, id_text};
use crate::output::{Failure, table};

/// Send a message and wait until it is safe
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard device --as alice send bob 'are you there?'
  switchboard device --as alice send bob/1 'to your first device only' \\
      --output json

A device other than the first is there once it has connected: `switchboard device --as bob/2 recv`.")]
pub(super) struct Send {
    /// To whom; without a device, to all of the user's devices
    #[arg(value_name = "TO")]
    to: DeviceName,
    /// The message
    #[arg(value_name = "TEXT")]
    text: String,
    /// How long it waits for the recipient, in seconds; 0: the default (30 days)
    #[arg(long, value_name = "S", default_value_t = 0)]
    ttl: u32,
    /// Give up after so many seconds
    #[arg(long, value_name = "S", default_value_t = 30)]
    timeout: u32,
}

#[derive(Debug, Serialize)]
struct Sent {
    message_id: String,
    at_ms: u64,
    duplicate: bool,
}

impl Send {
    pub(super) async fn run(self, options: DeviceOptions, global: Global) -> Result<(), Failure> {
        if self.text.len() > BODY_BYTES_MAX {
            return Err(Failure::usage(format!("a message has at most {BODY_BYTES_MAX} bytes")));
        }
        let Connected { device, mut events } = connect(options).await?;
        // What arrives meanwhile is not acknowledged and stays in the mailbox.
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        let message_id = new_message_id();
        let answer = device.send(Outgoing {
            message_id,
            to_user: self.to.user,
            to_device: self.to.device.unwrap_or(0),
            ttl_ms: u64::from(self.ttl) * 1_000,
            body: self.text.into(),
        });
        let accepted = timeout(Duration::from_secs(self.timeout.into()), answer).await;
        device.shutdown().await;
        let accepted = accepted
            .map_err(|_| {
                Failure::failed(format!("not accepted within {} s", self.timeout))
                    .help("it may have been stored all the same; a chat or store may be down")
            })?
            .map_err(|error| Failure::failed(error.to_string()))?;
        let sent = Sent {
            message_id: id_text(&message_id),
            at_ms: accepted.at_ms,
            duplicate: accepted.duplicate,
        };
        global.output.print(&sent, |sent| {
            let mut table = table(["sent", "at"]);
            table.add_row([sent.message_id.clone(), crate::command::name::time_text(sent.at_ms)]);
            table
        })
    }
}
