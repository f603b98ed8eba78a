//! What of a client's certificate matters after its handshake.

use std::time::SystemTime;

use jiff::Timestamp;

use crate::{
    hash::sha256,
    identity::Identity,
    x509::{Certificate, GeneralName},
};

/// Which certificate a client has, and until when it is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientCertificate {
    /// Of its DER.
    pub(super) sha256: [u8; 32],
    /// The DER Name.
    pub(super) issuer: Vec<u8>,
    /// The content octets.
    pub(super) serial_number: Vec<u8>,
    /// From when on it is valid; none if that is no time of ours.
    pub(super) not_before: Option<Timestamp>,
    /// Its last valid second; none for the end of times.
    pub(super) expires: Option<Timestamp>,
}

impl ClientCertificate {
    /// Takes a DER certificate apart: its data, and who holds it, if that is clear.
    pub(super) fn read(der: &[u8]) -> Option<(ClientCertificate, Option<Identity>)> {
        let certificate = Certificate::from_der(der).ok()?;
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
        let moment = |time| Timestamp::try_from(SystemTime::from(time)).ok();
        let read = ClientCertificate {
            sha256: sha256(der),
            issuer: certificate.issuer.as_der().to_vec(),
            serial_number: certificate.serial_number.clone(),
            not_before: moment(certificate.not_before()),
            expires: moment(certificate.not_after()),
        };
        Some((read, identity))
    }
}

/// Who holds a DER certificate, if it names one role, and its DER SubjectPublicKeyInfo.
pub(crate) fn holder(der: &[u8]) -> (Option<Identity>, Vec<u8>) {
    let identity = ClientCertificate::read(der).and_then(|(_, identity)| identity);
    (identity, Certificate::from_der(der).map(|certificate| certificate.spki).unwrap_or_default())
}
