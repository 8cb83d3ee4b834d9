//! A whole messenger as processes on this machine: a store node, a chat and gateways, with the load
//! generator's commands against them.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::{
    cluster::{Cluster, binary, output},
    processes::Server,
    run::Run,
};

/// How long a process may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
const ANY: &str = "127.0.0.1:0";
/// How often a device is to say that it lives. Of a million on this machine every 30 s would be 33,000 frames a
/// second, and their answers: nothing would be idle.
const KEEPALIVE: (&str, &str) = ("SWITCHBOARD_KEEPALIVE_MS", "600000");

/// Beyond so many gateways, each with as many devices as a process may have files, two processors are shared by a
/// hundred processes and more while the devices connect, and a gateway may wait longer for its turn than a lease of
/// the default lasts.
const FEW_GATEWAYS: usize = 12;
const LEASE: (&str, &str) = ("SWITCHBOARD_LEASE_MS", "60000");
/// What can be taken in is measured, not what would be let in for the sake of others.
const LOGINS: (&str, &str) = ("SWITCHBOARD_LOGINS_PER_SECOND", "1000000");

/// What devices talk to the gateways by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Frames on TCP.
    Tcp,
    /// The same in TLS 1.3, with a certificate made for the run.
    Tls,
}

/// The processes of a messenger; they end with the value.
pub struct Messenger {
    // Devices first, the store last: fields are dropped in order.
    gateways: Vec<Process>,
    chat: Process,
    cluster: Cluster,
    certificates: TempDir,
    transport: Transport,
}

struct Process {
    server: Server,
    dir: TempDir,
}

impl Messenger {
    /// Starts a store node with 16 shards, a chat and so many gateways, and waits until they are ready.
    pub fn start(run: &Run, gateways: usize, transport: Transport) -> Result<Self> {
        let settings = match gateways {
            // Whoever starts the gateways elsewhere looks at how they behave.
            0 => &[][..],
            1..=FEW_GATEWAYS => &[LOGINS],
            _ => &[LOGINS, LEASE],
        };
        let cluster = Cluster::start_with::<1>(run, 16, settings)?;
        let certificates = run.scratch()?;
        if transport == Transport::Tls {
            make_certificates(certificates.path())?;
        }
        let store = cluster.store();
        let chat = ["chat", "--store", &store, "--name", "chat", "--listen", ANY, "--http", ANY];
        let chat = Process::start(run, &chat, None)?;
        let gateways = (0..gateways)
            .map(|nth| {
                let name = format!("gateway-{nth}");
                let mut arguments = vec!["gateway", "--store", &store, "--name", &name];
                for listener in ["--listen", "--http", "--listen-tcp", "--listen-ws"] {
                    arguments.extend([listener, ANY]);
                }
                let files = ["gateway.pem", "gateway.key"];
                let files = files.map(|file| certificates.path().join(file).display().to_string());
                if transport == Transport::Tls {
                    let [cert, key] = &files;
                    arguments.extend(["--tls-cert", cert, "--tls-key", key]);
                    arguments.extend(["--listen-tls", ANY, "--listen-quic", ANY]);
                }
                Process::start(run, &arguments, Some(KEEPALIVE))
            })
            .collect::<Result<_>>()?;
        Ok(Self { gateways, chat, cluster, certificates, transport })
    }

    /// The addresses of the gateways, as `--gateway` takes them.
    pub fn gateways(&self) -> Result<String> {
        let (name, scheme) = match self.transport {
            Transport::Tcp => ("gateway-tcp", "tcp"),
            Transport::Tls => ("gateway-tls", "tls"),
        };
        let address = |gateway: &Process| gateway.listening(name);
        let addresses = self.gateways.iter().map(address).collect::<Result<Vec<_>>>()?;
        let urls: Vec<String> = addresses.iter().map(|at| format!("{scheme}://{at}")).collect();
        Ok(urls.join(","))
    }

    /// The address of the store, as `--store` takes it.
    pub fn store(&self) -> String {
        self.cluster.store()
    }

    /// The processes of the gateways.
    pub fn gateway_pids(&self) -> Vec<u32> {
        self.gateways.iter().map(|gateway| gateway.server.pid()).collect()
    }

    /// All processes.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = self.gateway_pids();
        pids.push(self.chat.server.pid());
        pids.extend(self.cluster.pids());
        pids
    }

    /// Runs `switchboard bench` with these arguments and reads what it reports, also when it ends with a
    /// failure because of what it found: then the figures say so.
    pub fn bench<R: DeserializeOwned>(&self, arguments: &[&str]) -> Result<R> {
        let mut command = Command::new(binary()?);
        command.arg("bench").args(arguments).args(["--output", "json"]);
        if self.transport == Transport::Tls {
            command.arg("--ca").arg(self.certificates.path().join("ca.pem"));
        }
        let printed = command.stdin(Stdio::null()).output()?;
        serde_json::from_slice(&printed.stdout).with_context(|| {
            let said = String::from_utf8_lossy(&printed.stderr);
            format!("{command:?} printed no report: {}", said.trim())
        })
    }
}

impl Process {
    fn start(run: &Run, arguments: &[&str], setting: Option<(&str, &str)>) -> Result<Self> {
        let dir = run.scratch()?;
        let mut command = Command::new(binary()?);
        command.envs(setting);
        let server = Server::start(command.args(arguments), dir.path())?;
        let process = Self { server: server.context("no such binary")?, dir };
        let started = Instant::now();
        while !process.said()?.lines().any(|line| line == "ready") {
            let name = arguments.first().copied().unwrap_or_default();
            ensure!(started.elapsed() < READY_WITHIN, "a {name} is not ready after a minute");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }

    fn said(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.dir.path().join("output"))?)
    }

    /// The address that a listener was bound to.
    fn listening(&self, name: &str) -> Result<String> {
        let said = self.said()?;
        let address = said.lines().find_map(|line| {
            line.strip_prefix("listening ")?.strip_prefix(name)?.strip_prefix(' ')
        });
        address.map(str::to_owned).with_context(|| format!("a gateway has no {name}"))
    }
}

fn make_certificates(dir: &Path) -> Result<()> {
    let cert = |arguments: &[&str]| -> Result<()> {
        let mut command = Command::new(binary()?);
        output(command.arg("cert").args(arguments).arg("--dir").arg(dir)).map(drop)
    };
    cert(&["init"])?;
    cert(&["issue", "gateway"])
}
