//! The issuing CA: its chain, checked, and what certificates say about it.

use std::{fmt, path::Path, sync::Arc};

use aws_lc_rs::signature::UnparsedPublicKey;
use der::{Decode, Encode, referenced::OwnedToRef};
use rustls_pki_types::{
    CertificateDer,
    pem::{Error as PemError, PemObject},
};
use x509_cert::{
    Certificate,
    ext::pkix::{BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier},
};

use super::Time;
use crate::{
    asn1::{SEQUENCE, implicit, primitive, tlv},
    signer::{PublicKey, SignatureAlgorithm, Signer, verification_algorithm},
};

/// A CA that issues: its chain and its key in the HSM.
pub struct IssuingCa {
    name: String,
    /// DER: the issuing CA first, then each certificate that issued the one before it.
    chain: Vec<Vec<u8>>,
    /// DER Name.
    subject: Vec<u8>,
    public_key: PublicKey,
    public_keys: Vec<PublicKey>,
    /// The DER value of the authorityKeyIdentifier extension of its certificates.
    authority_key_identifier: Vec<u8>,
    not_before: Time,
    not_after: Time,
    signer: Arc<dyn Signer>,
}

impl fmt::Debug for IssuingCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuingCa")
            .field("name", &self.name)
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}

impl IssuingCa {
    /// Joins a checked chain and the signer that has the key of its first certificate.
    pub fn new(name: &str, chain: CaChain, signer: Arc<dyn Signer>) -> Self {
        let CaChain { chain, public_keys, subject, public_key, key_identifier, not_before, not_after } = chain;
        // SEQUENCE { [0] keyIdentifier } (section 4.2.1.1)
        let mut authority_key_identifier = Vec::new();
        tlv(&mut authority_key_identifier, SEQUENCE, |out| primitive(out, implicit(0), &key_identifier));
        let name = name.to_owned();
        IssuingCa {
            name,
            chain,
            subject,
            public_key,
            public_keys,
            authority_key_identifier,
            not_before,
            not_after,
            signer,
        }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// DER: the issuing CA first, then each certificate that issued the one before it.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The public key of each certificate of the chain, its own first.
    pub fn public_keys(&self) -> &[PublicKey] {
        &self.public_keys
    }

    /// Its subject, a DER Name, as its own certificate has it.
    pub fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// The beginning of its certificate, the first valid second.
    pub fn not_before(&self) -> Time {
        self.not_before
    }

    /// The end of its certificate, the last valid second.
    pub fn not_after(&self) -> Time {
        self.not_after
    }

    /// How it signs.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.signer.algorithm()
    }

    /// The DER value of the authorityKeyIdentifier extension of its certificates.
    pub(crate) fn authority_key_identifier(&self) -> &[u8] {
        &self.authority_key_identifier
    }

    /// How many certificates its HSM signs at once.
    pub(crate) fn sessions(&self) -> usize {
        self.signer.sessions()
    }

    pub(crate) fn signer(&self) -> &dyn Signer {
        &*self.signer
    }
}

/// The certificates of an issuing CA, checked.
#[derive(Debug)]
pub struct CaChain {
    chain: Vec<Vec<u8>>,
    public_keys: Vec<PublicKey>,
    subject: Vec<u8>,
    public_key: PublicKey,
    key_identifier: Vec<u8>,
    not_before: Time,
    not_after: Time,
}

impl CaChain {
    /// Checks that the first certificate may issue and that each was issued by the next.
    ///
    /// # Errors
    /// A sentence that says which certificate is wrong and how.
    pub fn new(chain: Vec<Vec<u8>>) -> Result<CaChain, String> {
        let parsed = chain
            .iter()
            .enumerate()
            .map(|(index, der)| {
                let certificate = Certificate::from_der(der).map_err(|error| error.to_string());
                certificate.map_err(|error| format!("certificate {} is not valid DER: {error}", index + 1))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let first = parsed.first().ok_or("there is no certificate in it")?;
        may_issue(first)?;
        for (index, pair) in parsed.windows(2).enumerate() {
            issued_by(&pair[0], &pair[1]).map_err(|error| format!("certificate {}: {error}", index + 1))?;
        }
        let tbs = first.tbs_certificate();
        let encode = |error: der::Error| error.to_string();
        let public_key = public_key_of(first)?;
        let key_identifier = match tbs.get_extension::<SubjectKeyIdentifier>() {
            Ok(Some((_, SubjectKeyIdentifier(identifier)))) => identifier.as_bytes().to_vec(),
            _ => return Err("the issuing CA's certificate has no subjectKeyIdentifier".into()),
        };
        Ok(CaChain {
            subject: tbs.subject().to_der().map_err(encode)?,
            public_key,
            public_keys: parsed.iter().map(public_key_of).collect::<Result<_, _>>()?,
            key_identifier,
            not_before: Time::of(tbs.validity().not_before),
            not_after: Time::of(tbs.validity().not_after),
            chain,
        })
    }

    /// The issuing CA's public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }
}

fn may_issue(certificate: &Certificate) -> Result<(), String> {
    let tbs = certificate.tbs_certificate();
    match tbs.get_extension::<BasicConstraints>() {
        Ok(Some((_, constraints))) if constraints.ca => {}
        _ => return Err("the first certificate is not a CA's: its basicConstraints do not say CA:TRUE".into()),
    }
    match tbs.get_extension::<KeyUsage>() {
        Ok(Some((_, KeyUsage(usage)))) if usage.contains(KeyUsages::KeyCertSign) => Ok(()),
        _ => Err("the first certificate may not issue: its keyUsage does not say keyCertSign".into()),
    }
}

fn issued_by(certificate: &Certificate, issuer: &Certificate) -> Result<(), String> {
    if certificate.tbs_certificate().issuer() != issuer.tbs_certificate().subject() {
        return Err(
            "its issuer is not the subject of the certificate behind it; list each issuer after what it issued".into(),
        );
    }
    let key = public_key_of(issuer)?;
    let algorithm = verification_algorithm(key.kind, &certificate.signature_algorithm().owned_to_ref())
        .map_err(|reason| format!("it has {reason}"))?;
    let tbs = certificate.tbs_certificate().to_der().map_err(|error| error.to_string())?;
    let signature = certificate.signature().as_bytes().unwrap_or_default();
    if UnparsedPublicKey::new(algorithm, &key.bits).verify(&tbs, signature).is_ok() {
        Ok(())
    } else {
        Err("its signature is not by the key of the certificate behind it".into())
    }
}

fn public_key_of(certificate: &Certificate) -> Result<PublicKey, String> {
    let spki = certificate.tbs_certificate().subject_public_key_info().to_der().map_err(|error| error.to_string())?;
    PublicKey::from_spki(&spki).map_err(|error| error.to_string())
}

/// Reads the certificates of a PEM file; there must be one.
///
/// # Errors
/// A sentence, without the file's name.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| format!("cannot read the certificates: {}", describe_pem_error(&error)))?;
    if found.is_empty() { Err("there is no PEM certificate in it".into()) } else { Ok(found) }
}

/// What is wrong with a PEM file, without its name.
pub fn describe_pem_error(error: &PemError) -> String {
    match error {
        PemError::Io(error) => error.to_string(),
        PemError::NoItemsFound => "there is none in it".into(),
        error => error.to_string(),
    }
}
