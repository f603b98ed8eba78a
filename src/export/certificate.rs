//! What a bundle is made of, as those who render one give it: borrowed, so that a million are rendered with flat memory.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{asn1::DerError, hash::sha256, pem::certificate_pem, x509};

/// An issuing CA, with the PEM that is asked for again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    name: String,
    sha256: [u8; 32],
    subject: String,
    pem: String,
    above: String,
    der: Vec<u8>,
}

/// Why certificates are no issuer's chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidIssuer {
    /// There is none.
    #[error("the issuer \"{0}\" has no certificate")]
    Empty(String),
    /// The issuing CA's is not DER.
    #[error("the certificate of the issuer \"{name}\" cannot be read: {cause}")]
    Unreadable {
        /// The issuer.
        name: String,
        /// Why not.
        cause: DerError,
    },
}

impl Issuer {
    /// Of its name and its chain in DER: the issuing CA first, then each certificate that issued the one before it.
    ///
    /// # Errors
    /// [`InvalidIssuer`].
    pub fn new(name: impl Into<String>, chain: &[impl AsRef<[u8]>]) -> Result<Self, InvalidIssuer> {
        let name = name.into();
        let Some((der, above)) = chain.split_first() else { return Err(InvalidIssuer::Empty(name)) };
        let der = der.as_ref();
        let subject = match x509::Certificate::from_der(der) {
            Ok(certificate) => certificate.subject.to_string(),
            Err(cause) => return Err(InvalidIssuer::Unreadable { name, cause }),
        };
        let above = above.iter().map(|der| certificate_pem(der.as_ref())).collect();
        Ok(Issuer { name, sha256: sha256(der), subject, pem: certificate_pem(der), above, der: der.to_vec() })
    }

    /// Its name in the configuration at the time.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the issuing CA's certificate in DER.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The issuing CA's subject, for people.
    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// The issuing CA's certificate.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// The issuing CA's certificate in DER.
    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    /// The whole chain.
    pub(super) fn chain_pem(&self) -> String {
        format!("{}{}", self.pem, self.above)
    }
}

/// One certificate, with all that the ledger knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    /// Its serial number, without a leading zero octet.
    pub serial_number: &'a [u8],
    /// The certificate.
    pub der: &'a [u8],
    /// SHA-256 of the DER, in lower-case hex: AWS IoT's certificateId.
    pub certificate_id: &'a str,
    /// The device.
    pub device_id: &'a str,
    /// The order.
    pub order: &'a str,
    /// The profile.
    pub profile: &'a str,
    /// The station that asked for it.
    pub station: &'a str,
    /// Who issued it.
    pub issuer: &'a Issuer,
    /// SHA-256 of the DER SubjectPublicKeyInfo of its key.
    pub key_sha256: &'a [u8],
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it was confirmed, if it was.
    pub confirmed_at: Option<Timestamp>,
    /// The serial number of the device's certificate before it, if this is a reissue.
    pub replaces: Option<&'a [u8]>,
    /// The order's attributes.
    pub order_attributes: &'a BTreeMap<String, String>,
}

/// A certificate of an earlier batch that was scrapped or revoked since.
#[derive(Clone, Copy, Debug)]
pub struct Withdrawn<'a> {
    /// Its serial number.
    pub serial_number: &'a [u8],
    /// SHA-256 of the DER, in lower-case hex.
    pub certificate_id: &'a str,
    /// The device.
    pub device_id: &'a str,
    /// `scrapped` or `revoked`.
    pub reason: &'a str,
    /// The CRLReason's name (RFC 5280 section 5.3.1), or empty.
    pub code: &'a str,
    /// What the operator wrote.
    pub text: &'a str,
    /// When.
    pub at: Timestamp,
    /// The batch in which it went out.
    pub batch: &'a str,
    /// The device's certificate after it, if there is one.
    pub replaced_by: Option<Replacement<'a>>,
}

/// The certificate that replaces another.
#[derive(Clone, Copy, Debug)]
pub struct Replacement<'a> {
    /// SHA-256 of the DER, in lower-case hex.
    pub certificate_id: &'a str,
    /// Its serial number.
    pub serial_number: &'a [u8],
}

/// RFC 3339 in UTC with milliseconds, so that times sort as text.
pub(super) fn milliseconds(moment: Timestamp) -> String {
    format!("{moment:.3}")
}

/// Why a platform does not take a certificate, as a sentence that says what is wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnfitReason(String);

impl From<String> for UnfitReason {
    fn from(reason: String) -> Self {
        UnfitReason(reason)
    }
}
