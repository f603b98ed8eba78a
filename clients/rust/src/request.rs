//! What is asked for, and what comes back.

use std::{fmt, sync::Arc};

use birthmark_base::{fields, hash::sha256, pem::certificate_pem, x509::fits_der};
use bytes::Bytes;
use tonic::Code;

use crate::{Failure, chain::presented_chain, proto::IssuedCertificate};

/// A device that is to have a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The device: 1 to 128 of the characters `A-Z a-z 0-9 . _ : -`, the first a letter or digit.
    pub device_id: String,
    /// The production order that it is charged to; empty without one, which only some profiles allow.
    pub order: String,
    /// The profile that decides what the certificate says; empty: the order's.
    pub profile: String,
    /// Its PKCS#10 certificate signing request, DER or PEM.
    pub csr: Bytes,
    /// Its certificate was scrapped or revoked, and it is to have a new one, for a new key.
    pub reissue: bool,
}

impl Request {
    /// Asks for a certificate under a profile, charged to no order.
    pub fn new(device_id: impl Into<String>, profile: impl Into<String>, csr: impl Into<Bytes>) -> Self {
        let (device_id, profile, csr) = (device_id.into(), profile.into(), csr.into());
        Request { device_id, profile, csr, ..Request::default() }
    }

    /// Charges it to a production order.
    #[must_use]
    pub fn order(self, order: impl Into<String>) -> Self {
        Request { order: order.into(), ..self }
    }

    /// The device's certificate was scrapped or revoked, and it is to have a new one, for a new key.
    #[must_use]
    pub fn reissue(self) -> Self {
        Request { reissue: true, ..self }
    }
}

/// A device's certificate. Its record was on stable storage before it was sent, and it carries the key of the CSR.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Certificate {
    /// The certificate, DER.
    pub der: Bytes,
    /// The content octets of its serial number, big-endian.
    pub serial_number: Bytes,
    /// SHA-256 of `der`, lowercase hex: what AWS IoT calls the certificateId.
    pub certificate_id: String,
    /// The issuer's name in the daemon's configuration.
    pub issuer: String,
    /// It had been issued before this request: nothing was signed or counted.
    pub replay: bool,
    /// What a device presents after its own certificate.
    presented: Arc<str>,
}

impl Certificate {
    /// The certificate as PEM.
    pub fn pem(&self) -> String {
        certificate_pem(&self.der)
    }

    /// The CA certificates that a device presents after its own, as PEM: the issuing CA, and those above it but for a root.
    pub fn chain_pem(&self) -> Arc<str> {
        Arc::clone(&self.presented)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Certificate { certificate_id, issuer, replay, .. } = self;
        let mut shown = f.debug_struct("Certificate");
        shown.field("certificate_id", certificate_id).field("issuer", issuer).field("replay", replay);
        shown.finish_non_exhaustive()
    }
}

/// An issuer's chain.
pub(crate) struct Chain {
    /// The issuing CA's certificate, DER.
    ca: Bytes,
    /// What a device presents after its own certificate, as PEM.
    presented: Arc<str>,
}

impl Chain {
    /// None of an empty chain.
    pub(crate) fn of(chain: &[Bytes]) -> Option<Chain> {
        Some(Chain { ca: chain.first()?.clone(), presented: presented_chain(chain).into() })
    }
}

/// A certificate is passed on only if it is this device's: of its key, whole, and of the issuer that it names.
pub(crate) fn checked(csr: &[u8], issued: IssuedCertificate, chain: Option<&Chain>) -> Result<Certificate, Failure> {
    match mismatch(csr, &issued, chain) {
        (Some(message), _) => Err(mismatched(message)),
        (None, presented) => Ok(Certificate {
            der: issued.certificate,
            serial_number: issued.serial_number,
            certificate_id: issued.certificate_id,
            issuer: issued.issuer,
            replay: issued.replay,
            presented,
        }),
    }
}

/// A reply that does not answer its request.
pub(crate) fn mismatched(message: String) -> Failure {
    Failure {
        code: Code::Internal,
        reason: Some("REPLY_MISMATCH".to_owned()),
        message,
        retry_after: None,
        certificate_refused: false,
    }
}

fn mismatch(csr: &[u8], issued: &IssuedCertificate, chain: Option<&Chain>) -> (Option<String>, Arc<str>) {
    let wrong = |what: String| (Some(what), Arc::default());
    let unarmoured;
    let der = match birthmark_base::pem::is_der(csr) {
        true => csr,
        false => {
            unarmoured = birthmark_base::csr::from_pem(csr).unwrap_or_default();
            &unarmoured
        }
    };
    match fields::certificate_key(&issued.certificate) {
        Err(error) => wrong(format!("what came is {error}")),
        Ok(key) if Ok(key) != fields::csr_key(der) => {
            wrong("the certificate carries another key than the CSR".to_owned())
        }
        Ok(_) if hex::encode(sha256(&issued.certificate)) != issued.certificate_id => {
            wrong("the certificate does not have the certificate id that came with it".to_owned())
        }
        Ok(_) => match chain {
            None => {
                wrong(format!("the certificate is of the issuer \"{}\", which the daemon does not list", issued.issuer))
            }
            Some(chain) => match fits_der(&issued.certificate, &chain.ca) {
                Ok(()) => (None, chain.presented.clone()),
                Err(cause) => {
                    let IssuedCertificate { issuer, issuer_generation, .. } = issued;
                    wrong(format!("it does not fit its issuer \"{issuer}\", generation {issuer_generation}: {cause}"))
                }
            },
        },
    }
}
