//! `mailbox stat|peek|purge USER[/DEV]`: a device's queue, for operators.

use clap::{Args, Subcommand};
use serde::Serialize;
use switchboard_api::limits::FETCH_MESSAGES_MAX;
use switchboard_api::v1::{DeviceRef, FetchRequest, message, stat_request};

use super::name::{DeviceName, base64_text, device_text, id_text, time_text, user_text};
use super::operator::{StoreArgs, check, failure};
use crate::cli::Global;
use crate::output::{Failure, table};

/// Look into a device's mailbox, or empty it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard mailbox stat bob
  switchboard mailbox peek bob/2 --messages 5
  switchboard mailbox purge bob --reason \"asked for by bob, ticket 4711\"")]
pub(crate) struct Mailbox {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Stat(Stat),
    Peek(Peek),
    Purge(Purge),
}

/// Show how much waits in a mailbox
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard mailbox stat bob
  switchboard mailbox stat bob/2 --output json")]
struct Stat {
    /// The user, and the device if it is not the primary one
    #[arg(value_name = "USER[/DEV]")]
    device: DeviceName,
    #[command(flatten)]
    store: StoreArgs,
}

/// Show the first messages in a mailbox without taking them out
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard mailbox peek bob
  switchboard mailbox peek bob --messages 100 --bodies --output json")]
struct Peek {
    /// The user, and the device if it is not the primary one
    #[arg(value_name = "USER[/DEV]")]
    device: DeviceName,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(FETCH_MESSAGES_MAX)))]
    messages: u32,
    /// Only those with a higher seq
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    after: u64,
    /// Show bodies too (base64)
    #[arg(long)]
    bodies: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Empty a mailbox; what it held is gone
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard mailbox purge bob --reason \"asked for by bob, ticket 4711\"")]
struct Purge {
    /// The user, and the device if it is not the primary one
    #[arg(value_name = "USER[/DEV]")]
    device: DeviceName,
    /// Why, for the audit log
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Serialize)]
struct State {
    user: String,
    device: u32,
    messages: u64,
    bytes: u64,
    oldest_at_ms: u64,
    ack_floor: u64,
    tail: u64,
}

#[derive(Debug, Serialize)]
struct Head {
    seq: u64,
    message_id: String,
    from: String,
    kind: &'static str,
    bytes: usize,
    enqueued_at_ms: u64,
    expires_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

#[derive(Debug, Serialize)]
struct Purged {
    messages: u64,
    bytes: u64,
}

impl Mailbox {
    pub(crate) async fn run(self, global: Global) -> Result<(), Failure> {
        match self.command {
            Command::Stat(stat) => stat.run(global).await,
            Command::Peek(peek) => peek.run(global).await,
            Command::Purge(purge) => purge.run(global).await,
        }
    }
}

fn reference(name: &DeviceName) -> DeviceRef {
    DeviceRef { user: name.user.clone(), device: name.device.unwrap_or(1).into() }
}

impl Stat {
    async fn run(self, global: Global) -> Result<(), Failure> {
        let device = reference(&self.device);
        let client = self.store.connect().await?;
        let items = vec![stat_request::Item {
            device: Some(device.clone()),
            ..stat_request::Item::default()
        }];
        let results = client.stat(items).await.map_err(|e| failure(&e))?;
        let result = results.into_iter().next().unwrap_or_default();
        check(result.status())?;
        let state = State {
            user: user_text(&device.user),
            device: device.device,
            messages: result.messages,
            bytes: result.bytes,
            oldest_at_ms: result.oldest_at_ms,
            ack_floor: result.ack_floor,
            tail: result.tail,
        };
        global.output.print(&state, |state| {
            let mut table = table(["messages", "bytes", "oldest", "acknowledged up to", "tail"]);
            table.add_row([
                state.messages.to_string(),
                state.bytes.to_string(),
                time_text(state.oldest_at_ms),
                state.ack_floor.to_string(),
                state.tail.to_string(),
            ]);
            table
        })
    }
}

impl Peek {
    async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        let request = FetchRequest {
            device: Some(reference(&self.device)),
            after_seq: self.after,
            messages_max: self.messages,
            ..FetchRequest::default()
        };
        let page = client.fetch(request).await.map_err(|e| failure(&e))?;
        let more = page.more;
        let heads: Vec<Head> = page
            .messages
            .into_iter()
            .map(|message| Head {
                seq: message.seq,
                message_id: id_text(&message.message_id),
                kind: match message.kind() {
                    message::Kind::Content => "content",
                    message::Kind::Receipt => "receipt",
                },
                from: message
                    .from
                    .as_ref()
                    .map_or_else(String::new, |from| device_text(&from.user, from.device)),
                bytes: message.body.len(),
                enqueued_at_ms: message.enqueued_at_ms,
                expires_at_ms: message.expires_at_ms,
                body_base64: self.bodies.then(|| base64_text(&message.body)),
            })
            .collect();
        global.output.print(&heads, |heads| {
            let mut table =
                table(["seq", "message", "from", "kind", "bytes", "enqueued", "expires"]);
            if self.bodies {
                let columns =
                    ["seq", "message", "from", "kind", "bytes", "enqueued", "expires", "body"];
                table.set_header(columns);
            }
            for head in heads {
                let mut cells = vec![
                    head.seq.to_string(),
                    head.message_id.clone(),
                    head.from.clone(),
                    head.kind.to_owned(),
                    head.bytes.to_string(),
                    time_text(head.enqueued_at_ms),
                    time_text(head.expires_at_ms),
                ];
                cells.extend(head.body_base64.clone());
                table.add_row(cells);
            }
            table
        })?;
        if more && let Some(last) = heads.last() {
            eprintln!("more waits; go on with --after {}", last.seq);
        }
        Ok(())
    }
}

impl Purge {
    async fn run(self, global: Global) -> Result<(), Failure> {
        let client = self.store.connect().await?;
        let answer =
            client.purge(reference(&self.device), self.reason).await.map_err(|e| failure(&e))?;
        let purged = Purged { messages: answer.messages, bytes: answer.bytes };
        global.output.print(&purged, |purged| {
            let mut table = table(["messages purged", "bytes"]);
            table.add_row([purged.messages.to_string(), purged.bytes.to_string()]);
            table
        })
    }
}
