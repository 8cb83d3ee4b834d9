//! A server's certificate and key, loaded from files, and again when they change.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use tracing::{info, warn};

/// Tickets that a client gets after a full handshake; each is good for one resumption, which brings
/// another.
const TICKETS: usize = 1;

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file is not PEM, or holds nothing of the kind.
    #[error("{path} holds no usable {what}: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
        /// What is wrong.
        source: pem::Error,
    },
    /// The two do not belong together, or cannot be used for TLS 1.3.
    #[error("{certificate} and {key} cannot be used together: {source}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    /// A lock, since every handshake reads it and a reload replaces it.
    current: RwLock<Arc<CertifiedKey>>,
}

impl Identity {
    /// Loads a chain of certificates, the server's own first, and its private key.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, IdentityError> {
        let current = RwLock::new(Arc::new(read(certificate, key)?));
        Ok(Arc::new(Self { certificate: certificate.to_owned(), key: key.to_owned(), current }))
    }

    /// Loads the files again. Open connections are not touched; new handshakes use what was read.
    ///
    /// # Errors
    /// See [`IdentityError`]; what was loaded before stays then.
    pub fn reload(&self) -> Result<(), IdentityError> {
        let fresh = Arc::new(read(&self.certificate, &self.key)?);
        *self.current.write() = fresh;
        Ok(())
    }

    /// TLS 1.3 with this identity, session tickets, and these application protocols (ALPN), the
    /// preferred one first. A client that names none of them but others is refused.
    ///
    /// # Errors
    /// When the system has no randomness for the tickets' keys.
    pub fn server_config(self: &Arc<Self>, alpn: &[&[u8]]) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        // A ticket is the client's to keep: nothing of an old session is held here. Early data
        // stays off, since it could be replayed.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.send_tls13_tickets = TICKETS;
        Ok(config)
    }

    /// Reloads at every SIGHUP, and when a file has changed since it was looked at, every
    /// `interval`. Does not end.
    pub async fn follow(self: Arc<Self>, interval: Duration) {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| warn!(%error, "SIGHUP will not reload certificates"))
            .ok();
        let mut seen = self.changed_at();
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let asked = tokio::time::timeout(interval, asked).await.is_ok();
            let changed_at = self.changed_at();
            if asked || changed_at != seen {
                self.reload_and_tell();
                seen = changed_at;
            }
        }
    }

    fn reload_and_tell(&self) {
        let certificate = self.certificate.display();
        match self.reload() {
            Ok(()) => info!(%certificate, "the certificate was loaded again"),
            Err(error) => warn!(%error, "the certificate was not loaded again; the old one stays"),
        }
    }

    fn changed_at(&self) -> [Option<SystemTime>; 2] {
        [&self.certificate, &self.key].map(|path| fs::metadata(path).ok()?.modified().ok())
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().clone())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, IdentityError> {
    let bytes = |path: &Path| {
        fs::read(path).map_err(|source| IdentityError::Read { path: path.to_owned(), source })
    };
    let fault = |path: &Path, what, source| IdentityError::Pem { path: path.into(), what, source };
    let chain = CertificateDer::pem_slice_iter(&bytes(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
        .map_err(|source| fault(certificate, "certificate", source))?;
    let secret = PrivateKeyDer::from_pem_slice(&bytes(key)?)
        .map_err(|source| fault(key, "private key", source))?;
    CertifiedKey::from_der(chain, secret, &provider()).map_err(|source| IdentityError::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{Authority, Request, Role};

    #[test]
    fn what_cannot_be_used_is_refused_and_the_old_identity_stays() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path(), "CA", 1).unwrap();
        let request = |name: &str| Request {
            name: name.to_owned(),
            role: Role::Gateway,
            hosts: vec!["localhost".to_owned()],
            days: 1,
        };
        let (certificate, key) =
            authority.issue(&request("a")).unwrap().save(dir.path(), "a").unwrap();
        let (_, other_key) = authority.issue(&request("b")).unwrap().save(dir.path(), "b").unwrap();

        let identity = Identity::load(&certificate, &key).unwrap();
        identity.server_config(&[b"x"]).unwrap();
        let before = identity.current.read().clone();
        fs::copy(&other_key, &key).unwrap();
        assert!(matches!(identity.reload(), Err(IdentityError::Pair { .. })));
        fs::write(&key, "not a key").unwrap();
        assert!(matches!(identity.reload(), Err(IdentityError::Pem { what: "private key", .. })));
        assert!(Arc::ptr_eq(&before, &identity.current.read()));

        authority.issue(&request("a")).unwrap().replace(dir.path(), "a").unwrap();
        identity.reload().unwrap();
        assert_ne!(before.cert, identity.current.read().cert);
        fs::write(&certificate, "").unwrap();
        assert!(matches!(identity.reload(), Err(IdentityError::Pem { what: "certificate", .. })));
        fs::remove_file(&certificate).unwrap();
        assert!(matches!(identity.reload(), Err(IdentityError::Read { .. })));
    }
}
