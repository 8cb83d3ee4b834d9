//! The configuration of a gateway process.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Deserializer, Serialize};
use switchboard_api::limits as wire;
use switchboard_process::{
    config::{Config, Faults},
    telemetry::LogConfig,
};

use crate::limits;

/// Where a gateway finds the store, where it listens, and its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Store nodes to start from, `host:port`; at least one. A list, or one text with commas.
    #[serde(deserialize_with = "addresses")]
    pub store: Vec<String>,
    /// The name in the registry, 1 to 64 bytes; unset: `gateway@` and the advertised address. A
    /// name that is kept over restarts ends the life before at once.
    pub name: Option<String>,
    /// Where chats and other gateways connect (gRPC).
    pub listen: SocketAddr,
    /// What they are told to connect to, `host:port`; unset: the address bound.
    pub advertise: Option<String>,
    /// Devices over TCP; unset: none.
    pub listen_tcp: Option<SocketAddr>,
    /// Devices over TLS, with frames or WebSocket in it; unset, or without a certificate: none.
    pub listen_tls: Option<SocketAddr>,
    /// Devices over WebSocket; unset: none.
    pub listen_ws: Option<SocketAddr>,
    /// Devices over QUIC (UDP); unset, or without a certificate: none.
    pub listen_quic: Option<SocketAddr>,
    /// The certificate for TLS and QUIC, and those between it and its authority: a PEM file.
    pub tls_cert: Option<PathBuf>,
    /// Its private key: a PEM file.
    pub tls_key: Option<PathBuf>,
    /// How often the two are looked at for changes, ms; 100 to 86,400,000. SIGHUP does it at once.
    pub tls_reload_ms: u64,
    /// Health and metrics.
    pub http: SocketAddr,
    /// Allows plain text and unchecked tokens beyond loopback.
    pub insecure: bool,
    /// How often a device must say something, ms; 1,000 to 3,600,000.
    pub keepalive_ms: u32,
    /// From accepting a connection to its Hello, ms; 10 to 600,000.
    pub hello_timeout_ms: u64,
    /// A device that does not read what waits for it for so long is cut, ms; 100 to 3,600,000.
    pub write_stall_ms: u64,
    /// Unacknowledged deliveries when the device does not say; 1 to 1,024.
    pub window_default: u32,
    /// How often mailboxes are compared with what was delivered, ms; 50 to 25,000.
    pub reconcile_ms: u64,
    /// Sends a second of one device, sustained; at least 1.
    pub sends_per_second: u32,
    /// Sends of one device at once; 1 to 512.
    pub sends_burst: u32,
    /// Connections from one address; loopback has no limit. 0: no limit.
    pub connections_per_address_max: u32,
    /// Limits loopback too, for a gateway that is reached through a tunnel on its own machine.
    pub limit_loopback: bool,
    /// Logging.
    pub log: LogConfig,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            store: vec!["127.0.0.1:7400".to_owned()],
            name: None,
            listen: local(7415),
            advertise: None,
            listen_tcp: Some(local(7410)),
            listen_tls: Some(local(7411)),
            listen_ws: Some(local(7412)),
            listen_quic: Some(local(7413)),
            tls_cert: None,
            tls_key: None,
            tls_reload_ms: 10_000,
            http: local(7416),
            insecure: false,
            keepalive_ms: 30_000,
            hello_timeout_ms: wire::HELLO_TIMEOUT_MS,
            write_stall_ms: 60_000,
            window_default: wire::WINDOW_DEFAULT,
            reconcile_ms: 20_000,
            sends_per_second: wire::SENDS_PER_SECOND,
            sends_burst: wire::SENDS_BURST,
            connections_per_address_max: wire::CONNECTIONS_PER_ADDRESS_MAX,
            limit_loopback: false,
            log: LogConfig::default(),
        }
    }
}

