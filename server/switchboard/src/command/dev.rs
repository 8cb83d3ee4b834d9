//! `dev`: the whole messenger in one process.
//!
//! Starts store, chat and gateway in this order and ends them in the reverse one: connections are
//! told and their acknowledgements flushed while the store still takes them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use switchboard_chat::ChatConfig;
use switchboard_gateway::GatewayConfig;
use switchboard_process::addresses;
use switchboard_process::config::{Config, Faults};
use switchboard_process::ready;
use switchboard_process::telemetry::{self, LogConfig};
use switchboard_process::tls::{Authority, CertificateError, Request, Role};
use switchboard_store::StoreConfig;

use super::server::{ConfigArgs, Server, announce_all, is_unset, shutdown_on_signals};
use super::serving;
use super::store;
use crate::output::Failure;

/// One machine needs few shards: each costs a little, and two cores do not use more.
const SHARDS: u32 = 4;

/// Where certificates are, in the data directory.
const TLS_DIR: &str = "tls";
const AUTHORITY_DAYS: u32 = 3_650;
const CERTIFICATE_DAYS: u32 = 365;

/// Run the whole messenger in one process: store, chat and gateway
///
/// Takes any token. What is stored stays in the data directory until the next start.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard dev
  switchboard dev --ephemeral
  switchboard dev --data ./my-data --listen-tcp 127.0.0.1:9410
  switchboard dev --free-ports --data ./my-data      then read ./my-data/addresses.json")]
pub(crate) struct Dev {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    flags: Flags,
    /// Let the system choose every port that is not given
    #[arg(long)]
    free_ports: bool,
}

#[derive(Debug, Args, Serialize)]
struct Flags {
    /// Where everything is kept [default: switchboard/dev in $XDG_DATA_HOME or ~/.local/share]
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    data: Option<PathBuf>,
    /// Keep nothing: a fresh directory that is removed at the end
    #[arg(long)]
    #[serde(skip_serializing_if = "is_unset")]
    ephemeral: bool,
    /// Where devices connect by TCP [default: 127.0.0.1:7410]
    #[arg(long, value_name = "A")]
    listen_tcp: Option<SocketAddr>,
    /// Where devices connect by TLS [default: 127.0.0.1:7411]
    #[arg(long, value_name = "A")]
    listen_tls: Option<SocketAddr>,
    /// Where devices connect by WebSocket [default: 127.0.0.1:7412]
    #[arg(long, value_name = "A")]
    listen_ws: Option<SocketAddr>,
    /// Where devices connect by QUIC [default: 127.0.0.1:7413]
    #[arg(long, value_name = "A")]
    listen_quic: Option<SocketAddr>,
    /// The store's gRPC [default: 127.0.0.1:7400]
    #[arg(long, value_name = "A", visible_alias = "listen")]
    listen_store: Option<SocketAddr>,
    /// The gateway's gRPC, for chat [default: 127.0.0.1:7415]
    #[arg(long, value_name = "A")]
    listen_gateway: Option<SocketAddr>,
    /// The chat's gRPC, for the gateway [default: 127.0.0.1:7420]
    #[arg(long, value_name = "A")]
    listen_chat: Option<SocketAddr>,
    /// The store's health and metrics [default: 127.0.0.1:7401]
    #[arg(long, value_name = "A", visible_alias = "http")]
    http_store: Option<SocketAddr>,
    /// The gateway's health and metrics [default: 127.0.0.1:7416]
    #[arg(long, value_name = "A")]
    http_gateway: Option<SocketAddr>,
    /// The chat's health and metrics [default: 127.0.0.1:7421]
    #[arg(long, value_name = "A")]
    http_chat: Option<SocketAddr>,
    /// Allow plain text and any token beyond loopback
    #[arg(long)]
    #[serde(skip_serializing_if = "is_unset")]
    insecure: bool,
}

