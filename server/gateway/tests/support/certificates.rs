//! An authority, a certificate for loopback, and a gateway that uses it.

use switchboard_device::Trust;
use switchboard_gateway::GatewayConfig;
use switchboard_process::tls::{Authority, Request, Role};
use tempfile::TempDir;

/// See the module.
pub(crate) struct Certificates {
    dir: TempDir,
    pub(crate) trust: Trust,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path(), "Test CA", 1).unwrap();
        authority.issue(&request()).unwrap().save(dir.path(), "gateway").unwrap();
        let trust = Trust::authority(authority.certificate()).unwrap();
        Self { dir, trust }
    }

    /// Turns TLS and QUIC on, and looks at the files often.
    pub(crate) fn configure(&self, config: &mut GatewayConfig) {
        config.listen_tls = Some(super::any());
        config.listen_quic = Some(super::any());
        config.tls_cert = Some(self.dir.path().join("gateway.pem"));
        config.tls_key = Some(self.dir.path().join("gateway.key"));
        config.tls_reload_ms = 100;
    }

    /// Replaces the files by ones that only the certificates returned here vouch for.
    pub(crate) fn replaced_by_another_authority(&self) -> Self {
        let others = Self::new();
        let authority = Authority::open(others.dir.path()).unwrap();
        authority.issue(&request()).unwrap().replace(self.dir.path(), "gateway").unwrap();
        others
    }
}

fn request() -> Request {
    Request {
        name: "gateway".to_owned(),
        role: Role::Gateway,
        hosts: vec!["127.0.0.1".to_owned()],
        days: 1,
    }
}
