//! Gateways of one's own: processes that may be killed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::output::Failure;

/// How long a gateway may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

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

/// Addresses of this machine whose ports are free at this moment. Whoever takes one before the gateway
/// does makes its start fail, and is told.
pub(crate) fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, Failure> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let failed = |error| Failure::failed(format!("no port is free: {error}"));
    // Held together, so that no port is named twice.
    let held: Vec<TcpListener> =
        (0..count).map(|_| bind()).collect::<Result<_, _>>().map_err(failed)?;
    held.iter().map(|listener| listener.local_addr().map_err(failed)).collect()
}
