//! Certificates of the site's own CAs: reading them, checking who issued whom, and making new ones with rcgen.
//!
//! Device certificates are not made here: they have a writer of their own.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, Issuer, KeyIdMethod};

use crate::{
    asn1::DerError,
    ca::{CaChain, ChainError},
    hsm,
    name::{Attribute, EMAIL_ADDRESS, Syntax},
    path::{self, Fault, PathError},
    pem::{self, ReadError},
    signer::{PublicKey, SpkiError},
    text_file::TextError,
    x509::{self, Name},
    x509_time::Time,
};

/// How far back a new certificate's notBefore lies, for devices and stations whose clock is slow.
pub(crate) const BACKDATE: Duration = Duration::from_secs(3600);

/// Why a certificate cannot be read, used or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Its file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: TextError,
    },
    /// Its file does not hold one certificate in PEM.
    #[error("{}: {error}", path.display())]
    NotOne {
        /// The file.
        path: PathBuf,
        /// What it holds.
        error: ReadError,
    },
    /// Its file holds something that is none.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<CertificateError>,
    },
    /// It is not DER.
    #[error("the certificate is not valid DER: {0}")]
    Der(#[from] DerError),
    /// Its key is of a kind that nothing here can use.
    #[error(transparent)]
    Key(#[from] SpkiError),
    /// It is not that of a CA which may issue.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// It is not valid now.
    #[error(transparent)]
    Validity(#[from] PathError),
    /// It was not issued by the CA.
    #[error(transparent)]
    NotIssued(#[from] Fault),
    /// rcgen would write its subject differently.
    #[error(
        "its subject \"{0}\" has an attribute twice, two in one RDN, or an encoding that would not be kept, which is not \
         supported"
    )]
    NotKept(String),
    /// It cannot have this subject.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// It cannot be encoded.
    #[error("{0}")]
    Encoding(#[from] rcgen::Error),
    /// The HSM did not sign it.
    #[error(transparent)]
    Hsm(#[from] hsm::Error),
    /// There is no serial number for it.
    #[error("the system gives no random numbers")]
    NoRandom,
}

/// Why a CA cannot have a subject.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubjectError {
    /// A value is too long, or has a character that its string type lacks.
    #[error("{0}")]
    Value(String),
    /// An attribute type that rcgen cannot hold.
    #[error("the attribute type {0} has an arc above 64 bits")]
    LargeOid(String),
    /// rcgen holds each type once.
    #[error("the attribute {0} is there twice")]
    Duplicate(String),
    /// RFC 5280 section 4.1.2.6.
    #[error(
        "emailAddress does not belong into the subject of a CA: RFC 5280 section 4.1.2.6 wants e-mail addresses in a \
         subjectAltName, which a CA here does not have; leave it out"
    )]
    EmailAddress,
    /// A value that rcgen does not take.
    #[error("{0}")]
    StringType(#[from] rcgen::Error),
    /// A CA must have a name.
    #[error("the subject is empty")]
    Empty,
}

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
    pub(crate) fn read(path: &Path) -> Result<Self, CertificateError> {
        let der = pem::read_certificate(path).map_err(|error| match error {
            ReadError::File(error) => CertificateError::Unreadable { path: path.to_owned(), error },
            error => CertificateError::NotOne { path: path.to_owned(), error },
        })?;
        Certificate::from_der(&der)
            .map_err(|error| CertificateError::File { path: path.to_owned(), error: Box::new(error) })
    }

    pub(crate) fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let parsed = x509::Certificate::from_der(der)?;
        Ok(Certificate {
            key: PublicKey::of(&parsed)?,
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
        pem::certificate_pem(self.der())
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
    pub(crate) fn check_ca(&self, now: SystemTime) -> Result<(), CertificateError> {
        Ok(CaChain::from_certificates(vec![self.parsed.clone()])?.check_validity(now.into())?)
    }

    /// Checks names and signature: that this certificate issued `other`.
    pub(crate) fn check_issued(&self, other: &Certificate) -> Result<(), CertificateError> {
        Ok(path::check_issued_by(&other.parsed, &self.parsed)?)
    }

    /// Checks that rcgen, which rebuilds names from their parts, would write this one's subject as an issuer unchanged.
    pub(crate) fn check_kept_as_issuer(&self) -> Result<(), CertificateError> {
        let try_out = || -> Result<Certificate, CertificateError> {
            let key = rcgen::KeyPair::generate()?;
            let issuer = Issuer::from_ca_cert_der(&self.der().into(), &key)?;
            let probe = CertificateParams::default().signed_by(&key, &issuer)?;
            Certificate::from_der(probe.der())
        };
        let subject = self.subject();
        if try_out().is_ok_and(|probe| probe.parsed.issuer.as_der() == subject.as_der()) {
            return Ok(());
        }
        Err(CertificateError::NotKept(subject.to_string()))
    }
}

/// When a certificate expires.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NotAfter {
    /// This many days after the ceremony.
    Days(u32),
    At(Time),
}

impl NotAfter {
    pub(crate) fn moment(self, now: SystemTime) -> SystemTime {
        match self {
            NotAfter::Days(days) => now + Duration::from_secs(u64::from(days) * 86_400),
            NotAfter::At(moment) => moment.into(),
        }
    }
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Validity {
    /// For this many days from now, back-dated.
    pub(crate) fn days(now: SystemTime, days: u32) -> Self {
        Validity::until(now, NotAfter::Days(days).moment(now))
    }

    /// From now on, back-dated.
    pub(crate) fn until(now: SystemTime, not_after: SystemTime) -> Self {
        Validity { not_before: now - BACKDATE, not_after }
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
) -> Result<CertificateParams, CertificateError> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = distinguished_name(subject)?;
    parameters.serial_number = Some(serial_number()?.to_vec().into());
    parameters.not_before = validity.not_before.into();
    parameters.not_after = validity.not_after.into();
    parameters.key_identifier_method = KeyIdMethod::PreSpecified(key.identifier().to_vec());
    Ok(parameters)
}

/// Positive and always 20 octets long, with 158 random bits (RFC 5280 section 4.1.2.2).
fn serial_number() -> Result<[u8; 20], CertificateError> {
    let mut octets = [0; 20];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| CertificateError::NoRandom)?;
    octets[0] = octets[0] & 0x7f | 0x40;
    Ok(octets)
}

/// The name as rcgen holds it: each attribute type once.
pub(crate) fn distinguished_name(attributes: &[Attribute]) -> Result<DistinguishedName, SubjectError> {
    let mut name = DistinguishedName::new();
    for attribute in attributes {
        // Refuses what is too long or has a character that its string type lacks.
        attribute.check(&attribute.value).map_err(|error| SubjectError::Value(error.to_string()))?;
        let arcs = attribute.oid.arcs().unwrap_or_default().into_iter().map(u64::try_from).collect::<Result<_, _>>();
        let arcs = arcs.map_err(|_| SubjectError::LargeOid(attribute.type_name().to_string()))?;
        let kind = DnType::CustomDnType(arcs);
        if name.get(&kind).is_some() {
            return Err(SubjectError::Duplicate(attribute.type_name().to_string()));
        }
        if attribute.oid == EMAIL_ADDRESS {
            return Err(SubjectError::EmailAddress);
        }
        let text = attribute.value.as_str();
        let value = match attribute.syntax {
            Syntax::Printable(_) | Syntax::Country => DnValue::PrintableString(text.try_into()?),
            Syntax::Label | Syntax::Mailbox(_) => DnValue::Ia5String(text.try_into()?),
            Syntax::Text(_) | Syntax::Hex4 => DnValue::Utf8String(text.to_owned()),
        };
        name.push(kind, value);
    }
    if attributes.is_empty() { Err(SubjectError::Empty) } else { Ok(name) }
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
