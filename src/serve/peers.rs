//! Who may connect, as configuration and ledger have it: the role of the Unix socket, the station CA, those who were
//! revoked, and the revocation list of the station CA.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::{
    config::{Config, ConfigError},
    crl::RevocationList,
    enroll::StationCaPlace,
    grpc::{Access, Listed, StationCertifier, listener::SocketRole},
    hsm::KeyUri,
    identity::{Duties, Role},
    ledger::{EnrolledPeer, Records},
    pem::{self, ReadError},
    security,
    signer::PublicKey,
    text_file::{self, TextError},
    x509::Certificate,
};

/// What users of the Unix socket are.
pub(super) fn socket_role(config: &Config) -> Result<SocketRole, ConfigError> {
    let setting = &config.server.socket_role;
    let (role, duties) = match setting.get_ref().split_once(':') {
        Some((role, duties)) => (role, Some(duties)),
        None => (setting.get_ref().as_str(), None),
    };
    let parsed = match (role, duties.map(str::parse::<Duties>)) {
        ("operator", None) => Some(SocketRole { role: Role::Operator, duties: Duties::ALL }),
        ("operator", Some(Ok(duties))) => Some(SocketRole { role: Role::Operator, duties }),
        ("auditor", None) => Some(SocketRole { role: Role::Auditor, duties: Duties::NONE }),
        _ => None,
    };
    let message = "must be \"operator\", \"operator:\" and duties such as \"operator:planner+quality\" (the duties are \
                   planner, quality, export and security), or \"auditor\"";
    parsed.ok_or_else(|| config.error_at(setting.span(), "server.socket_role", message))
}

/// What certifies stations; the key is opened when somebody is enrolled.
pub(super) fn certifier(config: &Config) -> Result<StationCertifier, ConfigError> {
    let ca = match &config.station_ca {
        None => None,
        Some(ca) => {
            let key = KeyUri::parse(ca.key_uri.get_ref())
                .map_err(|error| config.error_at(ca.key_uri.span(), "station_ca.key_uri", error))?;
            let certificate = config.resolve(ca.certificate.get_ref());
            Some(StationCaPlace { certificate, key, base_dir: config.folder().to_owned() })
        }
    };
    Ok(StationCertifier { ca, client_cas: client_cas(config)? })
}

fn client_cas(config: &Config) -> Result<Vec<Vec<u8>>, ConfigError> {
    let setting = &config.server.client_ca;
    let path = config.resolve(setting.get_ref());
    pem::read_certificates(&path).map_err(|error: ReadError| {
        config.error_at(setting.span(), "server.client_ca", format!("{}: {error}", path.display()))
    })
}

/// Takes note of everybody who was revoked before.
pub(super) fn note_revoked(access: &Access, records: &dyn Records) {
    records.peers().iter().for_each(|peer| access.note(peer));
}

/// Takes note of whom other daemons of the ledger revoke.
pub(super) async fn follow(access: Arc<Access>, records: Arc<dyn Records>) {
    let mut seen: HashMap<Arc<str>, Arc<EnrolledPeer>> = HashMap::new();
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        for peer in records.peers() {
            if seen.get(&peer.name.0).is_none_or(|before| !Arc::ptr_eq(before, &peer)) {
                access.note(&peer);
                seen.insert(Arc::clone(&peer.name.0), peer);
            }
        }
    }
}

/// How often it is looked whether the revocation list has changed.
const INTERVAL: Duration = Duration::from_secs(1);

/// The longest file with revocation lists, in bytes.
const LONGEST: u64 = 64 << 20;

/// Why a file is no revocation list of the station CA.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientCrlError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: TextError },
    #[error("{} holds no revocation list: {what}", path.display())]
    Form { path: PathBuf, what: String },
    #[error("{}: the list of \"{issuer}\" is not signed by a CA of server.client_ca", path.display())]
    Foreign { path: PathBuf, issuer: String },
}

