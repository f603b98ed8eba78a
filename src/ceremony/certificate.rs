//! Certificates of the site's own CAs: reading them, checking who issued whom, and making new ones with rcgen.
//!
//! Device certificates are not made here: they have a writer of their own.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, Issuer, KeyIdMethod, PublicKeyData};

use super::file::End;
use crate::{
    ca::CaChain,
    hsm::{Key, RcgenKey},
    name::{Attribute, EMAIL_ADDRESS, Syntax},
    path,
    pem::{self, ReadError},
    signer::PublicKey,
    x509::{self, Name},
    x509_time::Time,
};

/// How far back a new certificate's notBefore lies, for devices and stations whose clock is behind.
const BACK_DATED: Duration = Duration::from_secs(3600);

/// A certificate that was read and understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) key: PublicKey,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    parsed: x509::Certificate,
}

impl Certificate {
    /// Reads a PEM file that holds exactly one certificate.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let der = pem::read_certificate(path).map_err(|error| match error {
            ReadError::File(error) => format!("cannot read {}: {error}", path.display()),
            error => format!("{}: {error}", path.display()),
        })?;
        Certificate::from_der(&der).map_err(|error| format!("{}: {error}", path.display()))
    }

    pub(crate) fn from_der(der: &[u8]) -> Result<Self, String> {
        let parsed =
            x509::Certificate::from_der(der).map_err(|error| format!("the certificate is not valid DER: {error}"))?;
        Ok(Certificate {
            key: parsed.public_key()?,
            not_before: parsed.not_before.into(),
            not_after: parsed.not_after.into(),
            parsed,
        })
    }

    pub(crate) fn der(&self) -> &[u8] {
        self.parsed.der()
    }

    pub(crate) fn parsed(&self) -> &x509::Certificate {
        &self.parsed
    }

    pub(crate) fn pem(&self) -> String {
        ::pem::encode_config(
            &::pem::Pem::new("CERTIFICATE", self.der()),
            ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF),
        )
    }

    /// The serial number's octets in hexadecimal.
    pub(crate) fn serial(&self) -> String {
        hex::encode(&self.parsed.serial_number)
    }

    /// The subject, in the order of the certificate.
    pub(crate) fn subject(&self) -> &Name {
        self.parsed.subject()
    }

    /// The most CAs that may follow it in a chain; no limit if `None`.
    pub(crate) fn path_length(&self) -> Option<u64> {
        self.parsed.basic_constraints().ok().flatten().and_then(|constraints| constraints.path_length)
    }

    /// Checks that it may issue certificates at all, and now.
    pub(crate) fn must_be_ca(&self, now: SystemTime) -> Result<(), String> {
        let chain = CaChain::from_certificates(vec![self.parsed.clone()]).map_err(|error| error.to_string())?;
        chain.check_validity(now.into()).map_err(|error| error.to_string())
    }

    /// Checks names and signature: that this certificate issued `other`.
    pub(crate) fn must_have_issued(&self, other: &Certificate) -> Result<(), String> {
        path::check_issued_by(&other.parsed, &self.parsed).map_err(|fault| fault.to_string())
    }

    /// Checks that rcgen, which rebuilds names from their parts, would write this one's subject as an issuer unchanged.
    pub(crate) fn must_survive_as_issuer(&self) -> Result<(), String> {
        let try_out = || -> Result<Certificate, String> {
            let failed = |error: rcgen::Error| error.to_string();
            let key = rcgen::KeyPair::generate().map_err(failed)?;
            let issuer = Issuer::from_ca_cert_der(&self.der().into(), &key).map_err(failed)?;
            let probe = CertificateParams::default().signed_by(&key, &issuer).map_err(failed)?;
            Certificate::from_der(probe.der())
        };
        let subject = self.subject();
        if try_out().is_ok_and(|probe| probe.parsed.issuer.as_der() == subject.as_der()) {
            return Ok(());
        }
        Err(format!(
            "its subject \"{subject}\" has an attribute twice, two in one RDN, or an encoding that would not be kept, which \
             is not supported"
        ))
    }
}

/// A key that signs certificates: in the HSM, or of an offline CA in a file.
#[derive(Debug)]
pub(crate) enum CaKey {
    Hsm(Key),
    File(Box<rcgen::KeyPair>),
}

