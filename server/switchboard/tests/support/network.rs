//! Network namespaces, one a node, joined by a bridge: nodes that can be cut off. Needs root and
//! iproute2. What is made is removed with the value.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The port of gRPC in each namespace.
const PORT: u16 = 7400;
/// A station that is not there: frames to it reach nobody.
const NOBODY: &str = "02:00:00:00:00:01";

/// How many this process has made.
static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// How a node is cut off.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing goes in or out.
    Whole,
    /// It hears the others, and they do not hear it.
    Unheard,
}

/// The bridge and its namespaces.
pub(crate) struct Network {
    nodes: u32,
    /// Two runs at a time have names and addresses of their own.
    id: u32,
}

/// One namespace.
pub(crate) struct Place {
    network: Arc<Network>,
    node: u32,
}

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split_whitespace()).status();
    assert!(done.expect("iproute2 is installed").success(), "ip {args} failed; it needs root");
}

impl Network {
    pub(crate) fn make(nodes: u32) -> Arc<Self> {
        let id = std::process::id() + NETWORKS.fetch_add(1, Ordering::Relaxed) * 7_919;
        let network = Arc::new(Self { nodes, id: id % 100_000 });
        let bridge = network.bridge();
        ip(&format!("link add {bridge} type bridge"));
        ip(&format!("addr add {}/24 dev {bridge}", network.host(254)));
        ip(&format!("link set {bridge} up"));
        for node in 1..=nodes {
            let (name, veth) = (network.namespace(node), network.veth(node));
            ip(&format!("netns add {name}"));
            ip(&format!("link add {veth} type veth peer name eth0 netns {name}"));
            ip(&format!("link set {veth} master {bridge} up"));
            ip(&format!("-n {name} addr add {}/24 dev eth0", network.host(node)));
            ip(&format!("-n {name} link set eth0 up"));
            ip(&format!("-n {name} link set lo up"));
        }
        network
    }

    fn bridge(&self) -> String {
        format!("sl{}br", self.id)
    }

    fn namespace(&self, node: u32) -> String {
        format!("sl{}-{node}", self.id)
    }

    fn veth(&self, node: u32) -> String {
        format!("sl{}v{node}", self.id)
    }

    fn host(&self, number: u32) -> String {
        format!("10.78.{}.{number}", self.id % 250)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let quietly = |args: [&str; 3]| {
            let _ = Command::new("ip").args(args).stderr(Stdio::null()).status();
        };
        for node in 1..=self.nodes {
            quietly(["netns", "del", &self.namespace(node)]);
        }
        quietly(["link", "del", &self.bridge()]);
    }
}

impl Place {
    pub(crate) fn new(network: Arc<Network>, node: u32) -> Self {
        Self { network, node }
    }

    /// Where the others reach the node.
    pub(crate) fn address(&self) -> String {
        format!("{}:{PORT}", self.network.host(self.node))
    }

    /// The binary in this namespace. `ip` becomes the binary, so that signals reach it.
    pub(crate) fn command(&self, args: &[String]) -> Command {
        let inner = super::command(args);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.network.namespace(self.node)]);
        command.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    pub(crate) fn cut(&self, cut: Cut) {
        match cut {
            Cut::Whole => ip(&format!("link set {} down", self.network.veth(self.node))),
            Cut::Unheard => self.neighbours(|host| {
                format!("neigh replace {host} lladdr {NOBODY} nud permanent dev eth0")
            }),
        }
    }

    pub(crate) fn heal(&self, cut: Cut) {
        match cut {
            Cut::Whole => ip(&format!("link set {} up", self.network.veth(self.node))),
            Cut::Unheard => self.neighbours(|host| format!("neigh del {host} dev eth0")),
        }
    }

    /// Changes what the node takes for the stations of all others.
    fn neighbours(&self, change: impl Fn(&str) -> String) {
        let name = self.network.namespace(self.node);
        let others = (1..=self.network.nodes).chain([254]).filter(|number| *number != self.node);
        for number in others {
            ip(&format!("-n {name} {}", change(&self.network.host(number))));
        }
    }
}