impl Config for GatewayConfig {
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
        for (key, address) in [("listen_tcp", self.listen_tcp), ("listen_ws", self.listen_ws)] {
            if let Some(address) = address {
                faults.check_plain_text(key, address, self.insecure);
            }
        }
        let tls = self.tls_cert.is_some() && (self.listen_tls.or(self.listen_quic)).is_some();
        faults.check(
            self.listen_tcp.is_some() || self.listen_ws.is_some() || tls,
            "listen_tcp",
            "is unset, as are all other ways in: no device could connect",
        );
        self.validate_tls(faults);
        faults.check_range("keepalive_ms", self.keepalive_ms, 1_000, 3_600_000);
        faults.check_range("hello_timeout_ms", self.hello_timeout_ms, 10, 600_000);
        faults.check_range("write_stall_ms", self.write_stall_ms, 100, 3_600_000);
        faults.check_range("window_default", self.window_default, 1, wire::WINDOW_MAX);
        // Whatever dies, a connected device is served within 30 s.
        faults.check_range("reconcile_ms", self.reconcile_ms, 50, 25_000);
        faults.check_range("sends_per_second", self.sends_per_second, 1, 1_000_000);
        let burst_max = u32::try_from(limits::SENDS_PENDING_MAX).unwrap_or(u32::MAX);
        faults.check_range("sends_burst", self.sends_burst, 1, burst_max);
        self.log.validate("log", faults);
    }
}

impl GatewayConfig {
    fn validate_tls(&self, faults: &mut Faults) {
        let both = self.tls_cert.is_some() == self.tls_key.is_some();
        faults.check(both, "tls_cert", "and `tls_key` must be given together");
        let default = Self::default();
        for (key, asked, default) in [
            ("listen_tls", self.listen_tls, default.listen_tls),
            ("listen_quic", self.listen_quic, default.listen_quic),
        ] {
            let asked = asked.is_some() && asked != default;
            faults.check(
                !asked || self.tls_cert.is_some(),
                key,
                "needs a certificate: give `tls_cert` and `tls_key`, or make them with \
                 `switchboard cert`",
            );
        }
        faults.check_range("tls_reload_ms", self.tls_reload_ms, 100, 86_400_000);
    }
}

fn is_host_port(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// A list, or one text with commas, as the environment has it.
fn addresses<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Addresses {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Addresses::deserialize(from)? {
        Addresses::List(list) => list,
        Addresses::Text(text) => {
            text.split(',').map(str::trim).filter(|a| !a.is_empty()).map(str::to_owned).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(config: &GatewayConfig) -> String {
        let mut faults = Faults::default();
        config.validate(&mut faults);
        faults.to_string()
    }

    #[test]
    fn the_default_is_valid() {
        assert_eq!(faults(&GatewayConfig::default()), "");
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let config = GatewayConfig {
            store: vec!["nowhere".into()],
            name: Some(String::new()),
            listen: "0.0.0.0:7415".parse().unwrap(),
            listen_tcp: None,
            listen_ws: None,
            listen_quic: Some("127.0.0.1:1".parse().unwrap()),
            tls_key: Some("key.pem".into()),
            reconcile_ms: 60_000,
            sends_burst: 0,
            ..GatewayConfig::default()
        };
        let text = faults(&config);
        for key in [
            "`store`",
            "`name`",
            "`advertise`",
            "`listen`",
            "`listen_tcp`",
            "`reconcile_ms`",
            "`listen_quic`",
            "`tls_cert`",
        ] {
            assert!(text.contains(key), "{key} in {text}");
        }
        assert!(text.contains("`sends_burst`"), "{text}");
    }

    #[test]
    fn listeners_beyond_loopback_want_a_flag() {
        let open = GatewayConfig {
            listen_tcp: Some("192.0.2.1:7410".parse().unwrap()),
            ..GatewayConfig::default()
        };
        let text = faults(&open);
        assert!(text.contains("`listen_tcp`") && text.contains("insecure"), "{text}");
        assert_eq!(faults(&GatewayConfig { insecure: true, ..open }), "");
    }
}
