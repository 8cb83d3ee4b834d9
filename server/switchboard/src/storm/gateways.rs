//! Gateways of one's own: processes that may be killed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use rand::seq::SliceRandom as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::output::Failure;

/// How long a gateway may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// The lowest port that a gateway is given: lower ones have names.
const PORTS_FROM: u16 = 10_000;
/// Where the ports begin that the kernel gives to connections, where it does not say.
const GIVEN_FROM_DEFAULT: u16 = 32_768;

/// A gateway; it ends with the value.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) name: String,
    process: Child,
}

impl Gateway {
    /// Starts one that devices reach at this address, and waits until it is ready.
    pub(crate) async fn start(
        store: &str,
        name: String,
        devices: SocketAddr,
    ) -> Result<Gateway, Failure> {
        let failed =
            |error: std::io::Error| Failure::failed(format!("cannot start {name}: {error}"));
        let any = "127.0.0.1:0";
        let mut process = Command::new(std::env::current_exe().map_err(failed)?)
            .args(["gateway", "--store", store, "--name", &name, "--listen", any, "--http", any])
            .args(["--listen-ws", any, "--listen-tcp", &devices.to_string()])
            // Many devices at once are no news here.
            .env("SWITCHBOARD_LOG__FILTER", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let said = process.stdout.take().ok_or_else(|| failed(std::io::ErrorKind::Other.into()))?;
        let mut lines = BufReader::new(said).lines();
        let is_ready = async {
            while let Some(line) = lines.next_line().await.ok().flatten() {
                if line == "ready" {
                    return true;
                }
            }
            false
        };
        if !timeout(READY_WITHIN, is_ready).await.unwrap_or(false) {
            let message = format!("the gateway {name} does not become ready");
            return Err(Failure::failed(message).help("what it said stands above"));
        }
        Ok(Gateway { name, process })
    }

    /// Sends it SIGKILL, and does not wait.
    pub(crate) fn kill(&mut self) {
        // An error says that it has ended already.
        let _ = self.process.start_kill();
    }
}

/// Addresses of this machine whose ports are free at this moment, and stay so while a crowd connects: they are
/// none of those that the kernel gives to connections. A server that takes one before the gateway does makes
/// its start fail, and is told.
pub(crate) fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, Failure> {
    let given_from = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(GIVEN_FROM_DEFAULT);
    let mut ports: Vec<u16> = (PORTS_FROM..given_from).collect();
    ports.shuffle(&mut rand::rng());
    let free = ports.into_iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let found: Vec<_> = free.filter(|at| TcpListener::bind(at).is_ok()).take(count).collect();
    if found.len() < count {
        let message =
            format!("{count} free ports are needed between {PORTS_FROM} and {given_from}");
        return Err(Failure::failed(message));
    }
    Ok(found)
}
