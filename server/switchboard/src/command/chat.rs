//! `chat`: a router between gateways and the store.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use switchboard_chat::ChatConfig;

use super::server::{self, ConfigArgs, is_unset};
use super::serving;
use crate::output::Failure;

/// Run a chat process: a stateless router between gateways and the store
///
/// Start as many as you like; gateways find them through the store.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard chat --store 127.0.0.1:7400
  switchboard chat --store 10.0.0.1:7400,10.0.0.2:7400 --name chat-1 \\
      --listen 10.0.0.5:7420 --http 10.0.0.5:7421 --insecure
  switchboard chat --push-webhook https://push.example.org/wake \\
      --push-secret-file /etc/switchboard/push
  switchboard chat --vapid-key-file vapid.pem \\
      --vapid-subject mailto:ops@example.org
  switchboard chat --print-config")]
pub(crate) struct Chat {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Args, Serialize)]
struct Flags {
    /// Store nodes, as host:port [default: 127.0.0.1:7400; env: SWITCHBOARD_STORE]
    #[arg(long, value_name = "A[,A]", value_delimiter = ',')]
    store: Option<Vec<String>>,
    /// Name in the registry; one that is kept over restarts ends the life before at once
    /// (default: chat@ADDRESS)
    #[arg(long)]
    name: Option<String>,
    /// Where gateways connect (gRPC) [default: 127.0.0.1:7420]
    #[arg(long, value_name = "A")]
    listen: Option<SocketAddr>,
    /// What gateways are told to connect to, as host:port [default: the address bound]
    #[arg(long, value_name = "A")]
    advertise: Option<String>,
    /// Health and metrics [default: 127.0.0.1:7421]
    #[arg(long, value_name = "A")]
    http: Option<SocketAddr>,
    /// Allow plain text beyond loopback
    #[arg(long)]
    #[serde(skip_serializing_if = "is_unset")]
    insecure: bool,
    #[command(flatten)]
    push: PushFlags,
}

/// The flags of the section `[push]`.
#[derive(Debug, Args, Serialize)]
struct PushFlags {
    /// Wake devices up that are not connected: where wake-ups are posted
    #[arg(long = "push-webhook", value_name = "URL")]
    webhook: Option<String>,
    /// A file with the secret that signs wake-ups, at least 32 bytes
    #[arg(long = "push-secret-file", value_name = "FILE")]
    webhook_secret_file: Option<PathBuf>,
    /// Wake browsers up: a P-256 private key in PEM (PKCS#8)
    #[arg(long, value_name = "FILE")]
    vapid_key_file: Option<PathBuf>,
    /// Whom a push service may write to, as mailto: or https:
    #[arg(long, value_name = "URL")]
    vapid_subject: Option<String>,
    /// Wake a device up at most once in so many ms [default: 30000]
    #[arg(long = "push-interval-ms", value_name = "MS")]
    interval_ms: Option<u64>,
}

impl Chat {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Some(config) = self.config.load(&self.flags, |config: &ChatConfig| &config.log)? else {
            return Ok(());
        };
        serving(async {
            let chat = switchboard_chat::start(config)
                .await
                .map_err(|error| Failure::failed(format!("cannot start the chat: {error}")))?;
            server::run(chat).await
        })
    }
}
