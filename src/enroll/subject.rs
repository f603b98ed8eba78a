//! Whom a certificate of the station CA is for.

use std::net::IpAddr;

use super::error::EnrollError;
use crate::identity::{self, Identity, InvalidIdentity, Role};

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

    /// A station, an operator or an auditor.
    ///
    /// # Errors
    /// If it has a name that users of the Unix socket have.
    pub fn peer(identity: Identity) -> Result<Self, EnrollError> {
        if identity.role() != Role::Station && identity.name().starts_with("local-") {
            return Err(EnrollError::LocalName(identity.name().to_string()));
        }
        Ok(Subject::Peer(identity))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_of_a_server_has_no_urn() {
        assert_eq!(Subject::server("birthmark").unwrap().urn(), None);
        assert!(Subject::server("a/b").is_err());
        let station = Subject::Peer(Identity::new(Role::Station, "line1/tester3").unwrap());
        assert_eq!(station.urn().as_deref(), Some("urn:birthmark:station:line1/tester3"));
        assert_eq!(station.folder(), "line1-tester3");
    }
}