impl CaKey {
    /// Issues a certificate over `subject_key` and checks what came out.
    pub(crate) fn issue(
        &self,
        issuer: &Certificate,
        parameters: &CertificateParams,
        subject_key: &impl PublicKeyData,
    ) -> Result<Certificate, String> {
        let ca = issuer.der().into();
        let made = match self {
            CaKey::Hsm(key) => {
                let key = RcgenKey::new(key).map_err(|error| error.to_string())?;
                Issuer::from_ca_cert_der(&ca, &key)
                    .and_then(|ca| parameters.signed_by(subject_key, &ca))
                    .map_err(|error| key.explain(error).to_string())?
            }
            CaKey::File(key) => Issuer::from_ca_cert_der(&ca, key.as_ref())
                .and_then(|ca| parameters.signed_by(subject_key, &ca))
                .map_err(|error| error.to_string())?,
        };
        let made = Certificate::from_der(made.der())?;
        issuer.must_have_issued(&made)?;
        Ok(made)
    }
}

/// Makes a certificate that `key` signs for itself, and checks what came out.
pub(crate) fn self_sign(key: &Key, parameters: &CertificateParams) -> Result<Certificate, String> {
    let rcgen_key = RcgenKey::new(key).map_err(|error| error.to_string())?;
    let made = parameters.self_signed(&rcgen_key).map_err(|error| rcgen_key.explain(error).to_string())?;
    let made = Certificate::from_der(made.der())?;
    made.must_have_issued(&made)?;
    Ok(made)
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Validity {
    /// So many days from now, beginning a little earlier.
    pub(crate) fn days(now: SystemTime, days: u32) -> Self {
        Validity::until(now, End::Days(days).after(now))
    }

    /// From now, beginning a little earlier.
    pub(crate) fn until(now: SystemTime, not_after: SystemTime) -> Self {
        Validity { not_before: now - BACK_DATED, not_after }
    }

    /// Not before the issuer's.
    pub(crate) fn within(self, issuer: &Certificate) -> Self {
        Validity { not_before: self.not_before.max(issuer.not_before), ..self }
    }
}

/// What every certificate here has: a subject, a random serial number of 20 octets, and the key identifier that
/// [`PublicKey::identifier`] gives.
pub(crate) fn parameters(
    subject: &[Attribute],
    key: &PublicKey,
    validity: Validity,
) -> Result<CertificateParams, String> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = distinguished_name(subject)?;
    parameters.serial_number = Some(serial_number()?.to_vec().into());
    parameters.not_before = validity.not_before.into();
    parameters.not_after = validity.not_after.into();
    parameters.key_identifier_method = KeyIdMethod::PreSpecified(key.identifier().to_vec());
    Ok(parameters)
}

/// Positive and always 20 octets long, with 158 random bits (RFC 5280 section 4.1.2.2).
fn serial_number() -> Result<[u8; 20], String> {
    let mut octets = [0; 20];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| "the system gives no random numbers".to_owned())?;
    octets[0] = octets[0] & 0x7f | 0x40;
    Ok(octets)
}

/// The name as rcgen holds it: each attribute type once.
pub(crate) fn distinguished_name(attributes: &[Attribute]) -> Result<DistinguishedName, String> {
    let mut name = DistinguishedName::new();
    for attribute in attributes {
        // Refuses what is too long or has a character that its string type lacks.
        attribute.check(&attribute.value)?;
        let arcs = attribute.oid.arcs().unwrap_or_default().into_iter().map(u64::try_from).collect::<Result<_, _>>();
        let arcs =
            arcs.map_err(|_| format!("the attribute type {} has an arc above 64 bits", attribute.type_name()))?;
        let kind = DnType::CustomDnType(arcs);
        if name.get(&kind).is_some() {
            return Err(format!("the attribute {} is there twice", attribute.type_name()));
        }
        if attribute.oid == EMAIL_ADDRESS {
            let reason =
                "RFC 5280 section 4.1.2.6 wants e-mail addresses in a subjectAltName, which a CA here does not have";
            return Err(format!("emailAddress does not belong into the subject of a CA: {reason}; leave it out"));
        }
        let (text, refused) = (attribute.value.as_str(), |error: rcgen::Error| error.to_string());
        let value = match attribute.syntax {
            Syntax::Printable(_) | Syntax::Country => DnValue::PrintableString(text.try_into().map_err(refused)?),
            Syntax::Label | Syntax::Mailbox(_) => DnValue::Ia5String(text.try_into().map_err(refused)?),
            Syntax::Text(_) | Syntax::Hex4 => DnValue::Utf8String(text.to_owned()),
        };
        name.push(kind, value);
    }
    if attributes.is_empty() { Err("the subject is empty".into()) } else { Ok(name) }
}

/// A path length in words.
pub(crate) fn cas_below(path_length: Option<u64>) -> String {
    match path_length {
        None => "any number of CAs below it".to_owned(),
        Some(0) => "no CA below it".to_owned(),
        Some(length) => format!("up to {length} CAs below it in a chain"),
    }
}

/// The day, in UTC, as messages show it.
pub(crate) fn date(time: SystemTime) -> String {
    Time::from(time).date().to_string()
}
