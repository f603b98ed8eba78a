//! The certificate of a proof of possession, before it has a serial number and a signature.

use std::time::SystemTime;

use const_oid::db::{
    rfc4519,
    rfc5280::{ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_BASIC_CONSTRAINTS, ID_CE_KEY_USAGE, ID_CE_SUBJECT_KEY_IDENTIFIER},
};
use jiff::{SignedDuration, Timestamp};

use crate::{
    asn1::{
        BIT_STRING, OCTET_STRING, SEQUENCE, SET, UTF8_STRING, explicit, extension, implicit, object_identifier,
        primitive, tlv,
    },
    ca::IssuingCa,
    ledger::KeyHash,
    possession::PossessionCode,
    profile::{SubjectError, ValidityError, check_names},
    signer::{NoKey, PublicKey},
    x509_time::Time,
};

/// How far it is back-dated, for platforms whose clock is slow.
const BACKDATE: SignedDuration = SignedDuration::from_hours(1);

/// How long it is valid from now on: a registration takes minutes.
const VALIDITY: SignedDuration = SignedDuration::from_hours(24);

/// What follows the serial number in the TBSCertificate, and what the ledger must know of it.
#[derive(Debug)]
pub(super) struct ProofCertificate {
    /// DER: signature algorithm, issuer, validity, subject, key, extensions (RFC 5280 section 4.1.2).
    pub(super) body: Vec<u8>,
    pub(super) key_hash: KeyHash,
    /// The last valid second.
    pub(super) not_after: Timestamp,
}

/// Why there can be none.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error(transparent)]
    Validity(#[from] ValidityError),
    #[error(transparent)]
    Name(#[from] SubjectError),
    #[error(transparent)]
    Key(#[from] NoKey),
}

impl ProofCertificate {
    /// Makes a key, drops it, and says of its public half that it is the code's.
    pub(super) fn new(
        code: &PossessionCode,
        issuer: &IssuingCa,
        now: Timestamp,
    ) -> Result<ProofCertificate, CertificateError> {
        let key = PublicKey::of_dropped_key()?;
        let (validity, not_after) = validity(issuer, now)?;
        let mut body = [issuer.algorithm().identifier(), issuer.subject()].concat();
        tlv(&mut body, SEQUENCE, |out| validity.iter().for_each(|time| time.encode(out)));
        tlv(&mut body, SEQUENCE, |out| {
            tlv(out, SET, |out| {
                tlv(out, SEQUENCE, |out| {
                    object_identifier(out, rfc4519::CN);
                    primitive(out, UTF8_STRING, code.as_str().as_bytes());
                });
            });
        });
        body.extend_from_slice(&key.spki);
        tlv(&mut body, explicit(3), |out| {
            tlv(out, SEQUENCE, |out| {
                // cA is FALSE by default, and DER leaves defaults out.
                extension(out, ID_CE_BASIC_CONSTRAINTS, true, |out| tlv(out, SEQUENCE, |_| {}));
                // Bit 0 of 8, digitalSignature; the other seven are unused.
                extension(out, ID_CE_KEY_USAGE, true, |out| primitive(out, BIT_STRING, &[7, 0x80]));
                extension(out, ID_CE_AUTHORITY_KEY_IDENTIFIER, false, |out| {
                    tlv(out, SEQUENCE, |out| primitive(out, implicit(0), issuer.key_identifier()));
                });
                extension(out, ID_CE_SUBJECT_KEY_IDENTIFIER, false, |out| {
                    primitive(out, OCTET_STRING, &key.identifier());
                });
            });
        });
        check_names(&body, issuer)?;
        Ok(ProofCertificate { body, key_hash: key.hash(), not_after })
    }
}

/// notBefore and notAfter, within the issuer's own; and the latter as a moment.
fn validity(issuer: &IssuingCa, now: Timestamp) -> Result<([Time; 2], Timestamp), ValidityError> {
    let (begin, end, name) = (issuer.not_before(), issuer.not_after(), || issuer.name().to_owned());
    if Time::from(now) < begin {
        return Err(ValidityError::NotYet { issuer: name(), not_before: begin, now });
    }
    if Time::from(now) >= end {
        return Err(ValidityError::Expired { not_after: end, issuer: name(), issuers: end, now });
    }
    let not_before = Time::from(now - BACKDATE).max(begin);
    let not_after = Time::from(now + VALIDITY).min(end);
    let moment = Timestamp::try_from(SystemTime::from(not_after)).unwrap_or(now);
    Ok(([not_before, not_after], moment))
}
