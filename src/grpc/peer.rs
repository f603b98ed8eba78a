//! Who is at the other end: the role and name in the client certificate's URI SAN, or a local user on the socket.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use tonic::{Request, Status, codegen::http};

use super::{
    limits::{self, PeerLimits},
    request_error::RequestError,
    status,
};
use crate::{
    connections::Activity,
    identity::{Identity, Role},
    ledger::Actor,
    x509::{Certificate, GeneralName},
};

/// The other end of a connection; established once, when the connection is.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    identity: Option<Identity>,
    /// Until when its certificate is valid; a connection may outlive it, also by resuming its TLS session, a call not.
    expires: Option<Timestamp>,
    /// What it has open, from when the server took its connection.
    limits: Option<Arc<PeerLimits>>,
    /// What happens on its connection.
    activity: Arc<Activity>,
}

impl Peer {
    /// The holder of a client certificate that the TLS handshake has verified.
    pub(super) fn from_certificate(der: &[u8]) -> Peer {
        let Ok(certificate) = Certificate::from_der(der) else { return Peer::new(None, None) };
        let expires = Timestamp::try_from(SystemTime::from(certificate.not_after())).ok();
        let names = certificate.subject_alt_names().unwrap_or_default();
        let identities: Vec<_> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::Uri(uri) => uri.parse::<Identity>().ok(),
                _ => None,
            })
            .collect();
        // Two role URNs are ambiguous: such a peer gets no role.
        let identity = match identities.as_slice() {
            [identity] => Some(identity.clone()),
            _ => None,
        };
        Peer::new(identity, expires)
    }

    /// A process on this machine that may open the Unix socket, running as this user.
    pub(super) fn local(user: u32) -> Peer {
        Peer::new(Some(Identity::local_user(user)), None)
    }

    fn new(identity: Option<Identity>, expires: Option<Timestamp>) -> Peer {
        Peer { identity, expires, limits: None, activity: Activity::new() }
    }

    /// What it may do, if anything.
    fn role(&self) -> Option<Role> {
        self.identity.as_ref().map(Identity::role)
    }

    /// How many connections it may have.
    pub(super) fn most_connections(&self) -> usize {
        match self.role() {
            Some(Role::Operator | Role::Auditor) => limits::CONNECTIONS,
            Some(Role::Station) | None => limits::STATION_CONNECTIONS,
        }
    }

    /// From now on its calls count among these.
    pub(super) fn count_among(&mut self, limits: Arc<PeerLimits>) {
        self.limits = Some(limits);
    }

    /// What it has open.
    ///
    /// # Errors
    /// INTERNAL if the server never took its connection.
    pub(super) fn limits(&self) -> Result<&Arc<PeerLimits>, Status> {
        self.limits.as_ref().ok_or_else(|| status::failed_call(&RequestError::Internal))
    }

    /// What happens on its connection.
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Resolves when the certificate of the peer has expired, with the status for its open calls; never without one.
    pub(super) async fn expired(self) -> Status {
        let Some(expires) = self.expires else { return std::future::pending().await };
        // Short sleeps, so that a clock that is set meanwhile is noticed.
        const CHECK_INTERVAL: Duration = Duration::from_secs(60);
        loop {
            let now = Timestamp::now();
            if expires < now {
                return expired(expires);
            }
            let left = Duration::try_from(expires.duration_since(now)).unwrap_or_default();
            tokio::time::sleep(left.min(CHECK_INTERVAL) + Duration::from_millis(1)).await;
        }
    }

    /// The name of a peer that has one of these roles.
    ///
    /// # Errors
    /// UNAUTHENTICATED without a role or with a certificate that has expired since; PERMISSION_DENIED with another
    /// role.
    pub(super) fn require(&self, allowed: &[Role]) -> Result<(Role, &Arc<str>), Status> {
        let names = || allowed.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" or ");
        let Some(identity) = &self.identity else {
            return Err(status::unauthenticated(format!(
                "the client certificate has no role; it needs one URI SAN urn:birthmark:<role>:<name> with the role {}",
                names()
            )));
        };
        if let Some(expires) = self.expires.filter(|expires| *expires < Timestamp::now()) {
            return Err(expired(expires));
        }
        if !allowed.contains(&identity.role()) {
            return Err(status::role_required(format!(
                "this call needs the role {}; {self} does not have it",
                names()
            )));
        }
        Ok((identity.role(), identity.name()))
    }

    /// The peer of a request.
    ///
    /// # Errors
    /// UNAUTHENTICATED if its connection has none.
    pub(super) fn from_request<T>(request: &Request<T>) -> Result<&Peer, Status> {
        request.extensions().get::<Peer>().ok_or_else(Peer::missing)
    }

    /// The same, before gRPC has looked at the request.
    pub(super) fn from_extensions(extensions: &http::Extensions) -> Result<&Peer, Status> {
        extensions.get::<Peer>().ok_or_else(Peer::missing)
    }

    fn missing() -> Status {
        status::unauthenticated("the connection has no peer".into())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Some(identity) => write!(f, "{}:{}", identity.role(), identity.name()),
            None => f.write_str("a peer without a role"),
        }
    }
}

/// The holder of a client certificate, as other ports than gRPC's know it.
#[derive(Debug)]
pub(crate) struct Credentials(Peer);

impl Credentials {
    /// Of a client certificate of the station CA that the TLS handshake has verified.
    pub(crate) fn of(der: &[u8]) -> Credentials {
        Credentials(Peer::from_certificate(der))
    }

    /// The station's `<line>/<station>`.
    ///
    /// # Errors
    /// Why it is none, or not any more, as one sentence.
    pub(crate) fn station(&self) -> Result<&Arc<str>, String> {
        let station = self.0.require(&[Role::Station]);
        station.map(|(_, name)| name).map_err(|status| status.message().to_owned())
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn expired(expires: Timestamp) -> Status {
    status::unauthenticated(format!("the client certificate expired at {expires}; enroll again"))
}

/// How the ledger knows a peer.
pub(super) fn actor(role: Role, name: &str) -> Actor {
    Actor(format!("{}:{name}", role.as_str()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TLS lets it in, so that it must not be told that it has no URI SAN.
    #[test]
    fn peer_certificate_with_a_long_serial_number_has_its_role() {
        let mut params = rcgen::CertificateParams::default();
        params.serial_number = Some(vec![0x31; 30].into());
        params.subject_alt_names = vec![rcgen::SanType::URI("urn:birthmark:station:line1/t3".try_into().unwrap())];
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let peer = Peer::from_certificate(certificate.der());
        assert_eq!(peer.to_string(), "station:line1/t3");
        assert!(peer.require(&[Role::Station]).is_ok());
    }
}
