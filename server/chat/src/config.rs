//! The configuration of a chat process.

mod push;

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Deserializer, Serialize};
use switchboard_api::limits as wire;
use switchboard_process::{
    config::{Config, Faults},
    telemetry::LogConfig,
};

pub use self::push::PushConfig;
use crate::limits;

/// Where a chat process finds the store, where it listens, and how long receipts wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChatConfig {
    /// Store nodes to start from, `host:port`; at least one. A list, or one text with commas.
    #[serde(deserialize_with = "list")]
    pub store: Vec<String>,
    /// The name in the registry, 1 to 64 bytes; unset: `chat@` and the advertised address. A name
    /// that is kept over restarts ends the life before at once.
    pub name: Option<String>,
    /// Where gateways connect (gRPC).
    pub listen: SocketAddr,
    /// What gateways are told to connect to, `host:port`; unset: the address bound.
    pub advertise: Option<String>,
    /// Health and metrics.
    pub http: SocketAddr,
    /// Allows plain text beyond loopback.
    pub insecure: bool,
    /// How long a receipt waits to be merged with another of the same message, ms; 0 to 20.
    pub receipt_merge_ms: u64,
    /// How long the store may take for an item before fewer go there at once, ms; 5 to 5,000.
    pub store_latency_ms: u64,
    /// How devices that are not connected are woken up.
    pub push: PushConfig,
    /// Logging.
    pub log: LogConfig,
}

impl Default for ChatConfig {
    fn default() -> Self {
        Self {
            store: vec!["127.0.0.1:7400".to_owned()],
            name: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7420)),
            advertise: None,
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, 7421)),
            insecure: false,
            receipt_merge_ms: limits::RECEIPT_MERGE_MS,
            store_latency_ms: limits::STORE_LATENCY_MS,
            push: PushConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Config for ChatConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.check(!self.store.is_empty(), "store", "names no node; give at least one host:port");
        for address in &self.store {
            let message = format!("has `{address}`, which is not host:port");
            faults.check(is_host_port(address), "store", &message);
        }
        if let Some(name) = &self.name {
            faults.check_range("name", name.len(), 1, wire::NAME_BYTES_MAX);
        }
        match &self.advertise {
            Some(address) => {
                faults.check(is_host_port(address), "advertise", "is not host:port");
                faults.check_range("advertise", address.len(), 1, wire::ADDRESS_BYTES_MAX);
            }
            None => faults.check(
                !self.listen.ip().is_unspecified(),
                "advertise",
                "must be set when `listen` is an address of all interfaces",
            ),
        }
        faults.check_plain_text("listen", self.listen, self.insecure);
        faults.check_plain_text("http", self.http, self.insecure);
        faults.check_range(
            "receipt_merge_ms",
            self.receipt_merge_ms,
            0,
            limits::RECEIPT_MERGE_MS_MAX,
        );
        faults.check_range("store_latency_ms", self.store_latency_ms, 5, 5_000);
        self.push.validate(self.insecure, faults);
        self.log.validate("log", faults);
    }
}

fn is_host_port(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// A list, or one text with commas, as the environment has it.
fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Several {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Several::deserialize(from)? {
        Several::List(list) => list,
        Several::Text(text) => {
            text.split(',').map(str::trim).filter(|a| !a.is_empty()).map(str::to_owned).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(config: &ChatConfig) -> String {
        let mut faults = Faults::default();
        config.validate(&mut faults);
        faults.to_string()
    }

    #[test]
    fn the_default_is_valid() {
        assert_eq!(faults(&ChatConfig::default()), "");
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let config = ChatConfig {
            store: vec!["nowhere".into()],
            name: Some("n".repeat(65)),
            listen: "0.0.0.0:7420".parse().unwrap(),
            receipt_merge_ms: 21,
            store_latency_ms: 4,
            ..ChatConfig::default()
        };
        let text = faults(&config);
        for key in [
            "`store`",
            "`name`",
            "`advertise`",
            "`listen`",
            "`receipt_merge_ms`",
            "`store_latency_ms`",
        ] {
            assert!(text.contains(key), "{key} in {text}");
        }
    }
}
