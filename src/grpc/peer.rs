//! Who is at the other end: the role and name in the client certificate's URI SAN, or a local user on the socket.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use tonic::{Request, Status, codegen::http};

use super::{
    access::{Access, Refused},
    client_certificate::ClientCertificate,
    limits::{self, PeerLimits},
    request_error::RequestError,
    status,
};
use crate::{
    connections::Activity,
    identity::{Identity, Role},
    ledger::Actor,
    roles::Call,
};

/// The other end of a connection; established once, when the connection is.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    identity: Option<Identity>,
    /// A connection may outlive its certificate, also by resuming its TLS session; a call not.
    certificate: Option<Arc<ClientCertificate>>,
    access: Arc<Access>,
    /// What it has open, from when the server took its connection.
    limits: Option<Arc<PeerLimits>>,
    /// What happens on its connection.
    activity: Arc<Activity>,
}

/// Why the calls of a peer end, and its connection.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: Status,
    /// For how long a call may still finish by itself, so that what was begun is answered.
    pub(super) grace: Duration,
}

/// How long after its peer's certificate has expired a call may still finish by itself.
const GRACE: Duration = Duration::from_secs(3);

impl Peer {
    /// The holder of a client certificate that the TLS handshake has verified, perhaps that of an earlier connection.
    pub(super) fn from_certificate(der: &[u8], access: &Arc<Access>) -> Peer {
        match ClientCertificate::read(der) {
            Some((certificate, identity)) => Peer::new(identity, Some(Arc::new(certificate)), access),
            None => Peer::new(None, None, access),
        }
    }

    /// A process on this machine that may open the Unix socket.
    pub(super) fn local(identity: Identity, access: &Arc<Access>) -> Peer {
        Peer::new(Some(identity), None, access)
    }

    fn new(identity: Option<Identity>, certificate: Option<Arc<ClientCertificate>>, access: &Arc<Access>) -> Peer {
        let (access, activity) = (Arc::clone(access), Activity::new());
        Peer { identity, certificate, access, limits: None, activity }
    }

    /// Who it is, if that is clear.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The certificate that it connects with; none on the Unix socket.
    pub(super) fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.as_deref()
    }

    /// As the ledger's actors have it; peers without a role share a name.
    pub(super) fn name(&self) -> String {
        self.identity.as_ref().map_or_else(|| self.to_string(), Identity::actor)
    }

    /// What it may do, if anything.
    fn role(&self) -> Option<Role> {
        self.identity.as_ref().map(Identity::role)
    }

    /// Whether it may be connected now.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check_access(&self) -> Result<(), Refused> {
        let name = self.identity.as_ref().map(Identity::actor);
        self.certificate.as_ref().map_or(Ok(()), |certificate| self.access.check(name.as_deref(), certificate))
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

    /// Resolves when the certificate of the peer has expired or was revoked; never without one.
    pub(super) async fn ended(self) -> Ended {
        let Some(certificate) = self.certificate.clone() else { return std::future::pending().await };
        let mut changes = self.access.changes();
        // Short sleeps, so that a clock that is set meanwhile is noticed.
        const CHECK_INTERVAL: Duration = Duration::from_secs(60);
        loop {
            changes.mark_unchanged();
            if let Err(refused) = self.check_access() {
                let grace = if matches!(refused, Refused::Expired(_)) { GRACE } else { Duration::ZERO };
                return Ended { status: status::no_access(&refused), grace };
            }
            let left = certificate.expires.map(|end| end.duration_since(Timestamp::now()));
            let left = left.map_or(CHECK_INTERVAL, |left| Duration::try_from(left).unwrap_or_default());
            tokio::select! {
                // An error means that the daemon goes down.
                _ = changes.changed() => {}
                () = tokio::time::sleep(left.min(CHECK_INTERVAL) + Duration::from_millis(1)) => {}
            }
        }
    }

    /// The identity of a peer that may make a call.
    ///
    /// # Errors
    /// UNAUTHENTICATED without a role or with a certificate that has expired or was revoked since; PERMISSION_DENIED if
    /// the call is for others.
    pub(super) fn require(&self, call: Call) -> Result<&Identity, Status> {
        let Some(identity) = &self.identity else {
            return Err(status::unauthenticated(format!(
                "the client certificate has no role; it needs one URI SAN urn:birthmark:<role>:<name>, and this call the \
                 role {}",
                call.rule().who()
            )));
        };
        self.check_access().map_err(|refused| status::no_access(&refused))?;
        if !call.rule().allows_identity(identity) {
            return Err(status::role_required(format!(
                "this call needs the role {}; {self} does not have it",
                call.rule().who()
            )));
        }
        Ok(identity)
    }

    /// The peer that makes a call, as the ledger knows it.
    ///
    /// # Errors
    /// As [`Peer::require`].
    pub(super) fn actor(&self, call: Call) -> Result<Actor, Status> {
        self.require(call).map(|identity| Actor(identity.actor().into()))
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

/// Role and name, and the duties of an operator that is limited to some.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Some(identity) => f.write_str(identity.to_string().trim_start_matches("urn:birthmark:")),
            None => f.write_str("a peer without a role"),
        }
    }
}

/// The holder of a client certificate, as other ports than gRPC's know it.
#[derive(Debug)]
pub(crate) struct Credentials(Peer);

impl Credentials {
    /// Of a client certificate of the station CA that the TLS handshake has verified.
    pub(crate) fn of(der: &[u8], access: &Arc<Access>) -> Credentials {
        Credentials(Peer::from_certificate(der, access))
    }

    /// Who it is, as logs and the ledger name it.
    pub(crate) fn actor(&self) -> Option<Arc<str>> {
        self.0.identity().map(|identity| identity.actor().into())
    }

    /// The station that it is, if it may issue now.
    ///
    /// # Errors
    /// Why not, as the status of a call.
    pub(crate) fn station(&self) -> Result<&Identity, tonic::Status> {
        self.0.require(Call::IssueOne)
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
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
        let peer = Peer::from_certificate(certificate.der(), &Access::new());
        assert_eq!(peer.to_string(), "station:line1/t3");
        assert!(peer.require(Call::Issue).is_ok());
    }
}
