//! Keys and certificates for stations, operators, auditors and the daemon itself, from the site's own station CA.
//!
//! These keys are made in software and lie in files: they say who may ask, they sign no device certificate.

use std::{
    fmt, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use zeroize::Zeroizing;

use crate::{
    ceremony::{CaKey, Certificate, CertificateError, Validity, date, parameters},
    durable::{self, Access},
    hsm::{self, Key, KeyUri, Token},
    identity::{self, Identity, InvalidIdentity},
    name::{Attribute, AttributeError, is_dns_name},
    signer::{PublicKey, SpkiError},
};

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A station, an operator or an auditor: a TLS client, which the daemon knows by the URN.
    Peer(Identity),
    /// The daemon itself, or a proxy before it: a TLS server, which has no URN.
    Server(String),
}

impl Subject {
    /// A TLS server; its name is for people only.
    ///
    /// # Errors
    /// If the name is not one part of an identity's.
    pub fn server(name: &str) -> Result<Self, InvalidIdentity> {
        identity::check_name(name).map(|()| Subject::Server(name.to_owned()))
    }

    /// The name without the role.
    pub fn name(&self) -> &str {
        match self {
            Subject::Peer(identity) => identity.name(),
            Subject::Server(name) => name,
        }
    }

    /// The URI that tells the daemon who a peer is; a server has none.
    pub fn urn(&self) -> Option<String> {
        match self {
            Subject::Peer(identity) => Some(identity.to_string()),
            Subject::Server(_) => None,
        }
    }

    /// The name as one folder name.
    pub fn folder(&self) -> String {
        self.name().replace('/', "-")
    }
}

/// The certificate that is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// Name and role.
    pub subject: Subject,
    /// How long the certificate lives, in days.
    pub days: u32,
    /// A server's DNS names.
    pub dns: Vec<String>,
    /// A server's addresses.
    pub ip: Vec<IpAddr>,
}

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The token or the key cannot be used, or the key is not the certificate's.
    #[error(transparent)]
    Hsm(#[from] hsm::Error),
    /// The station CA's certificate cannot be used.
    #[error("the station CA's certificate cannot be used: {0}")]
    Certificate(CertificateError),
    /// A file of an earlier enrolment is in the way.
    #[error("{} exists; remove it or name another folder with --out", .0.display())]
    Exists(PathBuf),
    /// The certificate would outlive the station CA.
    #[error(
        "the certificate would expire on {not_after}, after its station CA, which expires on {ca_not_after}; ask for fewer \
         days"
    )]
    OutlivesCa {
        /// The day on which it would expire.
        not_after: String,
        /// The day on which the CA expires.
        ca_not_after: String,
    },
    /// A TLS client is to have names of a server.
    #[error("only a server has DNS names and addresses")]
    NamesOfServer,
    /// A TLS server is to have no name.
    #[error("a server needs the names that stations connect to; add --dns NAME or --ip ADDRESS")]
    NoNames,
    /// A server's DNS name is none.
    #[error("\"{0}\" is not a DNS name")]
    DnsName(String),
    /// The name cannot be a CN.
    #[error(transparent)]
    CommonName(#[from] AttributeError),
    /// Key or certificate cannot be made.
    #[error("{0}")]
    Generate(#[from] rcgen::Error),
    /// The key that was made cannot be used.
    #[error(transparent)]
    Key(#[from] SpkiError),
    /// The certificate cannot be issued.
    #[error("{0}")]
    Issue(String),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The site's station CA: its certificate, and its key in the HSM.
pub struct StationCa {
    certificate: Certificate,
    key: CaKey,
}

impl fmt::Debug for StationCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StationCa \"{}\"", self.certificate.subject())
    }
}

impl StationCa {
    /// Reads the certificate (PEM) and opens its key. Relative paths of `key` start at `base_dir`.
    ///
    /// # Errors
    /// If the certificate is not a CA's, or the key is not there or another.
    pub fn open(certificate: &Path, key: &KeyUri, base_dir: &Path) -> Result<Self, EnrollError> {
        let certificate = Certificate::read(certificate).map_err(EnrollError::Certificate)?;
        certificate.check_ca(SystemTime::now()).map_err(EnrollError::Certificate)?;
        certificate.check_kept_as_issuer().map_err(EnrollError::Certificate)?;
        let key = Key::open(&Token::open(&key.token, base_dir)?, &key.key)?;
        key.check_matches(&certificate.key)?;
        Ok(StationCa { certificate, key: CaKey::Hsm(key) })
    }

