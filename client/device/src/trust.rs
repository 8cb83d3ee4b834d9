//! Which gateways are believed to be who they say, and the sessions of TLS that may be resumed.

use std::{fs, io, path::Path, path::PathBuf, sync::Arc};

use quinn::{IdleTimeout, TransportConfig, crypto::rustls::QuicClientConfig};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem, pem::PemObject as _},
    version::TLS13,
};

use crate::{connection::SUBPROTOCOL, limits::QUIC_IDLE_MAX};

/// What a browser would name before it speaks WebSocket.
const ALPN_HTTP: &[u8] = b"http/1.1";

/// Why it is not known whom to trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It is not PEM.
    #[error("{path} is not a PEM file of certificates: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// There is no certificate that could be used.
    #[error("{from} holds no certificate of an authority that can be used")]
    Empty {
        /// Where they were looked for.
        from: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Authorities whose certificates are believed, with the sessions made under them: clones share
/// those, so that a device that connects again resumes.
///
/// ```no_run
/// use switchboard_device::{DeviceOptions, Trust};
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let gateways = vec!["tls://gateway.example.org:7411".parse()?];
/// let mut options = DeviceOptions::new("alice", 1, gateways);
/// options.trust = Some(Trust::authority("certs/ca.pem".as_ref())?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Trust {
    frames: Arc<ClientConfig>,
    web: Arc<ClientConfig>,
    quic: Arc<ClientConfig>,
}

impl Trust {
    /// Those in a PEM file, and no other.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn authority(path: &Path) -> Result<Self, TrustError> {
        let read = |source| TrustError::Read { path: path.to_owned(), source };
        let bytes = fs::read(path).map_err(read)?;
        let certificates = CertificateDer::pem_slice_iter(&bytes)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| TrustError::Pem { path: path.to_owned(), source })?;
        Self::new(certificates, &path.display().to_string())
    }

    /// Those that the system trusts.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn system() -> Result<Self, TrustError> {
        let found = rustls_native_certs::load_native_certs();
        Self::new(found.certs, "the system's store")
    }

    fn new(certificates: Vec<CertificateDer<'static>>, from: &str) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(TrustError::Empty { from: from.to_owned() });
        }
        let roots = Arc::new(roots);
        let config = |alpn: &[u8]| -> Result<Arc<ClientConfig>, rustls::Error> {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&TLS13])?
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            config.alpn_protocols = vec![alpn.to_vec()];
            Ok(Arc::new(config))
        };
        let frames = SUBPROTOCOL.as_bytes();
        Ok(Self { frames: config(frames)?, web: config(ALPN_HTTP)?, quic: config(frames)? })
    }

    pub(crate) fn frames(&self) -> Arc<ClientConfig> {
        self.frames.clone()
    }

    pub(crate) fn web(&self) -> Arc<ClientConfig> {
        self.web.clone()
    }

    pub(crate) fn quic(&self) -> Result<quinn::ClientConfig, io::Error> {
        let crypto = QuicClientConfig::try_from(self.quic.clone()).map_err(io::Error::other)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(IdleTimeout::try_from(QUIC_IDLE_MAX).ok())
            .max_concurrent_bidi_streams(0_u32.into())
            .max_concurrent_uni_streams(0_u32.into());
        config.transport_config(Arc::new(transport));
        Ok(config)
    }
}
