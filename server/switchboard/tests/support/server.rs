//! A server process at addresses of its own, which it gets again after it was killed.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::Process;
use super::network::{Network, Place};

/// Ports below the range that systems take for outgoing connections: while a server is dead, nobody
/// gets its port by chance, and no client that retries can connect to itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A number or a text from the environment.
pub(crate) fn environment<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// An address that is free now, and will be free again when its process is killed.
fn free_address(random: &mut StdRng) -> SocketAddr {
    loop {
        let address = SocketAddr::from(([127, 0, 0, 1], random.random_range(PORTS)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// The file that keeps what the server at `address` writes, over all its restarts, in the directory
/// that `SWITCHBOARD_TEST_LOGS` names; without it nothing is kept.
fn log_file(kind: &str, address: &str) -> Option<File> {
    let dir = std::env::var_os("SWITCHBOARD_TEST_LOGS")?;
    let name = format!("{kind}-{}.log", address.replace(':', "-"));
    std::fs::create_dir_all(&dir).expect("a directory can be made");
    let file = File::options().create(true).append(true).open(Path::new(&dir).join(name));
    Some(file.expect("a file can be made"))
}

fn spawn(kind: &str, args: &[String], place: Option<&Place>) -> Process {
    let listens = args.iter().position(|arg| arg == "--listen").map_or("", |at| &args[at + 1]);
    let mut command = match place {
        None => super::command(args),
        Some(place) => place.command(args),
    };
    Process::spawn_with_log(&mut command, log_file(kind, listens))
}

/// One of the three kinds, with what it takes to start it again at the same place.
pub(crate) struct Server {
    pub(crate) kind: &'static str,
    args: Vec<String>,
    pub(crate) process: Process,
    pub(crate) kills: u32,
    /// The namespace that it runs in; none: this one's.
    place: Option<Place>,
}

impl Server {
    /// Starts it on addresses of its own. Somebody else may take one of them first; then others.
    pub(crate) fn start(
        kind: &'static str,
        fixed: &[&str],
        listen: &[&str],
        random: &mut StdRng,
    ) -> Server {
        for _ in 0..20 {
            let mut args = vec![kind.to_owned()];
            args.extend(fixed.iter().map(|arg| (*arg).to_owned()));
            for flag in listen {
                args.extend([(*flag).to_owned(), free_address(random).to_string()]);
            }
            let mut process = spawn(kind, &args, None);
            if process.is_listening(listen.len()) {
                return Server { kind, args, process, kills: 0, place: None };
            }
        }
        panic!("{kind} does not start");
    }

    /// Starts a store in a network namespace of its own.
    fn start_at(place: Place, fixed: &[&str]) -> Server {
        let mut args = vec!["store".to_owned()];
        args.extend(fixed.iter().map(|arg| (*arg).to_owned()));
        args.extend(["--listen".to_owned(), place.address()]);
        args.extend(["--http", "127.0.0.1:7401", "--insecure"].map(str::to_owned));
        let mut process = spawn("store", &args, Some(&place));
        assert!(process.is_listening(2), "a store does not start: {}", process.errors());
        Server { kind: "store", args, process, kills: 0, place: Some(place) }
    }

    /// The namespace that it runs in, in which it can be cut off.
    pub(crate) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// What it was told for a flag.
    pub(crate) fn address(&self, flag: &str) -> String {
        let at =
            self.args.iter().position(|arg| arg == flag).expect("a flag that it was started with");
        self.args[at + 1].clone()
    }

    /// Ends it with SIGKILL and starts it again where it was, half a second later at most.
    pub(crate) fn kill_and_restart(&mut self, random: &mut StdRng) {
        self.process.kill();
        self.kills += 1;
        std::thread::sleep(Duration::from_millis(random.random_range(0..500)));
        self.process = spawn(self.kind, &self.args, self.place.as_ref());
        self.process.listening();
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
        self.kills += 1;
    }

    /// Starts it again where it was.
    pub(crate) fn restart(&mut self) {
        self.process = spawn(self.kind, &self.args, self.place.as_ref());
        self.process.listening();
    }
}

/// Three stores that are a cluster, each at addresses of its own; where `SWITCHBOARD_TEST_NETNS` is
/// set, in network namespaces of their own.
pub(crate) fn cluster(data: &Path, shards: u32, random: &mut StdRng) -> Vec<Server> {
    cluster_with("", data, shards, random)
}

/// The same, of stores with `settings` (TOML).
pub(crate) fn cluster_with(
    settings: &str,
    data: &Path,
    shards: u32,
    random: &mut StdRng,
) -> Vec<Server> {
    let file = data.join("store.toml");
    std::fs::write(&file, settings).expect("a file can be written");
    let file = file.display().to_string();
    let network = std::env::var_os("SWITCHBOARD_TEST_NETNS").map(|_| Network::make(3));
    let start = |node: u32, random: &mut StdRng| {
        let (data, id) = (data.join(format!("store-{node}")), node.to_string());
        let data = data.display().to_string();
        let fixed = ["--config", &file, "--node-id", &id, "--data", &data];
        match &network {
            None => Server::start("store", &fixed, &["--listen", "--http"], random),
            Some(network) => Server::start_at(Place::new(network.clone(), node), &fixed),
        }
    };
    let mut stores: Vec<Server> = (1..=3).map(|node| start(node, random)).collect();
    let peers: Vec<String> = (1..)
        .zip(&stores)
        .map(|(node, store): (u32, _)| format!("{node}={}", store.address("--listen")))
        .collect();
    let (peers, shards) = (peers.join(","), shards.to_string());
    let first = stores[0].address("--listen");
    super::succeed(["cluster", "init", "--store", &first, "--peers", &peers, "--shards", &shards]);
    for store in &mut stores {
        store.process.ready();
    }
    stores
}

/// The gRPC addresses of servers, as `--store` takes them.
pub(crate) fn addresses(servers: &[Server]) -> String {
    servers.iter().map(|server| server.address("--listen")).collect::<Vec<_>>().join(",")
}
