//! Certificates of the site's own CAs: reading them, checking who issued whom, and making new ones with rcgen.
//!
//! Device certificates are not made here: they have a writer of their own.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use aws_lc_rs::signature::UnparsedPublicKey;
use der::{Decode, Encode, referenced::OwnedToRef};
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, Issuer, KeyIdMethod, PublicKeyData};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

use super::file::End;
use crate::{
    cert::Time,
    hsm::{Key, RcgenKey},
    name::{Attribute, Syntax},
    signer::{PublicKey, verification_algorithm},
};

/// How far back a new certificate's notBefore lies, for devices and stations whose clock is behind.
const BACK_DATED: Duration = Duration::from_secs(3600);

/// A certificate that was read and understood.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) der: Vec<u8>,
    pub(crate) key: PublicKey,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// CA:TRUE, with the path length if there is one.
    pub(crate) ca: Option<Option<u8>>,
    /// keyCertSign; `None` without a keyUsage extension.
    signs_certificates: Option<bool>,
    parsed: x509_cert::Certificate,
}

impl Certificate {
    /// Reads a PEM file that holds exactly one certificate.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let blocks = pem::parse_many(text).map_err(|error| format!("{} is not PEM: {error}", path.display()))?;
        match &blocks[..] {
            [block] if block.tag() == "CERTIFICATE" => {
                Certificate::from_der(block.contents()).map_err(|error| format!("{}: {error}", path.display()))
            }
            [block] => Err(format!("{} holds a {}, not a CERTIFICATE", path.display(), block.tag())),
            blocks => {
                Err(format!("{} holds {} PEM blocks; it must hold one certificate", path.display(), blocks.len()))
            }
        }
    }

    pub(crate) fn from_der(der: &[u8]) -> Result<Self, String> {
        let malformed = |error: der::Error| format!("the certificate is not valid DER: {error}");
        let parsed = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        let tbs = parsed.tbs_certificate();
        let key = PublicKey::from_spki(&tbs.subject_public_key_info().to_der().map_err(malformed)?)?;
        let constraints = tbs.get_extension::<BasicConstraints>().map_err(malformed)?;
        let usage = tbs.get_extension::<KeyUsage>().map_err(malformed)?;
        Ok(Certificate {
            der: der.to_vec(),
            key,
            not_before: tbs.validity().not_before.to_system_time(),
            not_after: tbs.validity().not_after.to_system_time(),
            ca: constraints.filter(|(_, value)| value.ca).map(|(_, value)| value.path_len_constraint),
            signs_certificates: usage.map(|(_, usage)| usage.key_cert_sign()),
            parsed,
        })
    }

    pub(crate) fn pem(&self) -> String {
        pem::encode_config(
            &pem::Pem::new("CERTIFICATE", &self.der[..]),
            pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
        )
    }

    /// The serial number's octets in hexadecimal.
    pub(crate) fn serial(&self) -> String {
        hex::encode(self.parsed.tbs_certificate().serial_number().as_bytes())
    }

    /// The subject as RFC 4514 writes it (the last attribute first).
    pub(crate) fn subject(&self) -> String {
        self.parsed.tbs_certificate().subject().to_string()
    }

    /// Checks that it may issue certificates at all, and now.
    pub(crate) fn must_be_ca(&self, now: SystemTime) -> Result<(), String> {
        if self.ca.is_none() {
            return Err("it is not a CA certificate (no basicConstraints with CA:TRUE)".into());
        }
        match self.signs_certificates {
            Some(true) => {}
            Some(false) => return Err("its keyUsage does not have keyCertSign".into()),
            None => return Err("it has no keyUsage extension with keyCertSign".into()),
        }
        if now < self.not_before {
            return Err(format!("it is not valid before {}", date(self.not_before)));
        }
        if now > self.not_after {
            return Err(format!("it ended on {}", date(self.not_after)));
        }
        Ok(())
    }

    /// Checks names and signature: that this certificate issued `other`.
    pub(crate) fn must_have_issued(&self, other: &Certificate) -> Result<(), String> {
        let (issuer, subject) = (other.parsed.tbs_certificate().issuer(), self.parsed.tbs_certificate().subject());
        if issuer.to_der().ok() != subject.to_der().ok() {
            return Err(format!("its issuer is \"{issuer}\", not \"{subject}\""));
        }
        let algorithm = verification_algorithm(self.key.kind, &other.parsed.signature_algorithm().owned_to_ref())
            .map_err(|reason| format!("it has {reason}"))?;
        let message = other.parsed.tbs_certificate().to_der().map_err(|error| error.to_string())?;
        let signature = other.parsed.signature().as_bytes().unwrap_or_default();
        UnparsedPublicKey::new(algorithm, &self.key.bits)
            .verify(&message, signature)
            .map_err(|_| format!("its signature was not made by the key of \"{subject}\""))
    }

    /// Checks that rcgen, which rebuilds names from their parts, would write this one's subject as an issuer unchanged.
    pub(crate) fn must_survive_as_issuer(&self) -> Result<(), String> {
        let try_out = || -> Result<Certificate, String> {
            let failed = |error: rcgen::Error| error.to_string();
            let key = rcgen::KeyPair::generate().map_err(failed)?;
            let issuer = Issuer::from_ca_cert_der(&self.der[..].into(), &key).map_err(failed)?;
            let probe = CertificateParams::default().signed_by(&key, &issuer).map_err(failed)?;
            Certificate::from_der(probe.der())
        };
        let subject = self.parsed.tbs_certificate().subject();
        let same = try_out().is_ok_and(|probe| probe.parsed.tbs_certificate().issuer().to_der() == subject.to_der());
        if same {
            Ok(())
        } else {
            Err(format!("its subject \"{subject}\" has an attribute twice, or two in one RDN, which is not supported"))
        }
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
        let ca = (&issuer.der[..]).into();
        let made = match self {
            CaKey::Hsm(key) => {
                let key = RcgenKey::new(key);
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
    let rcgen_key = RcgenKey::new(key);
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
        let kind = DnType::CustomDnType(attribute.oid.arcs().map(u64::from).collect());
        if name.get(&kind).is_some() {
            return Err(format!("the attribute {} is there twice", attribute.type_name()));
        }
        let (text, refused) = (attribute.value.as_str(), |error: rcgen::Error| error.to_string());
        let value = match attribute.syntax {
            Syntax::Printable(_) | Syntax::Country => DnValue::PrintableString(text.try_into().map_err(refused)?),
            Syntax::Ascii(_) => DnValue::Ia5String(text.try_into().map_err(refused)?),
            Syntax::Text(_) | Syntax::Hex4 => DnValue::Utf8String(text.to_owned()),
        };
        name.push(kind, value);
    }
    if attributes.is_empty() { Err("the subject is empty".into()) } else { Ok(name) }
}

/// The day, in UTC, as messages show it.
pub(crate) fn date(time: SystemTime) -> String {
    Time::from(time).date().to_string()
}
