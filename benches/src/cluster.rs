//! Switchboard itself as processes: store nodes on this machine's disk, and its load generator.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use crate::{
    processes::{Server, free_addresses},
    run::Run,
};

/// How long a cluster may take until all of its nodes are ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Names the binary, where it does not lie beside this one.
const BINARY_VARIABLE: &str = "BINARY";

/// The store nodes of a cluster.
pub struct Cluster {
    // Ended before their files are removed: fields are dropped in order.
    nodes: Vec<Server>,
    addresses: Vec<SocketAddr>,
    dirs: Vec<TempDir>,
}

impl Cluster {
    /// One node, or three, with so many shards, and waits until they are ready.
    pub fn start<const NODES: usize>(run: &Run, shards: u32) -> Result<Self> {
        Self::start_with::<NODES>(run, shards, &[])
    }

    /// The same with settings, by the names of the environment.
    pub fn start_with<const NODES: usize>(
        run: &Run,
        shards: u32,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let addresses: [SocketAddr; NODES] = free_addresses()?;
        let mut cluster =
            Self { nodes: Vec::new(), addresses: addresses.to_vec(), dirs: Vec::new() };
        let single = ["--single", "--shards", &shards.to_string()];
        for (node, address) in (1..).zip(addresses) {
            let dir = run.scratch()?;
            let more = if NODES == 1 { &single[..] } else { &[] };
            cluster.nodes.push(start_node(node, address, dir.path(), more, settings)?);
            cluster.dirs.push(dir);
        }
        if NODES > 1 {
            let peers = (1..).zip(&addresses).map(|(node, at): (u32, _)| format!("{node}={at}"));
            let peers = peers.collect::<Vec<_>>().join(",");
            let mut init = Command::new(binary()?);
            init.args(["cluster", "init", "--store", &addresses[0].to_string()]);
            output(init.args(["--peers", &peers, "--shards", &shards.to_string()]))?;
        }
        cluster.wait_ready()?;
        Ok(cluster)
    }

    /// Starts one node more and takes it in; it has no replicas until some are moved to it.
    pub fn add_node(&mut self, run: &Run) -> Result<()> {
        let [address] = free_addresses()?;
        let (node, dir) = (self.nodes.len() as u64 + 1, run.scratch()?);
        self.nodes.push(start_node(node, address, dir.path(), &[], &[])?);
        self.dirs.push(dir);
        let (node, at) = (node.to_string(), address.to_string());
        self.operate(&["node", "add", &node, &at])?;
        self.addresses.push(address);
        self.wait_ready()
    }

    /// Moves a replica from one node to another, and waits until it is there.
    pub fn move_shard(&self, shard: u32, from: u64, to: u64) -> Result<()> {
        let [shard, from, to] = [shard.to_string(), from.to_string(), to.to_string()];
        self.operate(&["shard", "move", &shard, "--from", &from, "--to", &to])
    }

    /// An operator's command.
    fn operate(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(binary()?);
        output(command.args(arguments).args(["--store", &self.store()])).map(drop)
    }

    fn wait_ready(&self) -> Result<()> {
        let started = Instant::now();
        for dir in &self.dirs {
            let file = dir.path().join("output");
            let is_ready = || -> Result<bool> {
                Ok(std::fs::read_to_string(&file)?.lines().any(|line| line == "ready"))
            };
            while !is_ready()? {
                ensure!(started.elapsed() < READY_WITHIN, "a node is not ready after a minute");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Ends a node with SIGKILL; the first one is 1.
    pub fn kill(&mut self, node: u64) -> Result<()> {
        let server = self.nodes.get_mut(slot(node)?).context("no such node")?;
        server.kill()
    }

    /// Starts a node again where it was, and waits until it is ready.
    pub fn restart(&mut self, node: u64) -> Result<()> {
        let slot = slot(node)?;
        let (address, dir) = (self.addresses[slot], self.dirs[slot].path());
        self.nodes[slot] = start_node(node, address, dir, &[], &[])?;
        self.wait_ready()
    }

    /// The addresses of the nodes, as `--store` takes them.
    pub fn store(&self) -> String {
        self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// The processes of the nodes.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(Server::pid).collect()
    }

    /// Runs `switchboard bench` against it.
    pub fn bench(&self, arguments: &[&str]) -> Result<LoadReport> {
        let mut command = Command::new(binary()?);
        command.arg("bench").args(arguments).args(["--store", &self.store()]);
        command.args(["--quiet", "--output", "json"]);
        let pids: Vec<String> = self.pids().iter().map(ToString::to_string).collect();
        command.args(["--pid", &pids.join(",")]);
        let printed = output(&mut command)?;
        serde_json::from_slice(&printed).context("the load generator printed no report")
    }
}

fn slot(node: u64) -> Result<usize> {
    usize::try_from(node)?.checked_sub(1).context("nodes are counted from 1")
}

/// Starts a store and waits until it listens.
fn start_node(
    node: u64,
    address: SocketAddr,
    dir: &Path,
    more: &[&str],
    settings: &[(&str, &str)],
) -> Result<Server> {
    let mut command = Command::new(binary()?);
    command.envs(settings.iter().copied());
    command.arg("store").arg("--data").arg(dir.join("data"));
    command.args(["--node-id", &node.to_string(), "--listen", &address.to_string()]);
    command.args(["--http", "127.0.0.1:0"]).args(more);
    let mut server = Server::start(&mut command, dir)?.context("no such binary")?;
    server.wait_listening(address)?;
    Ok(server)
}

/// What `switchboard bench` reports, as far as it is looked at here.
#[derive(Clone, Debug, Deserialize)]
pub struct LoadReport {
    /// Items done a second.
    pub items_per_s: f64,
    /// Calls that were due and never began.
    #[serde(default)]
    pub calls_missed: u64,
    /// Calls without an answer some time after the end.
    #[serde(default)]
    pub calls_unanswered: u64,
    /// Items that were not done, by status.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// From when a call was due to its answer.
    pub latency_ms: LatencyMs,
    /// Over all server processes.
    pub server_cpu_us_per_item: Option<f64>,
    /// Of the load generator.
    pub client_cpu_us_per_item: Option<f64>,
}

/// Latencies in milliseconds.
#[derive(Clone, Debug, Deserialize)]
pub struct LatencyMs {
    /// The median.
    pub p50: f64,
    /// What one in a hundred exceeds.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// The Switchboard binary of the same build.
pub fn binary() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(BINARY_VARIABLE) {
        return Ok(named.into());
    }
    let own = std::env::current_exe()?;
    let beside = own.parent().unwrap_or(Path::new(".")).join("switchboard");
    ensure!(
        beside.is_file(),
        "there is no {}: build it first (cargo build --release -p switchboard), or name it by \
         {BINARY_VARIABLE}",
        beside.display()
    );
    Ok(beside)
}

/// What a command prints; its failure is told with what it said.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(anyhow!("{command:?} ended with {}: {}", output.status, said.trim()))
}
