//! Verifies clients' certificates in the handshake: a path validation, and a judge of what it finds.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::{
    access::{Access, Refused},
    client_certificate::ClientCertificate,
};

/// Who decides about the certificates that a client presents.
pub(crate) trait Judge: fmt::Debug + Send + Sync {
    /// Whether a client must present one.
    fn demands_one(&self) -> bool {
        true
    }

    /// The names of the CAs that clients are told of, in place of the path validation's own.
    fn hints(&self) -> Option<&[DistinguishedName]> {
        None
    }

    /// The verdict on a certificate, given what path validation says of it.
    fn judge(
        &self,
        path: Result<ClientCertVerified, Error>,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error>;
}

/// A verifier whose verdict is a judge's; signatures of the handshake are verified as the path validation does it.
#[derive(Debug)]
pub(crate) struct Judged<J> {
    pub(crate) path: Arc<dyn ClientCertVerifier>,
    pub(crate) judge: J,
}

impl<J: Judge> ClientCertVerifier for Judged<J> {
    fn client_auth_mandatory(&self) -> bool {
        self.judge.demands_one()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.judge.hints().unwrap_or_else(|| self.path.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let path = self.path.verify_client_cert(end_entity, intermediates, now);
        self.judge.judge(path, end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.path.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.path.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.path.supported_verify_schemes()
    }
}

/// Nobody who was revoked comes in.
impl Judge for Arc<Access> {
    fn judge(
        &self,
        path: Result<ClientCertVerified, Error>,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = path?;
        let Some((certificate, identity)) = ClientCertificate::read(certificate) else { return Ok(verified) };
        let name = identity.as_ref().map(crate::identity::Identity::actor);
        match self.check(name.as_deref(), &certificate) {
            Ok(()) => Ok(verified),
            Err(refused) => {
                tracing::debug!(%refused, "refused a handshake");
                Err(Error::InvalidCertificate(match refused {
                    Refused::Expired(_) => CertificateError::Expired,
                    Refused::Revoked { .. } | Refused::Listed => CertificateError::Revoked,
                }))
            }
        }
    }
}
