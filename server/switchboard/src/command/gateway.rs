//! `gateway`: the process that holds devices' connections.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use switchboard_gateway::GatewayConfig;

use super::server::{self, ConfigArgs, is_unset};
use super::serving;
use crate::output::Failure;

/// Run a gateway: devices connect to it over TCP, WebSocket, TLS and QUIC
///
/// Start as many as you like, each with a name of its own.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard gateway --store 127.0.0.1:7400 --name gateway-1
  switchboard gateway --store 10.0.0.1:7400 --name gateway-2 \\
      --listen 10.0.0.6:7415 \\
      --listen-tcp 0.0.0.0:7410 --listen-ws 0.0.0.0:7412 --insecure
  switchboard gateway --name gateway-3 --tls-cert certs/gateway-3.pem \\
      --tls-key certs/gateway-3.key
  switchboard gateway --name gateway-1 --print-config")]
pub(crate) struct Gateway {
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
    /// (default: gateway@ADDRESS)
    #[arg(long)]
    name: Option<String>,
    /// Where chat processes push (gRPC) [default: 127.0.0.1:7415]
    #[arg(long, value_name = "A")]
    listen: Option<SocketAddr>,
    /// What chat processes are told to connect to, as host:port [default: the address bound]
    #[arg(long, value_name = "A")]
    advertise: Option<String>,
    /// Where devices connect by TCP [default: 127.0.0.1:7410]
    #[arg(long, value_name = "A")]
    listen_tcp: Option<SocketAddr>,
    /// Where devices connect by TLS, with frames or WebSocket in it; needs a certificate
    /// [default: 127.0.0.1:7411]
    #[arg(long, value_name = "A")]
    listen_tls: Option<SocketAddr>,
    /// Where devices connect by WebSocket [default: 127.0.0.1:7412]
    #[arg(long, value_name = "A")]
    listen_ws: Option<SocketAddr>,
    /// Where devices connect by QUIC; needs a certificate [default: 127.0.0.1:7413]
    #[arg(long, value_name = "A")]
    listen_quic: Option<SocketAddr>,
    /// Certificate for TLS and QUIC, as `switchboard cert issue` makes it; read again when it changes
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Health and metrics [default: 127.0.0.1:7416]
    #[arg(long, value_name = "A")]
    http: Option<SocketAddr>,
    /// Allow plain text and any token beyond loopback
    #[arg(long)]
    #[serde(skip_serializing_if = "is_unset")]
    insecure: bool,
}

impl Gateway {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Some(config) = self.config.load(&self.flags, |config: &GatewayConfig| &config.log)?
        else {
            return Ok(());
        };
        serving(async {
            let gateway = switchboard_gateway::start(config)
                .await
                .map_err(|error| Failure::failed(format!("cannot start the gateway: {error}")))?;
            server::run(gateway).await
        })
    }
}
