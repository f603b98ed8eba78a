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
    ceremony::{CaKey, Certificate, Validity, date, parameters},
    durable::{self, Access},
    hsm::{self, Key, KeyUri, Token},
    name::Attribute,
    signer::PublicKey,
};

/// What a peer may do; the daemon reads it from the URI in its certificate, and from nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Asks for certificates and confirms them. Its name is `<line>/<station>`.
    Station,
    /// Manages orders, exports and revocation.
    Operator,
    /// Reads.
    Auditor,
    /// The daemon itself, or a proxy before it: a TLS server, no peer.
    Server,
}

/// A name of one part, or of two for a station: each `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    role: Role,
    name: String,
}

impl Subject {
    /// Reads the name of someone with this role.
    ///
    /// # Errors
    /// A sentence that says what the name must be like.
    pub fn parse(role: Role, name: &str) -> Result<Self, String> {
        let parts: Vec<_> = name.split('/').collect();
        if role == Role::Station && parts.len() != 2 {
            return Err(format!("\"{name}\" is not <line>/<station>, such as line1/tester3"));
        }
        if role != Role::Station && parts.len() != 1 {
            return Err(format!("\"{name}\" has a \"/\"; only a station has two parts"));
        }
        let good = |part: &&str| {
            let rest = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'_' | b'-');
            part.len() <= 64
                && part.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
                && part.as_bytes().iter().all(rest)
        };
        if !parts.iter().all(good) {
            return Err(format!(
                "\"{name}\" is not a usable name; each part has 1 to 64 letters, digits, \".\", \"_\" or \"-\", and begins with a letter or digit"
            ));
        }
        Ok(Subject { role, name: name.to_owned() })
    }

    /// The URI that tells the daemon who a peer is; a server has none.
    pub fn urn(&self) -> Option<String> {
        let role = match self.role {
            Role::Station => "station",
            Role::Operator => "operator",
            Role::Auditor => "auditor",
            Role::Server => return None,
        };
        Some(format!("urn:birthmark:{role}:{}", self.name))
    }

    /// The name as one folder name.
    pub fn folder(&self) -> String {
        self.name.replace('/', "-")
    }
}

/// Whom to enroll.
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

/// Why nobody was enrolled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token or the key cannot be used, or the key is not the certificate's.
    #[error(transparent)]
    Hsm(#[from] hsm::Error),
    /// The station CA's certificate cannot be used.
    #[error("the station CA's certificate cannot be used: {0}")]
    Certificate(String),
    /// What was asked for cannot be issued.
    #[error("{0}")]
    Refused(String),
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
    pub fn open(certificate: &Path, key: &KeyUri, base_dir: &Path) -> Result<Self, Error> {
        let certificate = Certificate::read(certificate).map_err(Error::Certificate)?;
        certificate.must_be_ca(SystemTime::now()).map_err(Error::Certificate)?;
        certificate.must_survive_as_issuer().map_err(Error::Certificate)?;
        let key = Key::open(&Token::open(&key.token, base_dir)?, &key.key)?;
        key.must_match(&certificate.key)?;
        Ok(StationCa { certificate, key: CaKey::Hsm(key) })
    }

    /// Makes a P-256 key and its certificate, and writes `cert.pem`, `key.pem` (only its owner may read it) and `ca.pem`
    /// (to verify the other side with) into `folder`.
    ///
    /// # Errors
    /// If one of the files exists, or the request cannot be fulfilled.
    pub fn enroll(&self, request: &Request, folder: &Path) -> Result<Enrolled, Error> {
        let files = ["cert.pem", "key.pem", "ca.pem"].map(|name| folder.join(name));
        if let Some(path) = files.iter().find(|path| path.symlink_metadata().is_ok()) {
            return Err(Error::Refused(format!(
                "{} exists; remove it or name another folder with --out",
                path.display()
            )));
        }
        let key = KeyPair::generate().map_err(|error| Error::Refused(error.to_string()))?;
        let certificate = self.issue(request, &key)?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Write { path, source }
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
            name: request.subject.name.clone(),
            uri: request.subject.urn(),
            serial: certificate.serial(),
            not_after: date(certificate.not_after),
            certificate: certificate_path,
            key: key_path,
            ca: ca_path,
        })
    }

    fn issue(&self, request: &Request, key: &KeyPair) -> Result<Certificate, Error> {
        let refused = Error::Refused;
        let public = PublicKey::from_spki(&rcgen::PublicKeyData::subject_public_key_info(key))
            .map_err(|error| refused(error.to_string()))?;
        let validity = Validity::days(SystemTime::now(), request.days).within(&self.certificate);
        if validity.not_after > self.certificate.not_after {
            return Err(Error::Refused(format!(
                "the certificate would end on {}, after its station CA, which ends on {}; ask for fewer days",
                date(validity.not_after),
                date(self.certificate.not_after)
            )));
        }
        // The URI in the certificate says who it is; the CN is for people, and has room for 64 characters only.
        let name: String = request.subject.name.chars().take(64).collect();
        let name = Attribute::parse(&format!("CN={name}")).map_err(refused)?;
        let mut parameters = parameters(&[name], &public, validity).map_err(refused)?;
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![match request.subject.role {
            Role::Server => ExtendedKeyUsagePurpose::ServerAuth,
            _ => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        parameters.subject_alt_names = alternative_names(request).map_err(refused)?;
        self.key.issue(&self.certificate, &parameters, key).map_err(refused)
    }
}

fn alternative_names(request: &Request) -> Result<Vec<SanType>, String> {
    if let Some(urn) = request.subject.urn() {
        if !request.dns.is_empty() || !request.ip.is_empty() {
            return Err("only a server has DNS names and addresses".into());
        }
        let urn = urn.try_into().map_err(|error: rcgen::Error| error.to_string())?;
        return Ok(vec![SanType::URI(urn)]);
    }
    let mut names = Vec::new();
    for dns in &request.dns {
        let host = dns.strip_prefix("*.").unwrap_or(dns);
        let good = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
        };
        if dns.len() > 253 || !host.split('.').all(good) {
            return Err(format!("\"{dns}\" is not a DNS name"));
        }
        names.push(SanType::DnsName(dns.as_str().try_into().map_err(|error: rcgen::Error| error.to_string())?));
    }
    names.extend(request.ip.iter().map(|address| SanType::IpAddress(*address)));
    if names.is_empty() {
        return Err("a server needs the names that stations connect to; add --dns NAME or --ip ADDRESS".into());
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
    /// The day on which the certificate ends (UTC).
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

    #[test]
    fn a_station_is_named_by_line_and_station_and_the_others_by_one_name() {
        let urn = |role, name: &str| Subject::parse(role, name).map(|subject| subject.urn());
        assert_eq!(urn(Role::Station, "line1/tester3"), Ok(Some("urn:birthmark:station:line1/tester3".into())));
        assert_eq!(urn(Role::Operator, "a.b_c-9"), Ok(Some("urn:birthmark:operator:a.b_c-9".into())));
        assert_eq!(urn(Role::Auditor, "x"), Ok(Some("urn:birthmark:auditor:x".into())));
        assert_eq!(urn(Role::Server, "birthmark"), Ok(None));
        for name in ["line1", "a/b/c", "/b", "a/", "a/.b", "a/-b", "a b/c", "a/b\u{e9}", "a/b:c", "*/b"] {
            assert!(urn(Role::Station, name).is_err(), "{name}");
        }
        assert!(urn(Role::Operator, "a/b").is_err());
        assert!(urn(Role::Operator, &"a".repeat(64)).is_ok());
        assert!(urn(Role::Operator, &"a".repeat(65)).is_err());
    }
}
