//! The certificate (RFC 5280): the issuing CA, the TBS form, the signed form.
//!
//! `Reservation → Tbs → Signed`: a serial number becomes a certificate once, or is given back. All that stands behind
//! the serial number was written by the [profile](crate::profile).

use std::sync::Arc;

use crate::{
    asn1::{BIT_STRING, INTEGER, SEQUENCE, primitive, tlv},
    ca::IssuingCa,
    committer::Reservation,
    profile::Approved,
    serial::SerialNumber,
    signer::{SignError, SignatureAlgorithm},
};

/// A certificate before it is signed, with the reservation that entitles it to be.
#[derive(Debug)]
pub struct Tbs {
    reservation: Reservation,
    /// DER TBSCertificate.
    der: Vec<u8>,
    issuer: Arc<IssuingCa>,
}

impl Tbs {
    /// Joins the serial number and what the profile says.
    pub fn new(reservation: Reservation, approved: &Approved) -> Tbs {
        let der = to_be_signed(reservation.serial_number(), approved);
        Tbs { reservation, der, issuer: Arc::clone(approved.issuer()) }
    }

    /// Has the HSM sign it. [`Signature`](crate::signer::Signature) is the proof that the issuer's public key verifies it.
    ///
    /// # Errors
    /// The reservation back, and why there is no signature.
    pub async fn sign(self) -> Result<Signed, (Reservation, SignError)> {
        let Tbs { reservation, der, issuer } = self;
        let algorithm = issuer.algorithm();
        let signature = match issuer.signer().sign(der.clone()).await {
            Ok(signature) => signature,
            Err(error) => return Err((reservation, error)),
        };
        Ok(Signed { reservation, certificate: join(&der, algorithm, signature.as_bytes()) })
    }
}

/// A certificate with its issuer's checked signature, not recorded yet.
#[derive(Debug)]
pub struct Signed {
    reservation: Reservation,
    certificate: Vec<u8>,
}

impl Signed {
    /// The reservation that it fulfils, and the DER certificate.
    pub(crate) fn into_parts(self) -> (Reservation, Vec<u8>) {
        (self.reservation, self.certificate)
    }
}

/// The DER TBSCertificate (section 4.1.2): version 3, the serial number, and all that the profile says.
pub fn to_be_signed(serial_number: &SerialNumber, approved: &Approved) -> Vec<u8> {
    let body = approved.body();
    let mut der = Vec::with_capacity(body.len() + 40);
    tlv(&mut der, SEQUENCE, |out| {
        out.extend_from_slice(&[0xa0, 3, 2, 1, 2]); // [0] version 3
        primitive(out, INTEGER, serial_number.as_bytes());
        out.extend_from_slice(body);
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