/// The configuration of `dev`: where it keeps and serves what, and the log. Whoever needs more runs
/// the processes apart.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
struct DevConfig {
    data: PathBuf,
    ephemeral: bool,
    listen_tcp: SocketAddr,
    listen_tls: SocketAddr,
    listen_ws: SocketAddr,
    listen_quic: SocketAddr,
    listen_store: SocketAddr,
    listen_gateway: SocketAddr,
    listen_chat: SocketAddr,
    http_store: SocketAddr,
    http_gateway: SocketAddr,
    http_chat: SocketAddr,
    insecure: bool,
    log: LogConfig,
}

impl Default for DevConfig {
    fn default() -> Self {
        let port = |port| SocketAddr::from(([127, 0, 0, 1], port));
        DevConfig {
            data: default_data(),
            ephemeral: false,
            listen_tcp: port(7410),
            listen_tls: port(7411),
            listen_ws: port(7412),
            listen_quic: port(7413),
            listen_store: port(7400),
            listen_gateway: port(7415),
            listen_chat: port(7420),
            http_store: port(7401),
            http_gateway: port(7416),
            http_chat: port(7421),
            insecure: false,
            log: LogConfig { filter: "warn,openraft=error".to_owned(), ..LogConfig::default() },
        }
    }
}

impl Config for DevConfig {
    fn validate(&self, faults: &mut Faults) {
        for (key, address) in [
            ("listen_tcp", self.listen_tcp),
            ("listen_tls", self.listen_tls),
            ("listen_ws", self.listen_ws),
            ("listen_quic", self.listen_quic),
            ("listen_store", self.listen_store),
            ("listen_gateway", self.listen_gateway),
            ("listen_chat", self.listen_chat),
            ("http_store", self.http_store),
            ("http_gateway", self.http_gateway),
            ("http_chat", self.http_chat),
        ] {
            faults.check_plain_text(key, address, self.insecure);
        }
        self.log.validate("log", faults);
    }
}

/// The directory for data of the user's programs, or the current one if there is no home.
fn default_data() -> PathBuf {
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("XDG_DATA_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local").join("share")))
        .map_or_else(
            || PathBuf::from("switchboard-data"),
            |dir| dir.join("switchboard").join("dev"),
        )
}

impl Flags {
    fn free_ports(&mut self) {
        for address in [
            &mut self.listen_tcp,
            &mut self.listen_tls,
            &mut self.listen_ws,
            &mut self.listen_quic,
            &mut self.listen_store,
            &mut self.listen_gateway,
            &mut self.listen_chat,
            &mut self.http_store,
            &mut self.http_gateway,
            &mut self.http_chat,
        ] {
            address.get_or_insert(SocketAddr::from(([127, 0, 0, 1], 0)));
        }
    }
}

impl Dev {
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        if self.free_ports {
            self.flags.free_ports();
        }
        let Some(config) = self.config.load(&self.flags, |config: &DevConfig| &config.log)? else {
            return Ok(());
        };
        // Removed when it goes out of scope, after everything has ended.
        let ephemeral = config.ephemeral.then(tempfile::tempdir).transpose().map_err(|error| {
            Failure::failed(format!("cannot make a temporary directory: {error}"))
        })?;
        let data = ephemeral.as_ref().map_or(config.data.clone(), |dir| dir.path().to_owned());
        serving(serve(&config, &data))
    }
}

