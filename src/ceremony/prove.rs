//! A proof of possession of a CA's key that is only at the ceremony.

use std::time::SystemTime;

use rcgen::{IsCa, KeyUsagePurpose, SubjectPublicKeyInfo};

use super::{
    certificate::{Certificate, CertificateError, SubjectError, Validity, parameters},
    keys::CaKey,
};
use crate::{name::Attribute, possession::PossessionCode, signer::PublicKey};

/// Issues a certificate for the code and nothing else, good for 24 hours. Its own private key is dropped at once, so that
/// nobody can connect with it.
pub(super) fn prove(
    ca: &Certificate,
    ca_key: &CaKey,
    code: &PossessionCode,
    now: SystemTime,
) -> Result<Certificate, CertificateError> {
    let key = PublicKey::of_dropped_key().map_err(|_| CertificateError::NoRandom)?;
    let subject = Attribute::parse(&format!("CN={code}")).map_err(|error| SubjectError::Value(error.to_string()))?;
    let validity = Validity::days(now, 1).within(ca);
    let validity = Validity { not_after: validity.not_after.min(ca.not_after), ..validity };
    let mut parameters = parameters(&[subject], &key, validity)?;
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.use_authority_key_identifier_extension = true;
    ca_key.issue(ca, &parameters, &SubjectPublicKeyInfo::from_der(&key.spki)?)
}