    /// Makes a P-256 key and its certificate, and writes `cert.pem`, `key.pem` (only its owner may read it) and
    /// `ca.pem` (to verify the other side with) into `folder`.
    ///
    /// # Errors
    /// If one of the files exists, or the request cannot be fulfilled.
    pub fn enroll(&self, request: &Request, folder: &Path) -> Result<Enrolled, EnrollError> {
        let files = ["cert.pem", "key.pem", "ca.pem"].map(|name| folder.join(name));
        if let Some(path) = files.iter().find(|path| path.symlink_metadata().is_ok()) {
            return Err(EnrollError::Exists(path.clone()));
        }
        let key = KeyPair::generate()?;
        let certificate = self.issue(request, &key)?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| EnrollError::Write { path, source }
        };
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let [certificate_path, key_path, ca_path] = files;
        let key_pem = Zeroizing::new(key.serialize_pem());
        for (path, content, access) in [
            (&key_path, key_pem.as_bytes(), Access::Owner),
            (&certificate_path, certificate.pem().as_bytes(), Access::Public),
            (&ca_path, self.certificate.pem().as_bytes(), Access::Public),
        ] {
            durable::write_new(path, content, access).map_err(failed(path))?;
        }
        Ok(Enrolled {
            name: request.subject.name().to_owned(),
            uri: request.subject.urn(),
            serial: certificate.serial(),
            not_after: date(certificate.not_after),
            certificate: certificate_path,
            key: key_path,
            ca: ca_path,
        })
    }

    fn issue(&self, request: &Request, key: &KeyPair) -> Result<Certificate, EnrollError> {
        let public = PublicKey::from_spki(&rcgen::PublicKeyData::subject_public_key_info(key))?;
        let validity = Validity::days(SystemTime::now(), request.days).within(&self.certificate);
        if validity.not_after > self.certificate.not_after {
            let (not_after, ca_not_after) = (date(validity.not_after), date(self.certificate.not_after));
            return Err(EnrollError::OutlivesCa { not_after, ca_not_after });
        }
        // The URI in the certificate says who it is; the CN is for people, and has room for 64 characters only.
        let name: String = request.subject.name().chars().take(64).collect();
        let name = Attribute::parse(&format!("CN={name}"))?;
        let mut parameters =
            parameters(&[name], &public, validity).map_err(|error| EnrollError::Issue(error.to_string()))?;
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![match request.subject {
            Subject::Server(_) => ExtendedKeyUsagePurpose::ServerAuth,
            Subject::Peer(_) => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        parameters.subject_alt_names = alternative_names(request)?;
        let issued = self.key.issue(&self.certificate, &parameters, key);
        issued.map_err(|error| EnrollError::Issue(error.to_string()))
    }
}

fn alternative_names(request: &Request) -> Result<Vec<SanType>, EnrollError> {
    if let Some(urn) = request.subject.urn() {
        if !request.dns.is_empty() || !request.ip.is_empty() {
            return Err(EnrollError::NamesOfServer);
        }
        return Ok(vec![SanType::URI(urn.try_into()?)]);
    }
    let mut names = Vec::new();
    for dns in &request.dns {
        if dns.len() > 253 || !is_dns_name(dns.strip_prefix("*.").unwrap_or(dns)) {
            return Err(EnrollError::DnsName(dns.clone()));
        }
        names.push(SanType::DnsName(dns.as_str().try_into()?));
    }
    names.extend(request.ip.iter().map(|address| SanType::IpAddress(*address)));
    if names.is_empty() {
        return Err(EnrollError::NoNames);
    }
    Ok(names)
}

/// What was written.
#[derive(Debug, serde::Serialize)]
pub struct Enrolled {
    /// The name.
    pub name: String,
    /// The URI in the certificate; none for a server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// The serial number in hexadecimal.
    #[serde(rename = "serial_number")]
    pub serial: String,
    /// The day on which the certificate expires (UTC).
    pub not_after: String,
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The private key's file.
    pub key: PathBuf,
    /// The station CA certificate's file.
    pub ca: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Role;

    #[test]
    fn subject_of_a_server_has_no_urn() {
        assert_eq!(Subject::server("birthmark").unwrap().urn(), None);
        assert!(Subject::server("a/b").is_err());
        let station = Subject::Peer(Identity::new(Role::Station, "line1/tester3").unwrap());
        assert_eq!(station.urn().as_deref(), Some("urn:birthmark:station:line1/tester3"));
        assert_eq!(station.folder(), "line1-tester3");
    }
}
