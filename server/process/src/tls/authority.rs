//! A certificate authority in a directory: `ca.pem` and `ca.key`, and what it signs.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::role::Role;

/// Clocks that are late by less than this take a fresh certificate.
const BACKDATED: Duration = Duration::hours(1);

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It would replace one that is there.
    #[error("{path} is there already and is not replaced; remove it first if you mean to")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// There is no authority in the directory.
    #[error("there is no certificate authority in {dir}; make one with `switchboard cert init`")]
    NoAuthority {
        /// The directory.
        dir: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot access {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A name cannot be used as a file's.
    #[error("`{0}` cannot be used as a name: letters, digits, `-`, `_` and `.` only")]
    Name(String),
    /// What was asked for, or what was read, is no valid certificate or key.
    #[error("no certificate can be made of this: {0}")]
    Invalid(#[from] rcgen::Error),
}

/// A certificate to issue.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whose it is: the common name of its subject.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Names and addresses at which it is reached.
    pub hosts: Vec<String>,
    /// Valid for so long, in days.
    pub days: u32,
}

/// A certificate and its private key, in PEM.
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    key_pem: String,
}

/// A certificate authority.
///
/// ```
/// use switchboard_process::tls::{Authority, Request, Role};
/// let dir = tempfile::tempdir()?;
/// let authority = Authority::create(dir.path(), "Example CA", 3_650)?;
/// let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
/// let request = Request { name: "gateway-1".to_owned(), role: Role::Gateway, hosts, days: 90 };
/// let (certificate, key) = authority.issue(&request)?.save(dir.path(), "gateway-1")?;
/// assert!(certificate.ends_with("gateway-1.pem") && key.ends_with("gateway-1.key"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: PathBuf,
}

impl Authority {
    /// Makes one in `dir`, which is made too.
    ///
    /// # Errors
    /// See [`CertificateError`]; also when there is one already.
    pub fn create(dir: &Path, name: &str, days: u32) -> Result<Self, CertificateError> {
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        refuse_existing(&[&certificate, &key])?;
        let pair = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, days);
        let pem = params.self_signed(&pair)?.pem();
        fs::create_dir_all(dir).map_err(|source| file(dir, source))?;
        // The key first: a certificate without one would only get in the way of the next attempt.
        write_new(&key, &pair.serialize_pem(), 0o600)?;
        write_new(&certificate, &pem, 0o644)?;
        Ok(Self { issuer: Issuer::new(params, pair), certificate })
    }

    /// Opens the one in `dir`.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn open(dir: &Path) -> Result<Self, CertificateError> {
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        if !certificate.exists() || !key.exists() {
            return Err(CertificateError::NoAuthority { dir: dir.to_owned() });
        }
        let read = |path: &Path| fs::read_to_string(path).map_err(|source| file(path, source));
        let pair = KeyPair::from_pem(&read(&key)?)?;
        let issuer = Issuer::from_ca_cert_pem(&read(&certificate)?, pair)?;
        Ok(Self { issuer, certificate })
    }

    /// The file with its certificate, for those who are to trust it.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Makes a key, and signs a certificate for it.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn issue(&self, request: &Request) -> Result<Issued, CertificateError> {
        let pair = KeyPair::generate()?;
        let mut params = CertificateParams::new(request.hosts.clone())?;
        params.distinguished_name = subject(&request.name, Some(request.role));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A server of ours is a client of the others: both, so that one certificate does.
        params.extended_key_usages = match request.role {
            Role::Operator => vec![ExtendedKeyUsagePurpose::ClientAuth],
            _ => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, request.days);
        let certificate_pem = params.signed_by(&pair, &self.issuer)?.pem();
        Ok(Issued { certificate_pem, key_pem: pair.serialize_pem() })
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key` into `dir`; neither may be there.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn save(&self, dir: &Path, name: &str) -> Result<(PathBuf, PathBuf), CertificateError> {
        let (certificate, key) = paths(dir, name)?;
        refuse_existing(&[&certificate, &key])?;
        write_new(&key, &self.key_pem, 0o600)?;
        write_new(&certificate, &self.certificate_pem, 0o644)?;
        Ok((certificate, key))
    }

    /// As [`Issued::save`], in place of files of these names. Each file changes as a whole; a
    /// server that loads the two in between finds that they do not match, and keeps what it has.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn replace(&self, dir: &Path, name: &str) -> Result<(PathBuf, PathBuf), CertificateError> {
        let (certificate, key) = paths(dir, name)?;
        for (path, text, mode) in
            [(&key, &self.key_pem, 0o600), (&certificate, &self.certificate_pem, 0o644)]
        {
            let staged = path.with_extension(format!("new-{}", std::process::id()));
            write_new(&staged, text, mode)?;
            fs::rename(&staged, path).map_err(|source| file(path, source))?;
        }
        Ok((certificate, key))
    }
}

fn paths(dir: &Path, name: &str) -> Result<(PathBuf, PathBuf), CertificateError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(fine) || name == "ca" {
        return Err(CertificateError::Name(name.to_owned()));
    }
    Ok((dir.join(format!("{name}.pem")), dir.join(format!("{name}.key"))))
}

fn subject(name: &str, role: Option<Role>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    if let Some(role) = role {
        subject.push(DnType::OrganizationalUnitName, role.as_str());
    }
    subject
}

fn set_validity(params: &mut CertificateParams, days: u32) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + Duration::days(days.into());
}

fn refuse_existing(paths: &[&Path]) -> Result<(), CertificateError> {
    match paths.iter().find(|path| path.exists()) {
        Some(path) => Err(CertificateError::Exists { path: (*path).to_owned() }),
        None => Ok(()),
    }
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CertificateError> {
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CertificateError::Exists { path: path.to_owned() },
        _ => file(path, source),
    })
}

fn file(path: &Path, source: io::Error) -> CertificateError {
    CertificateError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn request(name: &str) -> Request {
        let hosts = vec!["localhost".to_owned(), "::1".to_owned()];
        Request { name: name.to_owned(), role: Role::Gateway, hosts, days: 1 }
    }

    #[test]
    fn nothing_is_written_over_and_keys_are_for_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Authority::open(dir.path()), Err(CertificateError::NoAuthority { .. })));
        Authority::create(dir.path(), "CA", 10).unwrap();
        let again = Authority::create(dir.path(), "CA", 10);
        assert!(matches!(again, Err(CertificateError::Exists { .. })));

        let authority = Authority::open(dir.path()).unwrap();
        let issued = authority.issue(&request("gw")).unwrap();
        let (_, key) = issued.save(dir.path(), "gw").unwrap();
        assert!(matches!(issued.save(dir.path(), "gw"), Err(CertificateError::Exists { .. })));
        issued.replace(dir.path(), "gw").unwrap();
        for key in [key, dir.path().join("ca.key")] {
            assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "no staged file is left");
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path(), "CA", 10).unwrap();
        let issued = authority.issue(&request("gw")).unwrap();
        for name in ["", "../gw", "a/b", ".gw", "ca", "g w"] {
            assert!(matches!(issued.save(dir.path(), name), Err(CertificateError::Name(_))));
        }
    }
}
