//! The issuers of a bundle, and whether they have signed a certificate.

use super::{
    super::manifest::{ISSUERS, Manifest},
    error::{Fault, VerifyError},
};
use crate::{
    asn1::{BIT_STRING, DerError, INTEGER, Reader, SEQUENCE, Value, explicit},
    hash::sha256,
    pem::{self, certificate_pem},
    signer::{self, KeyKind, PublicKey, Signature, SignatureAlgorithm, Verifier},
    x509,
};

/// From so many certificates on, a table of an issuer's key is worth the time that it takes to make.
const MANY: u64 = 1_000;

/// All that may have issued a certificate of the bundle.
#[derive(Debug)]
pub(super) struct Issuers(Vec<Issuer>);

/// One of them.
#[derive(Debug)]
pub(super) struct Issuer {
    /// Of its certificate, in hex.
    pub(super) sha256: String,
    /// Its certificate as lines have it.
    pub(super) pem: String,
    subject: Vec<u8>,
    key: PublicKey,
    /// For P-256, when there are many certificates.
    prepared: Option<Verifier>,
}

impl Issuers {
    /// Reads the chains that the manifest names.
    pub(super) fn read(
        manifest: &Manifest,
        read: impl Fn(&str) -> Result<Vec<u8>, VerifyError>,
    ) -> Result<Issuers, VerifyError> {
        let mut issuers = Vec::new();
        for listed in &manifest.issuers {
            let name = format!("{ISSUERS}{}.pem", listed.sha256);
            let issuer = Issuer::read(&read(&name)?, &listed.sha256, manifest.certificates >= MANY);
            issuers.push(issuer.map_err(|reason| VerifyError::new(&name, Fault::Malformed(reason)))?);
        }
        let stray = manifest.files.iter().find(|file| {
            let name = file.name.strip_prefix(ISSUERS).and_then(|name| name.strip_suffix(".pem"));
            file.name.starts_with(ISSUERS) && !issuers.iter().any(|issuer| name == Some(&issuer.sha256))
        });
        match stray {
            Some(file) => {
                let reason = "the manifest does not say whose chain it is".to_owned();
                Err(VerifyError::new(&file.name, Fault::Malformed(reason)))
            }
            None => Ok(Issuers(issuers)),
        }
    }

    pub(super) fn by_sha256(&self, sha256: &str) -> Option<&Issuer> {
        self.0.iter().find(|issuer| issuer.sha256 == sha256)
    }

    pub(super) fn by_pem(&self, pem: &str) -> Option<&Issuer> {
        self.0.iter().find(|issuer| issuer.pem == pem)
    }

    /// Whether this issuer has signed the certificate; without one, whether any has.
    pub(super) fn check(&self, certificate: &[u8], issuer: Option<&Issuer>) -> Result<(), NotSigned> {
        let signed = Signed::read(certificate)?;
        match issuer {
            Some(issuer) if issuer.has_signed(&signed) => Ok(()),
            Some(_) => Err(NotSigned::ByThat),
            None if self.0.iter().any(|issuer| issuer.has_signed(&signed)) => Ok(()),
            None => Err(NotSigned::ByAny),
        }
    }
}

/// Why a certificate is not of an issuer of the bundle.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSigned {
    #[error("it is not a certificate: {0}")]
    Malformed(#[from] DerError),
    #[error("the issuer beside it has not signed it")]
    ByThat,
    #[error("no issuer of the bundle has signed it")]
    ByAny,
}

impl Issuer {
    fn read(chain: &[u8], sha256_hex: &str, many: bool) -> Result<Issuer, String> {
        let blocks = pem::blocks(chain).map_err(|error| error.to_string())?;
        let read = |block: &pem::Block| x509::Certificate::from_der(&block.der).map_err(|error| error.to_string());
        let certificates = blocks.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let issuing = certificates.first().ok_or("it has no certificate")?;
        if hex::encode(sha256(issuing.der())) != sha256_hex {
            return Err("its first certificate is another one than its name says".into());
        }
        for (lower, upper) in certificates.iter().zip(certificates.iter().skip(1)) {
            let key = PublicKey::of(upper).map_err(|error| error.to_string())?;
            let [_, algorithm] = &lower.algorithms;
            if lower.issuer.as_der() != upper.subject.as_der()
                || signer::verify(&key, algorithm, lower.tbs(), &lower.signature).is_err()
            {
                return Err(format!("it is no chain: {} was not issued by {}", lower.subject, upper.subject));
            }
        }
        let key = PublicKey::of(issuing).map_err(|error| error.to_string())?;
        let prepared = (many && key.kind == KeyKind::P256)
            .then(|| Verifier::new(&key, SignatureAlgorithm::EcdsaP256Sha256))
            .flatten();
        Ok(Issuer {
            sha256: sha256_hex.to_owned(),
            pem: certificate_pem(issuing.der()),
            subject: issuing.subject.as_der().to_vec(),
            key,
            prepared,
        })
    }

    fn has_signed(&self, signed: &Signed<'_>) -> bool {
        if signed.issuer != self.subject {
            return false;
        }
        match &self.prepared {
            Some(prepared) if signed.algorithm == SignatureAlgorithm::EcdsaP256Sha256.identifier() => {
                Signature::check(prepared, signed.tbs, signed.signature.to_vec()).is_some()
            }
            _ => signer::verify(&self.key, signed.algorithm, signed.tbs, signed.signature).is_ok(),
        }
    }
}

/// What a signature is about (RFC 5280 section 4.1.1).
struct Signed<'a> {
    tbs: &'a [u8],
    issuer: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    fn read(der: &'a [u8]) -> Result<Signed<'a>, DerError> {
        let mut outer = Reader::new(Value::only(der)?.of(SEQUENCE)?);
        let (tbs, algorithm) = (outer.value()?, outer.value()?);
        let signature = match outer.expect(BIT_STRING)?.split_first() {
            Some((0, signature)) => signature,
            _ => return Err(DerError::Content("BIT STRING")),
        };
        outer.finish()?;
        let mut inner = Reader::new(tbs.of(SEQUENCE)?);
        inner.optional(explicit(0))?;
        inner.expect(INTEGER)?;
        if inner.value()?.whole != algorithm.whole {
            return Err(DerError::Content("signature algorithm"));
        }
        let issuer = inner.value()?;
        issuer.of(SEQUENCE)?;
        Ok(Signed { tbs: tbs.whole, issuer: issuer.whole, algorithm: algorithm.whole, signature })
    }
}