async fn serve(config: &DevConfig, data: &Path) -> Result<(), Failure> {
    let shutdown = shutdown_on_signals()?;
    let mut store = store::start(StoreConfig {
        data: data.to_owned(),
        single: true,
        shards: SHARDS,
        listen: config.listen_store,
        http: config.http_store,
        insecure: config.insecure,
        ..StoreConfig::default()
    })
    .await?;
    let nodes = vec![address(&store, "store-grpc")?];
    let mut chat = switchboard_chat::start(ChatConfig {
        store: nodes.clone(),
        name: Some("dev".to_owned()),
        listen: config.listen_chat,
        http: config.http_chat,
        insecure: config.insecure,
        ..ChatConfig::default()
    })
    .await
    .map_err(|error| Failure::failed(format!("cannot start the chat: {error}")))?;
    let (certificate, key) = certificate(config, data)
        .map_err(|error| Failure::failed(format!("cannot make a certificate: {error}")))?;
    let mut gateway = switchboard_gateway::start(GatewayConfig {
        store: nodes,
        name: Some("dev".to_owned()),
        listen: config.listen_gateway,
        listen_tcp: Some(config.listen_tcp),
        listen_tls: Some(config.listen_tls),
        listen_ws: Some(config.listen_ws),
        listen_quic: Some(config.listen_quic),
        tls_cert: Some(certificate),
        tls_key: Some(key),
        http: config.http_gateway,
        insecure: config.insecure,
        ..GatewayConfig::default()
    })
    .await
    .map_err(|error| Failure::failed(format!("cannot start the gateway: {error}")))?;

    announce_all(&store);
    announce_all(&chat);
    announce_all(&gateway);
    let bound = [Server::addresses(&store), chat.addresses(), gateway.addresses()].concat();
    store::write_addresses(data, &bound);
    let started = async {
        chat.ready().await;
        gateway.ready().await;
    };
    let interrupted = tokio::select! {
        () = started => false,
        () = shutdown.triggered() => true,
    };
    if !interrupted {
        ready();
        hint(config, data, &bound);
    }
    let died = tokio::select! {
        why = Server::wait(&mut store) => Some(format!("the store failed: {why}")),
        why = Server::wait(&mut chat) => Some(format!("the chat failed: {why}")),
        why = Server::wait(&mut gateway) => Some(format!("the gateway failed: {why}")),
        () = shutdown.triggered() => None,
    };
    gateway.shutdown().await;
    chat.shutdown().await;
    store.shutdown().await;
    addresses::remove(data);
    died.map_or(Ok(()), |why| Err(Failure::failed(why)))
}

/// A certificate for TLS and QUIC, of an authority that stays with the data: devices go on trusting
/// it, while the certificate is made anew at each start and so never gets old.
fn certificate(config: &DevConfig, data: &Path) -> Result<(PathBuf, PathBuf), CertificateError> {
    let dir = data.join(TLS_DIR);
    let authority = match Authority::open(&dir) {
        Err(CertificateError::NoAuthority { .. }) => {
            Authority::create(&dir, "Switchboard dev CA", AUTHORITY_DAYS)?
        }
        opened => opened?,
    };
    let mut hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    for address in [config.listen_tls, config.listen_quic] {
        let host = address.ip().to_string();
        if !address.ip().is_unspecified() && !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    let name = "gateway".to_owned();
    let request = Request { name, role: Role::Gateway, hosts, days: CERTIFICATE_DAYS };
    authority.issue(&request)?.replace(&dir, "gateway")
}

fn address(server: &impl Server, wanted: &str) -> Result<String, Failure> {
    server
        .addresses()
        .into_iter()
        .find(|(name, _)| *name == wanted)
        .map(|(_, address)| address.to_string())
        .ok_or_else(|| Failure::failed(format!("the {wanted} address is not known")))
}

fn hint(config: &DevConfig, data: &Path, bound: &[(&'static str, SocketAddr)]) {
    let default = DevConfig::default().listen_tcp;
    let gateway = bound
        .iter()
        .find(|(name, address)| *name == "gateway-tcp" && *address != default)
        .map_or_else(String::new, |(_, address)| format!(" --gateway {address}"));
    let quic = bound
        .iter()
        .find(|(name, _)| *name == "gateway-quic")
        .map_or_else(String::new, |(_, address)| address.to_string());
    let kept = if config.ephemeral { "removed at the end" } else { "kept" };
    telemetry::print(&format!(
        "\nIn another terminal:  switchboard device --as alice{gateway} chat bob\n\
         and in a third one:   switchboard device --as bob{gateway} chat alice\n\n\
         TLS and QUIC: --gateway quic://{quic} --ca {}\n\
         Data is {kept}: {}\nCtrl-C ends it.",
        data.join(TLS_DIR).join("ca.pem").display(),
        data.display()
    ));
}
