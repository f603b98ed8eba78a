//! The certificate (RFC 5280 section 4.1): to be signed, then signed.
//!
//! `ReservedSerial → Tbs → Signed`: a reserved serial number becomes one certificate at most. All that follows the
//! serial number was encoded by the [profile](crate::profile).

use std::sync::Arc;

use crate::{
    asn1::{BIT_STRING, INTEGER, SEQUENCE, primitive, tlv},
    ca::IssuingCa,
    profile::Approved,
    serial::{ReservedSerial, SerialNumber},
    signer::{SignError, SignatureAlgorithm},
};

/// A certificate before it is signed.
#[derive(Debug)]
pub(crate) struct Tbs {
    serial_number: SerialNumber,
    /// DER TBSCertificate.
    der: Vec<u8>,
    issuer: Arc<IssuingCa>,
}

impl Tbs {
    /// Joins the serial number and what the profile approved.
    pub(crate) fn new(reserved: ReservedSerial, approved: &Approved) -> Tbs {
        let serial_number = reserved.into_inner();
        let der = to_be_signed(&serial_number, approved);
        Tbs { serial_number, der, issuer: Arc::clone(approved.issuer()) }
    }

    /// Joins the serial number and what follows it in the TBSCertificate, which was encoded for this issuer.
    pub(crate) fn from_body(reserved: ReservedSerial, body: &[u8], issuer: &Arc<IssuingCa>) -> Tbs {
        let serial_number = reserved.into_inner();
        let der = join_serial_number(&serial_number, body, |_| {});
        Tbs { serial_number, der, issuer: Arc::clone(issuer) }
    }

    /// Has the HSM sign it. [`Signature`](crate::signer::Signature) is the proof that the issuer's public key verifies
    /// it.
    ///
    /// # Errors
    /// Why there is no signature.
    pub(crate) async fn sign(self) -> Result<Signed, SignError> {
        let Tbs { serial_number, der, issuer } = self;
        let signature = issuer.signer().sign(der.clone()).await?;
        Ok(Signed { serial_number, certificate: join(&der, issuer.algorithm(), signature.as_bytes()) })
    }
}

/// A certificate with its issuer's checked signature, not recorded yet.
#[derive(Debug)]
pub struct Signed {
    serial_number: SerialNumber,
    certificate: Vec<u8>,
}

impl Signed {
    /// Its serial number.
    pub(crate) fn serial_number(&self) -> &SerialNumber {
        &self.serial_number
    }

    /// The certificate, DER.
    pub(crate) fn into_certificate(self) -> Vec<u8> {
        self.certificate
    }

    /// One that no HSM signed.
    #[cfg(test)]
    pub(crate) fn unchecked(serial_number: SerialNumber, certificate: Vec<u8>) -> Signed {
        Signed { serial_number, certificate }
    }
}

/// The DER TBSCertificate (section 4.1.2): version 3, the serial number, and what the profile approved.
pub fn to_be_signed(serial_number: &SerialNumber, approved: &Approved) -> Vec<u8> {
    join_serial_number(serial_number, approved.body(), |body| approved.complete(body, serial_number))
}

/// `complete` fills in what follows from the serial number, in a copy of the body.
fn join_serial_number(serial_number: &SerialNumber, body: &[u8], complete: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut der = Vec::with_capacity(body.len() + 40);
    tlv(&mut der, SEQUENCE, |out| {
        out.extend_from_slice(&[0xa0, 3, 2, 1, 2]); // [0] version 3
        primitive(out, INTEGER, serial_number.as_bytes());
        let begin = out.len();
        out.extend_from_slice(body);
        if let Some(body) = out.get_mut(begin..) {
            complete(body);
        }
    });
    der
}

/// The DER Certificate (section 4.1).
pub fn join(to_be_signed: &[u8], algorithm: SignatureAlgorithm, signature: &[u8]) -> Vec<u8> {
    let mut certificate = Vec::with_capacity(to_be_signed.len() + signature.len() + 96);
    tlv(&mut certificate, SEQUENCE, |out| {
        out.extend_from_slice(to_be_signed);
        out.extend_from_slice(algorithm.identifier());
        tlv(out, BIT_STRING, |out| {
            out.push(0); // no unused bits
            out.extend_from_slice(signature);
        });
    });
    certificate
}
