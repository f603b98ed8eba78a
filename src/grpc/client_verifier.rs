//! Verifies clients' certificates in the handshake: the usual path validation, and that nobody was revoked.

use std::sync::Arc;

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

/// A verifier that asks [`Access`] about what another one has found valid.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) path: Arc<dyn ClientCertVerifier>,
    pub(super) access: Arc<Access>,
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.path.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.path.verify_client_cert(end_entity, intermediates, now)?;
        let Some((certificate, identity)) = ClientCertificate::read(end_entity) else { return Ok(verified) };
        let name = identity.as_ref().map(crate::identity::Identity::actor);
        match self.access.check(name.as_deref(), &certificate) {
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