/// The revocation list of the station CA, a file that is read again when it changes.
#[derive(Debug)]
pub(super) struct ClientCrl {
    /// None: there is no list.
    path: Option<PathBuf>,
    cas: Vec<Certificate>,
    state: Option<FileState>,
}

/// What tells that a file is another: its inode, its length and when it was changed.
type FileState = (u64, u64, i64, i64);

fn state(path: &Path) -> Option<FileState> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

impl ClientCrl {
    /// Reads the file that the configuration names, if it names one, and what it lists.
    pub(super) fn read(config: &Config) -> Result<(ClientCrl, Listed), ConfigError> {
        let cas = client_cas(config)?.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
        let mut list = ClientCrl { path: None, cas, state: None };
        let Some(setting) = &config.server.client_crl else { return Ok((list, Listed::new())) };
        let path = config.resolve(setting.get_ref());
        list.state = state(&path);
        let listed =
            read(&path, &list.cas).map_err(|error| config.error_at(setting.span(), "server.client_crl", error))?;
        list.path = Some(path);
        Ok((list, listed))
    }

    /// Reads it again if it has changed. A file that is wrong changes nothing.
    fn look(&mut self, access: &Access) {
        let Some(path) = &self.path else { return };
        let now = state(path);
        // One that is gone is being replaced, or its absence is a mistake: the list stands.
        if now.is_none() || now == self.state {
            return;
        }
        self.state = now;
        match read(path, &self.cas) {
            Ok(listed) => {
                let certificates: usize = listed.values().map(std::collections::HashSet::len).sum();
                tracing::info!(target: security::TARGET, path = %path.display(), certificates, "read the revocation list of the station CA");
                access.set_listed(listed);
            }
            Err(error) => {
                tracing::error!(%error, "the revocation list of the station CA was not read again; the one before stands");
            }
        }
    }
}

/// Looks at it as long as the daemon runs.
pub(super) async fn watch(list: Arc<Mutex<ClientCrl>>, access: Arc<Access>) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        list.lock().look(&access);
    }
}

fn read(path: &Path, cas: &[Certificate]) -> Result<Listed, ClientCrlError> {
    let unreadable = |error| ClientCrlError::Unreadable { path: path.to_owned(), error };
    let form = |what: String| ClientCrlError::Form { path: path.to_owned(), what };
    let file = text_file::open_regular(path).map_err(unreadable)?;
    let octets = text_file::read_octets(file, LONGEST).map_err(unreadable)?;
    let lists = if pem::is_der(&octets) {
        vec![octets]
    } else {
        let blocks = pem::blocks(&octets).map_err(|error| form(error.to_string()))?;
        blocks.into_iter().filter(|block| block.label == "X509 CRL").map(|block| block.der).collect()
    };
    if lists.is_empty() {
        return Err(form("there is no \"X509 CRL\" in it".to_owned()));
    }
    let mut listed: Listed = HashMap::new();
    for der in lists {
        let list = RevocationList::from_der(der).map_err(|error| form(error.to_string()))?;
        let issuer = list.issuer();
        let ca = cas.iter().find(|ca| {
            ca.subject().to_string() == issuer && PublicKey::of(ca).is_ok_and(|key| list.verify(&key).is_ok())
        });
        let ca = ca.ok_or_else(|| ClientCrlError::Foreign { path: path.to_owned(), issuer: issuer.clone() })?;
        if list.next_update().is_some_and(|next| next.since(Timestamp::now()).is_negative()) {
            tracing::warn!(issuer, "the revocation list of the station CA is out of date; it is used all the same");
        }
        let serial_numbers = list.entries().map(|entry| entry.serial_number);
        listed.entry(ca.subject().as_der().to_vec()).or_default().extend(serial_numbers);
    }
    let certificates: usize = listed.values().map(std::collections::HashSet::len).sum();
    tracing::info!(path = %path.display(), certificates, "read the revocation list of the station CA");
    Ok(listed)
}
